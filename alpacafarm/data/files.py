"""The user's own files: read once, checked row by row, kept as rows. Nothing is dropped in silence."""

from __future__ import annotations

import csv
import glob
import gzip
import io
import json
import sys
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from alpacafarm.data.plan import FileRows
from alpacafarm.data.rows import write_rows
from alpacafarm.errors import SpecError
from alpacafarm.ports import Context, Inputs
from alpacafarm.types import Example, Pair, Preference, Thumb

Located = Iterator[tuple[str, Any]]  # "file:line" or "file[index]", and what stands there
ALPACA_FARM = "hf://datasets/tatsu-lab/alpaca_farm/"  # where conf/data/alpaca_farm.yaml looks
ANSWERED = ("sft", "val", "eval")  # splits of demonstrations and references: a row without one is malformed


def read(spec: FileRows, inputs: Inputs, ctx: Context) -> None:
    """Writes `rows.jsonl` (examples, thumbs) or `pairs.jsonl` (preferences); SpecError names file, line,
    reason."""
    write(spec, parsed(spec, str(inputs["file"].path)), ctx)


def parsed(spec: FileRows, location: str) -> list[Any]:
    """Every row of the file; SpecError where it has none."""
    rows = [_parsed(spec, row, i, where) for i, (where, row) in enumerate(located(location))]
    if not rows:
        raise SpecError(f"{location}: the file has no rows; at least one is required")
    return rows


def write(spec: FileRows, rows: list[Any], ctx: Context) -> None:
    write_rows(ctx.out / ("pairs.jsonl" if spec.shape == "preferences" else "rows.jsonl"), rows)


def _parsed(spec: FileRows, row: Any, number: int, where: str) -> Example | Preference | Thumb:
    row_id = f"{spec.split}-{number:06d}"
    if spec.shape == "preferences":
        return preference(row, row_id, where)
    if spec.shape == "thumbs":
        return thumb(row, row_id, where)
    return example(row, row_id, where, answered=spec.split in ANSWERED)


def located(location: str) -> Located:
    """Every row and where it stands. JSON and separated values are read here, the rest by `datasets`. What is
    read here may be packed with gzip (`.json.gz`).

    `datasets` would read a cell of a CSV file as a number, or `NA` as nothing, if it looks like one.
    """
    path = Path(location)
    suffix = path.suffix.lower()
    if _is_packed(path) and not location.startswith("hf:/"):
        suffix = path.with_suffix("").suffix.lower()
    if location.startswith("hf:/"):
        yield from _of_the_hub(named(location), suffix)
    elif suffix in (".jsonl", ".ndjson"):
        yield from _json_lines(path)
    elif suffix == ".json":
        yield from _json_list(path)
    elif suffix in (".csv", ".tsv"):
        yield from _separated(path, "," if suffix == ".csv" else "\t")
    else:
        yield from _by_datasets(location, path)


def named(location: str) -> str:
    """As the user wrote it: inputs come as paths, and a path has no double slash."""
    return location.replace("hf:/", "hf://").replace("///", "//") if location.startswith("hf:/") else location


def _json_lines(path: Path) -> Located:
    with io.BytesIO(_content(path)) if _is_packed(path) else path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if text := _decoded(line, f"{path}:{number}").strip():
                try:
                    yield f"{path}:{number}", json.loads(text)
                except (ValueError, RecursionError) as error:
                    raise SpecError(
                        f"{path}:{number}: not JSON ({error}); every line must be one JSON object"
                    ) from None


def _json_list(path: Path) -> Located:
    try:
        rows = json.loads(_decoded(_content(path), str(path)))
    except (ValueError, RecursionError) as error:
        raise SpecError(f"{path}: not JSON ({error}); a list of objects is required") from None
    if not isinstance(rows, list):
        raise SpecError(f"{path}: holds a {type(rows).__name__}; a list of objects is required")
    for index, row in enumerate(rows):
        yield f"{path}: row {index + 1}", row


def _separated(path: Path, delimiter: str) -> Located:
    """Every cell as the text it is, an empty one as None; only `preference` is a number."""
    csv.field_size_limit(sys.maxsize)
    text = _decoded(_content(path), str(path))
    try:
        table = list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True))
    except csv.Error as error:
        raise SpecError(f"{path}: not CSV ({error}); quote cells and double the quotes in them") from None
    columns, *rows = [cells for cells in table if cells] or [[]]
    if len(set(columns)) < len(columns):
        raise SpecError(f"{path}: a column's name comes twice: {', '.join(columns)}; give each its own")
    for index, cells in enumerate(rows):
        if len(cells) != len(columns):
            raise SpecError(
                f"{path}: row {index + 1}: {len(cells)} cells, and the first line names {len(columns)}; "
                "quote cells that hold the separator"
            )
        row: dict[str, Any] = {name: cell or None for name, cell in zip(columns, cells, strict=True)}
        yield f"{path}: row {index + 1}", row | _number(row, "preference")


def _number(row: Mapping[str, Any], name: str) -> dict[str, float]:
    try:
        return {name: float(row[name])}
    except (KeyError, TypeError, ValueError):  # which the check of the row words
        return {}


def _is_packed(path: Path) -> bool:
    return path.suffix.lower() == ".gz"


def _content(path: Path) -> bytes:
    content = path.read_bytes()
    if not _is_packed(path):
        return content
    try:
        return gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise SpecError(f"{path}: not packed with gzip ({error}); pack it anew, or unpack it") from None


def _decoded(content: bytes, where: str) -> str:
    """UTF-8, with or without the mark that some editors put first."""
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SpecError(f"{where}: not UTF-8 ({error}); save the file as UTF-8") from None


def _by_datasets(location: str, path: Path) -> Located:
    import datasets

    if path.is_file() and path.suffix.lower() != ".parquet":
        raise SpecError(
            f"{location}: a name that ends in {path.suffix or 'nothing'} tells no format; rename it to end "
            "in .json, .jsonl, .ndjson, .csv, .tsv or .parquet, whichever it holds"
        )
    try:
        if path.is_file():
            loaded = datasets.load_dataset("parquet", data_files=glob.escape(str(path)), split="train")
        elif (path / "dataset_info.json").is_file():
            loaded = datasets.load_from_disk(str(path))
        else:
            loaded = datasets.load_dataset(location, split="train")
    except Exception as error:  # whatever the library raises, the user needs the file's name
        raise SpecError(
            f"{location}: `datasets` cannot read it ({type(error).__name__}: {error}); "
            "JSON, JSON lines, Parquet, CSV, a folder of `datasets` or a hub name are accepted"
        ) from error
    for index, row in enumerate(loaded):
        yield f"{location}: row {index + 1}", row


def _of_the_hub(location: str, suffix: str) -> Located:
    """A single file of a hub dataset. It is data: no script of the dataset is run."""
    import datasets

    builder = "parquet" if suffix == ".parquet" else "json"
    try:
        loaded = datasets.load_dataset(builder, data_files=location, split="train")
    except Exception as error:  # whatever the library raises, the user needs to know what to do about it
        ours = location.removeprefix(ALPACA_FARM)
        folder = "" if ours == location else f"data.folder=FOLDER for a folder with {ours} and the others, "
        raise SpecError(
            f"{location}: cannot be fetched from the hub ({type(error).__name__}: {error}); with the file at "
            f"hand, set the key that names it: {folder}data.SPLIT=FILE for rows, given.pairs=FILE for judged "
            "pairs"
        ) from error
    for index, row in enumerate(loaded):
        yield f"{location}: row {index + 1}", row


def example(row: Any, row_id: str, where: str, *, answered: bool = False) -> Example:
    """instruction (required), input, output (required if `answered`): texts."""
    fields = _mapping(row, where)
    return Example(
        row_id,
        _text(fields, "instruction", where),
        _text(fields, "input", where, ""),
        _text(fields, "output", where, None if answered else ""),
        _text(fields, "dataset", where, ""),
    )


def pair(row: Any, row_id: str, where: str) -> Pair:
    """`instruction, input, output_1, output_2` (texts): two answers that nobody needs to have judged."""
    fields = _mapping(row, where)
    return Pair(
        row_id,
        _text(fields, "instruction", where),
        _text(fields, "input", where, ""),
        _text(fields, "output_1", where),
        _text(fields, "output_2", where),
    )


def preference(row: Any, row_id: str, where: str) -> Preference:
    """`instruction, input, output_1, output_2, preference`, or `prompt, chosen, rejected` (text or chat)."""
    fields = _mapping(row, where)
    if "chosen" in fields or "rejected" in fields:
        prompt = _prompt(fields, where)
        chosen, rejected = (_answer(fields.get(side), side, where) for side in ("chosen", "rejected"))
        return Preference(
            row_id, prompt, "", chosen, rejected, 1.0, str(fields.get("annotator") or "recorded")
        )
    value = fields.get("preference")
    if isinstance(value, bool) or not isinstance(value, int | float) or not (1 <= value <= 2 or value == 0):
        raise SpecError(
            f"{where}: preference={value!r} must be 1, 2, 1.5 for a tie, or a number between 1 and 2"
        )
    return Preference(
        row_id,
        _text(fields, "instruction", where),
        _text(fields, "input", where, ""),
        _text(fields, "output_1", where),
        _text(fields, "output_2", where),
        1.5 if value == 0 else float(value),  # 0 is how older AlpacaFarm files write a tie
        str(fields.get("annotator") or "recorded"),
    )


def thumb(row: Any, row_id: str, where: str) -> Thumb:
    """`instruction, input, output, desirable`, or `prompt, completion, label` (text or chat)."""
    fields = _mapping(row, where)
    if "completion" in fields:
        prompt = _prompt(fields, where)
        answer = _answer(fields["completion"], "completion", where)
        return Thumb(row_id, prompt, "", answer, desirable=_claim(fields, "label", where))
    told = example(fields, row_id, where, answered=True)
    return Thumb(**asdict(told), desirable=_claim(fields, "desirable", where))


def _claim(fields: Mapping[str, Any], name: str, where: str) -> bool:
    """True or false, also as the text that a CSV file has."""
    value = fields.get(name)
    if isinstance(value, str):
        value = {"true": True, "false": False}.get(value.strip().lower(), value)
    if not isinstance(value, bool):
        have = ", ".join(map(str, fields)) or "nothing"
        raise SpecError(f"{where}: {name}={value!r} must be true or false; the row has {have}")
    return value


def _mapping(row: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(row, Mapping):
        raise SpecError(f"{where}: holds a {type(row).__name__}; an object with named columns is required")
    return row


def _text(fields: Mapping[str, Any], name: str, where: str, default: str | None = None) -> str:
    value = fields.get(name)
    if value is None and default is not None:
        return default
    if not isinstance(value, str):
        have = ", ".join(map(str, fields)) or "nothing"
        raise SpecError(f"{where}: {name}={value!r} must be text; the row has {have}")
    return _whole(value, name, where)


def _whole(text: str, name: str, where: str) -> str:
    """Refuses half of a surrogate pair: JSON can write one, and neither a file nor a tokenizer takes it."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise SpecError(f"{where}: {name} is no Unicode text ({error}); mend the \\u escapes") from None
    return text


def _prompt(fields: Mapping[str, Any], where: str) -> str:
    if "prompt" not in fields and isinstance(fields.get("chosen"), list):
        return _last_message(fields["chosen"], "user", "chosen", where)
    return _last_message(fields.get("prompt"), "user", "prompt", where)


def _answer(value: Any, name: str, where: str) -> str:
    return _last_message(value, "assistant", name, where)


def _last_message(value: Any, role: str, name: str, where: str) -> str:
    """Text as it is, or the content of a conversation's only message of `role`."""
    if isinstance(value, str):
        return _whole(value, name, where)
    if isinstance(value, list) and all(
        isinstance(m, Mapping) and isinstance(m.get("content"), str) for m in value
    ):
        other = {str(m.get("role")) for m in value} - {"user", "assistant"}
        if other:
            raise SpecError(
                f"{where}: {name} has a message of role {min(other)}, which no prompt here holds; "
                "put what it says into the user's message, or take it out"
            )
        found = [m["content"] for m in value if m.get("role") == role]
        if len(found) == 1:
            return _whole(str(found[0]), name, where)
        raise SpecError(
            f"{where}: {name} has {len(found)} messages of role {role}; "
            "exactly one is supported (single turn)"
        )
    told = json.dumps(value, default=str)[:80]
    raise SpecError(f"{where}: {name}={told} must be text or a list of messages with role and content")
