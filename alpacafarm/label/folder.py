"""A folder of pairs to label: `pairs.jsonl` in the order of labelling, and `labels.sqlite` beside it.

A run makes one in its store, `<store>/labels/<key of the pairs>/`, which nothing ever deletes: another number
of labels, another way to count them and another run on the same pairs find what was said. A folder of one's
own needs a `pairs.jsonl` only.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from alpacafarm.data.files import located, pair
from alpacafarm.data.rows import write_rows
from alpacafarm.errors import SpecError
from alpacafarm.label.labels import Labels
from alpacafarm.stage import content_key
from alpacafarm.stats.seeds import stable_seed
from alpacafarm.types import Pair

PAIRS, LABELS = "pairs.jsonl", "labels.sqlite"


@dataclass(frozen=True)
class Folder:
    """`pairs` by their ids, in the order of labelling."""

    path: Path
    key: str
    pairs: dict[str, Pair]
    labels: Labels

    def is_swapped(self, pair: str, labeller: str) -> bool:
        """Whether output 2 stands on the left: for each pair and person a coin that falls the same way."""
        return bool(stable_seed("sides", self.key, pair, labeller) & 1)


def made(home: Path, pairs: Sequence[Pair]) -> Folder:
    """The folder for these pairs below `home`, which may be there with labels."""
    path = home / content_key([asdict(pair) for pair in pairs])
    path.mkdir(parents=True, exist_ok=True)
    if not (path / PAIRS).is_file():
        write_rows(path / PAIRS, pairs)
    return opened(path)


def opened(path: Path) -> Folder:
    """SpecError where there are no pairs, or not such that can be labelled."""
    file = path / PAIRS
    if not file.is_file():
        raise SpecError(
            f"{path}: there is no {PAIRS} in it, so nothing to label; name the folder that a waiting run "
            f"printed, or put a {PAIRS} there with instruction, input, output_1 and output_2 in each line"
        )
    pairs = {}
    for number, (where, row) in enumerate(located(str(file))):
        row_id = str(row["id"]) if isinstance(row, dict) and row.get("id") else f"pair-{number:06d}"
        if row_id in pairs:
            raise SpecError(f"{where}: id={row_id} comes twice; give every pair its own, or none any")
        pairs[row_id] = pair(row, row_id, where)
    if not pairs:
        raise SpecError(f"{file}: the file has no pairs; at least one is required")
    key = content_key([asdict(row) for row in pairs.values()])
    return Folder(path, key, pairs, Labels(path / LABELS, key, list(pairs)))
