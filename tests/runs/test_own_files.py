"""Own rows: every format gives the same, bad ones are refused by place. Given artifacts are used."""

import csv
import json
import subprocess
from pathlib import Path

import pytest

from alpacafarm.data.plan import WorldRows
from alpacafarm.data.world import examples
from alpacafarm.errors import SpecError
from tests.runs import farm

FILES = ("data=files", "model=scratch", "feedback=human")


def rows(split: str, count: int) -> list[dict[str, str]]:
    made = examples(WorldRows(split=split, rows=count, seed=3))
    return [{"instruction": r.instruction, "input": r.input, "output": r.output} for r in made]


def preferences(count: int) -> list[dict[str, object]]:
    good, bad = rows("eval", count), rows("sft", count)
    return [
        {
            "instruction": a["instruction"],
            "input": a["input"],
            "output_1": a["output"],
            "output_2": b["output"],
            "preference": 1 if i % 4 else 1.5,
        }
        for i, (a, b) in enumerate(zip(good, bad, strict=True))
    ]


def write(path: Path, content: list[dict]) -> Path:
    """In the format that the name ends in."""
    if path.suffix == ".json":
        path.write_text(json.dumps(content))
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in content))
    elif path.suffix == ".csv":
        with path.open("w", newline="") as file:
            table = csv.DictWriter(file, list(content[0]))
            table.writeheader()
            table.writerows(content)
    else:
        import datasets

        made = datasets.Dataset.from_list(content)
        made.to_parquet(str(path)) if path.suffix == ".parquet" else made.save_to_disk(str(path))
    return path


@pytest.fixture(scope="module")
def own(tmp_path_factory) -> dict[str, Path]:
    home = tmp_path_factory.mktemp("own files")  # with a space
    return {
        "sft": write(home / "sft.json", rows("sft", 48)),
        "unlabeled": write(home / "unlabeled.csv", rows("unlabeled", 24)),
        "eval": write(home / "eval.parquet", rows("eval", 12)),
        "preferences": write(home / "preferences.jsonl", preferences(40)),
    }


def named(files: dict[str, Path]) -> list[str]:
    return [f"data.{name}='{path}'" for name, path in files.items()]


def test_ppo_on_own_files_with_recorded_preferences(perform, own):
    ran = perform("ppo", *FILES, "eval/judge=reward", *named(own), world=False)
    result = ran.result
    assert (result["data"], result["model"], result["feedback"]) == ("files", "scratch", "human")
    assert result["gold"] is None
    assert result["eval"]["n_total"] == 12
    assert result["eval"]["judge"].startswith("reward-")
    assert set(result["vs_sft"]) == {"win_rate", "standard_error"}
    assert result["judge_calls"] == 0
    assert not {"sample pairs", "annotate"} & set(ran.keys)  # nobody is asked
    pairs = (ran.artifact("pairs") / "pairs.jsonl").read_text().splitlines()
    assert [json.loads(line)["preference"] for line in pairs] == [
        row["preference"] for row in preferences(40)
    ]
    assert [row["instruction"] for row in json.loads(Path(result["outputs"]).read_text())] == [
        row["instruction"] for row in rows("eval", 12)
    ]


@pytest.mark.parametrize("name", ["rows.json", "rows.jsonl", "rows.csv", "rows.parquet", "folder"])
def test_every_format_gives_the_same_rows(perform, own, tmp_path, name):
    content = [
        *rows("sft", 20),
        {"instruction": 'A "quoted", long\nline with ünïcode', "input": "", "output": "- a\n- b"},
    ]
    path = write(tmp_path / name, content)
    ran = perform("sft", *FILES, *named({**own, "sft": path}), "eval=none", world=False)
    kept = [json.loads(line) for line in (ran.artifact("rows sft") / "rows.jsonl").read_text().splitlines()]
    assert [{k: row[k] for k in ("instruction", "input", "output")} for row in kept] == content
    assert [row["id"] for row in kept] == [f"sft-{i:06d}" for i in range(21)]


def test_chosen_and_rejected_are_pairs_too(perform, own, tmp_path):
    chat = lambda text: [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": text}]  # noqa: E731
    content = [
        {"prompt": "Why?", "chosen": "Because.", "rejected": "No."},
        {
            "prompt": [{"role": "user", "content": "Why?"}],
            "chosen": [chat("Because.")[1]],
            "rejected": [chat("No.")[1]],
        },
        {"chosen": chat("Because."), "rejected": chat("No.")},
    ]
    files = {**own, "preferences": write(tmp_path / "pairs.jsonl", content * 8)}
    ran = perform("rm", *FILES, *named(files), world=False)
    kept = [json.loads(line) for line in (ran.artifact("pairs") / "pairs.jsonl").read_text().splitlines()]
    texts = {tuple(row[k] for k in ("instruction", "output_1", "output_2", "preference")) for row in kept}
    assert len(kept) == 24
    assert texts == {("Why?", "Because.", "No.", 1.0)}


GOOD = {"instruction": "Say hi.", "input": "", "output": "Hi."}
PAIR = {"instruction": "Say hi.", "output_1": "Hi.", "output_2": "No.", "preference": 1}
MALFORMED = [
    ("sft.jsonl", "sft", '{"instruction": "a"}\n{"instruction": ', r"sft\.jsonl:2: not JSON"),
    (
        "sft.jsonl",
        "sft",
        [GOOD, {"input": "x"}],
        r"sft\.jsonl:2: instruction=None must be text; the row has input",
    ),
    ("sft.jsonl", "sft", [GOOD, GOOD, {**GOOD, "output": 3}], r"sft\.jsonl:3: output=3 must be text"),
    (
        "sft.jsonl",
        "sft",
        [GOOD, ["x"]],
        r"sft\.jsonl:2: holds a list; an object with named columns is required",
    ),
    ("sft.json", "sft", [GOOD, {"instruction": 1}], r"sft\.json: row 2: instruction=1 must be text"),
    ("sft.json", "sft", '{"instruction": "a"}', r"sft\.json: holds a dict; a list of objects is required"),
    ("sft.json", "sft", "nonsense", r"sft\.json: not JSON .*; a list of objects is required"),
    ("sft.json", "sft", "[]", r"sft\.json: the file has no rows; at least one is required"),
    ("sft.csv", "sft", "instruction,output\na,b\n,c\n", r"sft\.csv: row 2: instruction=None must be text"),
    (
        "sft.csv",
        "sft",
        "prompt,answer\na,b\n",
        r"sft\.csv: row 1: instruction=None must be text; the row has prompt, answer",
    ),
    (
        "sft.parquet",
        "sft",
        "not parquet",
        r"sft\.parquet: `datasets` cannot read it .*JSON lines, Parquet, CSV",
    ),
    (
        "p.jsonl",
        "preferences",
        [PAIR, {**PAIR, "preference": 3}],
        r"p\.jsonl:2: preference=3 must be 1, 2, 1\.5 for a tie",
    ),
    (
        "p.jsonl",
        "preferences",
        [{**PAIR, "preference": None}],
        r"p\.jsonl:1: preference=None must be 1, 2, 1\.5",
    ),
    (
        "p.jsonl",
        "preferences",
        [{**PAIR, "preference": True}],
        r"p\.jsonl:1: preference=True must be 1, 2, 1\.5",
    ),
    (
        "p.jsonl",
        "preferences",
        [{"prompt": "a", "chosen": "b"}],
        r"p\.jsonl:1: rejected=null must be text or a list of messages",
    ),
    (
        "p.jsonl",
        "preferences",
        [{"chosen": "b", "rejected": "c"}],
        r"p\.jsonl:1: prompt=null must be text or a list",
    ),
    (
        "p.jsonl",
        "preferences",
        [{"prompt": 3, "chosen": "b", "rejected": "c"}],
        r"p\.jsonl:1: prompt=3 must be text",
    ),
    (
        "p.jsonl",
        "preferences",
        [{"prompt": "a", "chosen": [{"role": "user", "content": "x"}], "rejected": "c"}],
        r"p\.jsonl:1: chosen has 0 messages of role assistant; exactly one is supported",
    ),
]


@pytest.mark.parametrize(("name", "split", "content", "message"), MALFORMED)
def test_malformed_row_is_refused_with_file_place_and_reason(
    perform, own, tmp_path, name, split, content, message
):
    path = tmp_path / name
    if isinstance(content, str):
        path.write_text(content)
    else:
        write(path, content)
    with pytest.raises(SpecError, match=message) as caught:
        perform("rm", *FILES, *named({**own, split: path}), world=False)
    assert caught.value.exit_code == 2


def test_malformed_row_ends_the_command_with_two_before_any_training(own, tmp_path):
    bad = write(tmp_path / "eval.jsonl", [GOOD, {"instruction": 1}])
    asked = farm.tiny("sft", *FILES, "eval/judge=reward", *named({**own, "eval": bad}), world=False)
    done = subprocess.run(farm.command(*asked, "store=store"), cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2
    assert "eval.jsonl:2: instruction=1 must be text" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "store" / "policy").exists()


def test_a_failed_job_does_not_end_the_sweep_but_is_told_by_its_exit_code(own, tmp_path):
    bad = write(tmp_path / "bad.jsonl", [GOOD, {"instruction": 1}])
    good = write(tmp_path / "good.jsonl", rows("sft", 20))
    asked = farm.tiny("sft", *FILES, "eval=none", f"data.sft={bad},{good}", world=False)
    done = subprocess.run(
        farm.command("-m", *asked, "store=store", "hydra.sweep.dir=sweep"),
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert "bad.jsonl:2: instruction=1 must be text" in done.stderr
    assert "Error executing job" not in done.stderr
    assert farm.read(tmp_path / "sweep" / "1").states["sft"] == "made"


@pytest.mark.parametrize("form", ["artifact", "folder"])
def test_given_sft_is_used_and_gives_the_same_policy(perform, form):
    made = perform("ppo")
    path = made.artifact("sft") / ("model" if form == "folder" else "")
    reward = made.artifact("rm")
    ran = perform("ppo", f"given.sft={path}", f"given.rm={reward}")
    assert not {"base", "sft", "rm", "rows sft", "annotate"} & set(ran.keys)
    assert farm.hashes(ran.artifact("ppo")) == farm.hashes(made.artifact("ppo"))
    assert ran.result["gold"] == made.result["gold"]
    assert ran.result["vs_sft"] == made.result["vs_sft"]


@pytest.mark.parametrize("form", ["artifact", "file"])
def test_given_pairs_are_used_and_give_the_same_reward_model_or_pairs(perform, form):
    made = perform("rm")
    path = made.artifact("annotate") / ("pairs.jsonl" if form == "file" else "")
    ran = perform("rm", f"given.pairs={path}")
    assert not {"sample pairs", "annotate", "rows preference"} & set(ran.keys)
    if form == "artifact":
        assert farm.hashes(ran.artifact("rm")) == farm.hashes(made.artifact("rm"))
        return
    told = [  # rows of a file get ids of their own, and with them another order
        [
            {**json.loads(line), "id": ""}
            for line in (r.artifact(name) / "pairs.jsonl").read_text().splitlines()
        ]
        for r, name in ((made, "annotate"), (ran, "pairs"))
    ]
    assert told[0] == told[1]


def test_given_reward_model_can_judge_the_feedback(perform):
    """A new reward model that learns from the verdicts of the given one."""
    given = perform("rm").artifact("rm")
    ran = perform("rm", f"given.rm={given}", "feedback/judge=reward", "feedback.flip_probability=0.0")
    pairs = [json.loads(line) for line in (ran.artifact("annotate") / "pairs.jsonl").read_text().splitlines()]
    assert ran.states["rm"] == "made"
    assert {pair["annotator"] for pair in pairs} == {ran.facts("annotate")["judge"]}
    assert ran.facts("annotate")["judge"].startswith("reward-")
    assert {pair["preference"] for pair in pairs} == {1.0, 2.0}
