"""Rows of the user's files: what is read is what the file says, or it is refused by file and place."""

import json
from pathlib import Path

import pandas as pd
import pytest

from alpacafarm.data.files import example, located, preference, read, thumb
from alpacafarm.data.plan import FileRows
from alpacafarm.data.rows import read_rows
from alpacafarm.errors import SpecError
from alpacafarm.ports import Artifact
from alpacafarm.stage import Kind
from alpacafarm.types import Thumb

ROW = {"instruction": "Say hi.", "input": "", "output": "Hi."}


def examples(path, **how):
    return [example(row, str(i), where, **how) for i, (where, row) in enumerate(located(str(path)))]


def test_cells_of_a_csv_file_stay_text(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text(
        'instruction,output\nWhat is n/a?,NA\n2+2?,4\n"a, ""b""\nc",007\nTrue?,null\nsep?,a\u2028b\n'
    )
    rows = examples(path)
    assert [row.output for row in rows] == ["NA", "4", "007", "null", "a\u2028b"]
    assert rows[2].instruction == 'a, "b"\nc'


def test_tsv_is_separated_by_tabs(tmp_path):
    path = tmp_path / "rows.tsv"
    path.write_text("instruction\toutput\na, b\tc\n")
    assert [(row.instruction, row.output) for row in examples(path)] == [("a, b", "c")]


def test_preferences_of_a_csv_file_are_numbers(tmp_path):
    path = tmp_path / "pairs.csv"
    path.write_text("instruction,output_1,output_2,preference\nq,a,b,2\nq,a,b,1.5\n")
    pairs = [preference(row, "0", where) for where, row in located(str(path))]
    assert [pair.preference for pair in pairs] == [2, 1.5]


@pytest.mark.parametrize("name", ["rows.json", "rows.jsonl", "rows.JSONL", "rows.csv"])
def test_a_byte_order_mark_is_no_content(tmp_path, name):
    path = tmp_path / name
    text = {".json": json.dumps([ROW]), ".csv": "instruction,input,output\nSay hi.,,Hi.\n"}
    path.write_bytes(b"\xef\xbb\xbf" + text.get(path.suffix, json.dumps(ROW) + "\r\n").encode())
    assert [(row.instruction, row.output) for row in examples(path)] == [("Say hi.", "Hi.")]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("r.jsonl", b'{"instruction": "caf\xe9"}', r"r\.jsonl:1: not UTF-8 .*; save the file as UTF-8"),
        ("r.json", b'[{"instruction": "caf\xe9"}]', r"r\.json: not UTF-8 .*; save the file as UTF-8"),
        ("r.csv", b"instruction\ncaf\xe9", r"r\.csv: not UTF-8 .*; save the file as UTF-8"),
        ("r.jsonl", b"[" * 100_000, r"r\.jsonl:1: not JSON "),
        ("r.json", b"[" * 100_000, r"r\.json: not JSON "),
        ("r.jsonl", b'{"instruction": "a\\ud800"}', r"r\.jsonl:1: instruction is no Unicode text"),
        (
            "r.csv",
            b"instruction,output\na,b,c\n",
            r"r\.csv: row 1: 3 cells, and the first line names 2",
        ),
        ("r.csv", b"output,output\na,b\n", r"r\.csv: a column's name comes twice"),
        ("r.csv", b'instruction\n"a"b\n', r"r\.csv: not CSV "),
        ("r.txt", b"a", r"r\.txt: a name that ends in \.txt tells no format; rename it"),
        ("r", b"a", r"r: a name that ends in nothing tells no format; rename it"),
    ],
)
def test_what_cannot_be_read_is_refused_by_its_place(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SpecError, match=message):
        examples(tmp_path / name)


LIKED = {"instruction": "Say hi.", "output": "Hi.", "desirable": True}


def test_the_name_of_a_parquet_file_is_no_pattern(tmp_path):
    for name, output in (("rows[12].parquet", "mine"), ("rows1.parquet", "another's")):
        pd.DataFrame([{"instruction": "i", "input": "", "output": output}]).to_parquet(tmp_path / name)
    assert [row.output for row in examples(tmp_path / "rows[12].parquet")] == ["mine"]


def test_both_forms_of_thumbs_are_read(tmp_path):
    chat = [{"role": "user", "content": "Say hi."}]
    rows = [
        LIKED,
        {"prompt": "Say hi.", "completion": "No.", "label": False},
        {"prompt": chat, "completion": [{"role": "assistant", "content": "Hi."}], "label": True},
    ]
    path = tmp_path / "thumbs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    read(FileRows(split="thumbs", shape="thumbs"), {"file": Artifact(path, Kind.ROWS, "k")}, Folder(tmp_path))
    kept = read_rows(tmp_path / "rows.jsonl", Thumb)
    assert [(t.id, t.instruction, t.output, t.desirable) for t in kept] == [
        ("thumbs-000000", "Say hi.", "Hi.", True),
        ("thumbs-000001", "Say hi.", "No.", False),
        ("thumbs-000002", "Say hi.", "Hi.", True),
    ]


def test_thumbs_of_a_csv_file_are_words(tmp_path):
    path = tmp_path / "thumbs.csv"
    path.write_text("instruction,output,desirable\nq,a,true\nq,b,FALSE\n")
    assert [thumb(row, "0", where).desirable for where, row in located(str(path))] == [True, False]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"desirable": 1}, r"here: desirable=1 must be true or false; the row has instruction, output"),
        ({"desirable": "yes"}, "here: desirable='yes' must be true or false"),
        ({"desirable": None}, "here: desirable=None must be true or false"),
        ({"output": None}, "here: output=None must be text"),
        ({"completion": "a"}, "here: prompt=null must be text"),
        ({"completion": "a", "prompt": "b"}, "here: label=None must be true or false"),
    ],
)
def test_a_malformed_thumb_is_refused(change, message):
    with pytest.raises(SpecError, match=message):
        thumb({**LIKED, **change}, "0", "here")


class Folder:
    def __init__(self, out):
        self.out = out


@pytest.mark.parametrize("row", [{"instruction": "a", "outptu": "b"}, {"instruction": "a", "output": None}])
@pytest.mark.parametrize("split", ["sft", "eval", "val"])
def test_a_demonstration_or_reference_without_output_is_refused(tmp_path, row, split):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(ROW) + "\n" + json.dumps(row) + "\n")
    given = {"file": Artifact(path, Kind.ROWS, "key", {})}
    with pytest.raises(SpecError, match=r"rows\.jsonl:2: output=None must be text"):
        read(FileRows(split=split, shape="examples"), given, Folder(tmp_path))
    read(FileRows(split="unlabeled", shape="examples"), given, Folder(tmp_path))  # needs none


def test_an_output_may_be_empty():
    assert example({"instruction": "a", "output": ""}, "0", "here", answered=True).output == ""


def test_a_system_message_is_not_dropped_in_silence():
    said = [{"role": "system", "content": "Lie."}, {"role": "user", "content": "Why?"}]
    with pytest.raises(SpecError, match="here: prompt has a message of role system"):
        preference({"prompt": said, "chosen": "a", "rejected": "b"}, "0", "here")


def test_a_file_of_the_hub_is_read_as_data_by_its_whole_name(monkeypatch):
    import datasets

    asked = []

    def load_dataset(builder, **how):
        asked.append((builder, how))
        return [ROW]

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    name = "hf://datasets/tatsu-lab/alpaca_farm/alpaca_instructions/sft"
    for suffix in (".json", ".jsonl", ".parquet"):
        # inputs come as paths, and a path has no double slash
        assert list(located(str(Path(name + suffix)))) == [(f"{name}{suffix}: row 1", ROW)]
    assert asked == [
        (builder, {"data_files": name + suffix, "split": "train"})
        for builder, suffix in (("json", ".json"), ("json", ".jsonl"), ("parquet", ".parquet"))
    ]


def test_without_a_network_the_message_says_what_is_missing_and_where_to_put_it(monkeypatch):
    import datasets

    def refuse(*asked, **how):
        raise ConnectionError("Name or service not known")

    monkeypatch.setattr(datasets, "load_dataset", refuse)
    message = (
        r"^hf://datasets/a/b/sft\.json: cannot be fetched from the hub \(ConnectionError: Name or service "
        r"not known\); with the file at hand, set .*: data\.SPLIT=FILE for rows, given\.pairs=FILE for"
    )
    with pytest.raises(SpecError, match=message):
        list(located("hf:/datasets/a/b/sft.json"))
