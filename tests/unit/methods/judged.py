"""Judged pairs over the rows of `conftest.make`, and what the policy says of them, as stage inputs."""

from collections.abc import Sequence
from pathlib import Path

from alpacafarm.data.rows import read_rows, write_rows
from alpacafarm.ports import Artifact
from alpacafarm.rollout import reference
from alpacafarm.stage import Kind
from alpacafarm.types import Example, Preference
from tests.unit.methods.conftest import Tiny


def write_pairs(tiny: Tiny, folder: Path, preferences: Sequence[float] = (2.0, 1.0, 1.5, 1.8)) -> Artifact:
    """A pair for each row: its own answer and the next one's, none alike, judged by `preferences` in turn."""
    rows = read_rows(tiny.rows.path / "rows.jsonl", Example)
    pairs = [
        Preference(
            a.id,
            a.instruction,
            a.input,
            f"{i}. {a.output}",
            f"{i}: {b.output}",
            preferences[i % len(preferences)],
        )
        for i, (a, b) in enumerate(zip(rows, [*rows[1:], rows[0]], strict=True))
    ]
    write_rows(folder / "pairs.jsonl", pairs)
    return Artifact(folder, Kind.PAIRS, folder.name)


def measured(tiny: Tiny, pairs: Artifact) -> Artifact:
    """The stage "reference" of the policy over the pairs."""
    ctx = tiny.context(f"reference-{tiny.policy.key}-{pairs.key}")
    reference.measure(reference.ReferenceSpec(), {"policy": tiny.policy, "pairs": pairs}, ctx)
    return Artifact(ctx.out, Kind.LOGPROBS, f"l-{pairs.key}", ctx.facts)
