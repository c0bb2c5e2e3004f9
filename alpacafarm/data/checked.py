"""Files that must be the ones that are meant: as many rows as expected, and splits that do not overlap."""

from typing import Any

from alpacafarm.data.files import example, located, named, parsed, write
from alpacafarm.data.plan import CheckedRows
from alpacafarm.errors import SpecError
from alpacafarm.ports import Context, Inputs
from alpacafarm.types import Example

WAY_OUT = "or set data.expect=null for data of your own"


def read(spec: CheckedRows, inputs: Inputs, ctx: Context) -> None:
    """As `files.read`; SpecError where the file is not as expected. Records how much splits share."""
    location = str(inputs["file"].path)
    rows = parsed(spec, location)
    check_count(spec, len(rows), named(location))
    others = {split: str(artifact.path) for split, artifact in inputs.items() if split != "file"}
    shared = {split: check_shared(spec, rows, location, split, other) for split, other in others.items()}
    write(spec, rows, ctx)
    ctx.record(rows=len(rows), **({"shared_with": shared} if shared else {}))


def check_count(spec: CheckedRows, count: int, location: str) -> None:
    if spec.rows is None or spec.rows[0] <= count <= spec.rows[1]:
        return
    least, most = (f"{bound:,}" for bound in spec.rows)
    expected = least if least == most else f"{least} to {most}"
    raise SpecError(
        f"data.{spec.split}={location}: has {count:,} rows, and {expected} are expected: it is another file "
        f"or a part of it; fetch it again, {WAY_OUT}"
    )


def check_shared(spec: CheckedRows, rows: list[Any], location: str, split: str, other: str) -> int:
    """How many rows another split has too, by instruction and input."""
    theirs: list[Example] = [example(row, "", where) for where, row in located(other)]
    known = {(row.instruction, row.input) for row in theirs}
    both = [row for row in rows if (row.instruction, row.input) in known]
    if len(both) > spec.shared * min(len(rows), len(theirs)):
        raise SpecError(
            f"data.{spec.split}={named(location)}: {len(both):,} of its {len(rows):,} rows are in "
            f"data.{split}={named(other)} too, such as {both[0].instruction[:60]!r}, and splits must not "
            f"share more than {spec.shared:.1%}; give each its own file, {WAY_OUT}"
        )
    return len(both)
