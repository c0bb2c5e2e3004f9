"""The finished parts of a decoding stage: what a killed one goes on from, on any number of ranks.

Rank r of w samples the jobs r, r + w, r + 2w and so on, and keeps each SHARD of them in a file of its own.
"""

import json
import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from alpacafarm.data.rows import write_text

SHARD = 512  # responses between two saves

Response = tuple[tuple[int, ...], bool]  # token ids, and whether the end token was emitted


def path(folder: Path, key: str, rank: int, world: int, number: int) -> Path:
    """Of a rank's shard; `key` is that of the sampled policy."""
    return folder / f"shard-{key}-{rank}of{world}-{number}.json"


def write(place: Path, responses: Sequence[Response]) -> None:
    write_text(place, json.dumps([[ids for ids, _ in responses], [ended for _, ended in responses]]))


def read(place: Path) -> list[Response]:
    responses, ended = json.loads(place.read_text())
    return [(tuple(ids), end) for ids, end in zip(responses, ended, strict=True)]


def of_other_worlds(folder: Path, key: str, world: int) -> dict[int, dict[int, Response]]:
    """What other numbers of ranks than `world` have finished: by that number, by job."""
    found: dict[int, dict[int, Response]] = defaultdict(dict)
    for place in sorted(folder.glob(f"shard-{key}-*.json")):
        name = re.fullmatch(r"shard-.*-(\d+)of(\d+)-(\d+)\.json", place.name)
        assert name is not None, place
        rank, ranks, number = map(int, name.groups())
        if ranks != world:
            first = rank + ranks * SHARD * number
            found[ranks] |= {first + ranks * i: response for i, response in enumerate(read(place))}
    return dict(found)
