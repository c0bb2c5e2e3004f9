"""`data=alpaca_farm`: the hub's files, or a folder of them, are checked to be the ones that are meant."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from alpacafarm.data.checked import read
from alpacafarm.data.files import located
from alpacafarm.data.plan import CheckedRows
from alpacafarm.data.rows import read_rows
from alpacafarm.errors import SpecError
from alpacafarm.ports import Artifact
from alpacafarm.stage import Kind
from alpacafarm.types import Example
from tests.runs import farm


def examples(name: str, count: int) -> list[dict[str, str]]:
    return [{"instruction": f"{name} {i}", "input": "", "output": "Hi."} for i in range(count)]


def write(path: Path, rows: list[dict]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(rows))
    return path


def check(home: Path, rows, *, others=None, bounds=None, shared=0.0) -> dict:
    """What the stage records of a `val` file."""
    paths = {"file": write(home / "val.json", rows)}
    paths |= {name: write(home / f"{name}.json", other) for name, other in (others or {}).items()}
    spec = CheckedRows(split="val", shape="examples", rows=list(bounds) if bounds else None, shared=shared)
    facts: dict = {}
    ctx = SimpleNamespace(out=home, record=lambda **told: facts.update(told))
    read(spec, {role: Artifact(path, Kind.ROWS, "k") for role, path in paths.items()}, ctx)
    return facts


def test_a_file_as_expected_is_read_and_what_it_shares_is_recorded(tmp_path):
    val = examples("val", 4)
    facts = check(tmp_path, val, others={"sft": [*examples("sft", 5), val[0]]}, bounds=(4, 4), shared=0.25)
    assert facts == {"rows": 4, "shared_with": {"sft": 1}}
    assert [row.id for row in read_rows(tmp_path / "rows.jsonl", Example)] == [
        f"val-{i:06d}" for i in range(4)
    ]


@pytest.mark.parametrize(
    ("bounds", "told"), [((5, 5), "5"), ((6, 9), "6 to 9"), ((1, 3), "1 to 3"), ((2000, 2000), "2,000")]
)
def test_another_number_of_rows_is_refused(tmp_path, bounds, told):
    message = rf"^data\.val=/.*val\.json: has 4 rows, and {told} are expected: .*, or set data\.expect=null"
    with pytest.raises(SpecError, match=message) as caught:
        check(tmp_path, examples("val", 4), bounds=bounds)
    assert caught.value.exit_code == 2


def test_splits_that_overlap_are_refused(tmp_path):
    val = examples("val", 4)
    message = (
        r"^data\.val=/.*val\.json: 2 of its 4 rows are in data\.sft=/.*sft\.json too, such as 'val 0', and "
        r"splits must not share more than 25\.0%; give each its own file, or set data\.expect=null"
    )
    with pytest.raises(SpecError, match=message):
        check(tmp_path, val, others={"sft": [*examples("sft", 5), *val[:2]]}, shared=0.25)


def test_equal_instructions_with_other_inputs_are_other_rows(tmp_path):
    other = [{**row, "input": "x"} for row in examples("val", 4)]
    assert check(tmp_path, examples("val", 4), others={"sft": other})["shared_with"] == {"sft": 0}


SIZES = {"sft": 10_000, "preference": 20_001, "unlabeled": 20_001, "val": 2000}


@pytest.fixture(scope="module")
def hub(tmp_path_factory) -> Path:
    """A folder laid out like the hub's, with as many rows."""
    home = tmp_path_factory.mktemp("alpaca farm")
    for split, count in SIZES.items():
        write(home / "alpaca_instructions" / f"{split}.json", examples(split, count))
    write(home / "alpaca_farm_evaluation.json", examples("eval", 805))
    for name, count in (("human", 9691), ("noisy_multi", 9691), ("gpt4", 19_472)):
        pairs = [
            {
                "instruction": f"{name} {i}",
                "input": "",
                "output_1": "a",
                "output_2": "b",
                "preference": 1 + i % 2,
            }
            for i in range(count)
        ]
        write(home / f"alpaca_{name}_preference.json", pairs)
    return home


def asked(folder: str, *overrides: str) -> list[str]:
    data = ("data=alpaca_farm", "model=scratch", "eval=none", "cluster.engine=plain", "cluster.processes=1")
    return farm.tiny("rm", *data, f"data.folder='{folder}'", *overrides, world=False)


def stages(job):
    return {stage.name: stage for stage in job.plan.stages}


def test_every_split_is_checked_against_the_others(hub):
    from alpacafarm import commandline, run

    with commandline.configs():
        cfg, choices = commandline.composed(asked(str(hub)), [])
        plan = stages(run.prepared(cfg, asked(str(hub)), choices))
    rows = plan["rows sft"]
    assert rows.params == {"split": "sft", "shape": "examples", "rows": [10_000, 10_000], "shared": 0.005}
    assert sorted(rows.inputs) == ["file", "preference", "unlabeled", "val"]
    assert plan["pairs"].params["rows"] == [9000, 20_500]


NAMED = ("alpaca_human_preference", "alpaca_noisy_multi_preference", "alpaca_gpt4_preference")


@pytest.mark.parametrize(("feedback", "key"), [("human", "preferences"), ("sim", "simulated_preferences")])
def test_released_pairs_go_by_their_names_and_by_their_files(hub, feedback, key):
    from alpacafarm import commandline, run

    def pairs(folder: str, value: str):
        overrides = asked(folder, f"feedback={feedback}", f"data.{key}='{value}'")
        with commandline.configs():
            cfg, choices = commandline.composed(overrides, [])
            return stages(run.prepared(cfg, overrides, choices))["pairs"]

    for name in NAMED:
        named = pairs(str(hub), name)
        assert named.inputs["file"].location == str((hub / f"{name}.json").resolve())
        assert named.key == pairs(str(hub), f"{hub}/{name}.json").key
        of_the_hub = pairs("hf://datasets/tatsu-lab/alpaca_farm", name)
        assert of_the_hub.inputs["file"].location == f"hf://datasets/tatsu-lab/alpaca_farm/{name}.json"


def command(home: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    """In a process that may not ask the hub."""
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HOME": str(home / "hf")}
    return subprocess.run(
        farm.command(*overrides, "store=store"),
        cwd=home,
        capture_output=True,
        text=True,
        env=os.environ | offline,
    )


def test_offline_the_message_says_what_is_missing_and_where_to_put_it(tmp_path):
    done = command(tmp_path, *asked("hf://datasets/tatsu-lab/alpaca_farm"))
    assert done.returncode == 2, done.stderr[-2000:]
    told = done.stderr.splitlines()[-1]
    assert "hf://datasets/tatsu-lab/alpaca_farm/" in told
    assert "cannot be fetched from the hub (" in told
    assert "data.folder=FOLDER for a folder with alpaca_" in told
    assert "Traceback" not in done.stderr


def test_a_folder_that_lacks_files_is_refused_before_anything_is_made(tmp_path, hub):
    write(tmp_path / "part" / "alpaca_instructions" / "sft.json", examples("sft", 3))
    done = command(tmp_path, *asked("part"), "feedback=human")
    assert done.returncode == 2
    told = done.stderr.splitlines()
    assert told[0].startswith(
        "data.preference=part/alpaca_instructions/preference.json: there is no such file"
    )
    assert not (tmp_path / "store").exists()


def test_a_wrong_file_in_the_folder_is_named(tmp_path, hub):
    wrong = "data.sft='${data.folder}/alpaca_instructions/preference.json'"
    done = command(tmp_path, *asked(str(hub)), wrong)
    assert done.returncode == 2, done.stderr[-2000:]
    told = done.stderr.splitlines()[-1]
    assert (
        f"data.sft={hub}/alpaca_instructions/preference.json: has 20,001 rows, and 10,000 are expected"
        in told
    )
    assert not (tmp_path / "store" / "policy").exists()


def test_a_file_in_two_places_of_the_folder_is_named(tmp_path, hub):
    for path in hub.rglob("*.json"):
        target = tmp_path / "copy" / path.relative_to(hub)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to(path)
    (tmp_path / "copy" / "alpaca_instructions" / "unlabeled.json").unlink()
    both = json.loads((hub / "alpaca_instructions" / "preference.json").read_text())
    write(tmp_path / "copy" / "alpaca_instructions" / "unlabeled.json", both)
    done = command(
        tmp_path, *asked("copy"), "data.preferences=null", "feedback=human", "feedback/judge=people"
    )
    assert done.returncode == 2, done.stderr[-2000:]
    told = done.stderr.splitlines()[-1]
    assert "data.preference=" in told
    assert "20,001 of its 20,001 rows are in data.unlabeled=" in told


def test_the_hubs_rows_pass_through_datasets_without_remote_code(hub, tmp_path):
    """The json builder of `datasets` on the same content as our own reader, offline."""
    script = f"""
import datasets, json
path = {str(hub / "alpaca_instructions" / "val.json")!r}
rows = datasets.load_dataset("json", data_files=path, split="train")
print(json.dumps([len(rows), rows[0]]))
"""
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HOME": str(tmp_path / "hf")}
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=os.environ | offline, check=True
    )
    count, first = json.loads(done.stdout.splitlines()[-1])
    own = [row for _, row in located(str(hub / "alpaca_instructions" / "val.json"))]
    assert (count, first) == (len(own), own[0])
