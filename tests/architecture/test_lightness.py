"""A plan, a status and a wrong key are answered without the libraries that take seconds to import."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from alpacafarm.table2.rows import TRAINED

HEAVY = {
    "torch",
    "transformers",
    "deepspeed",
    "datasets",
    "matplotlib",
    "peft",
    "wandb",
    "alpaca_eval",
    "openai",
    "aiohttp",
    "starlette",
    "uvicorn",
}
PROBE = """
import json, runpy, sys
sys.argv = sys.argv[1:]
try:
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
except SystemExit as error:
    code = error.code
print(json.dumps({"code": code, "modules": sorted({name.split(".")[0] for name in sys.modules})}))
"""


def modules_after(tmp_path: Path, *overrides: str) -> tuple[int, set[str]]:
    """The exit code, and the top-level modules that are loaded in the end."""
    code, modules, _ = after(tmp_path, "alpacafarm.run", *overrides, "store=store", "hydra.run.dir=run")
    return code, modules


def after(tmp_path: Path, *command: str) -> tuple[int, set[str], str]:
    """The same of a module and its arguments, and what it printed."""
    command = (sys.executable, "-c", PROBE, *command)
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    *printed, last = done.stdout.splitlines()
    told = json.loads(last)
    return told["code"], set(told["modules"]), "\n".join(printed)


@pytest.mark.parametrize(
    ("overrides", "code"),
    [
        (["method=ppo", "action=plan"], 0),
        (["method=best_of_n", "action=plan", "feedback=human"], 0),
        (["method=rm", "action=plan", "feedback/judge=p_sim_ann"], 0),
        (["method=ppo", "action=plan", "feedback=human", "feedback/judge=people"], 0),
        (["action=status"], 0),
        ([], 2),
        (["method=dpo", "kl_coef=0.1"], 2),
        (["method=ppo", "sead=1"], 2),
        (["method=ppo", "method.clip=7"], 2),
        (["method=ppo", "given.sft=/nowhere"], 2),
    ],
    ids=lambda x: " ".join(x) if isinstance(x, list) else str(x),
)
def test_nothing_heavy_is_loaded(tmp_path, overrides, code):
    ended, modules = modules_after(tmp_path, *overrides)
    assert ended == code
    assert "pydantic" in modules  # or the probe saw nothing
    assert modules & HEAVY == set()


def test_the_label_page_needs_nothing_heavy(tmp_path):
    pair = {"instruction": "a", "output_1": "b", "output_2": "c"}
    (tmp_path / "pairs.jsonl").write_text(json.dumps(pair) + "\n")
    code, modules, told = after(tmp_path, "alpacafarm.label", ".", "--write", "judged.jsonl")
    assert (code, told) == (0, "0 of 1 pairs have a verdict: judged.jsonl")
    assert modules & HEAVY == set()


def test_the_plan_of_the_whole_table_at_the_papers_scale_needs_nothing_heavy(tmp_path, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    code, modules, told = after(tmp_path, "alpacafarm.table2", "--scale", "7b", "--dry", "store=store")
    assert code == 0
    assert modules & (HEAVY | {"huggingface_hub", "httpx", "requests"}) == set()
    for row in TRAINED.values():
        for column in ("sim", "human"):
            assert re.search(rf"^\d+ +{re.escape(row.label)} +{column} ", told, re.MULTILINE), row.label
    assert told.count("huggyllama/llama-7b") >= 3
    assert "eval/judge=p_sim_eval" in told  # the paper's judge, whose key a plan does not need
    assert re.search(r"^to do: about [1-9][\d,]+ judge calls, [1-9][\d,]*\.\d\d USD$", told, re.MULTILINE)
    rows = dict(re.findall(r"^\d+ +(\w+) .* to do .* 1 +8 +([\d.]+ +[\d.]+) ", told, re.MULTILINE))
    assert {"sft", "rm", "ppo", "dpo", "quark", "expiter", "compare"} <= set(rows)  # GiB and hours of each
    assert all(float(gib) < 76 for gib, _ in map(str.split, rows.values()))
    machines = re.search(
        r"^machines: (\d+) jobs with a model, at most ([\d,]+) GPU hours, ", told, re.MULTILINE
    )
    assert machines is not None
    assert int(machines[1]) == len(re.findall(r" to do .* 1 +8 +[\d.]+ +[\d.]+ ", told))
    assert "of which nobody knows" not in told
    assert re.search(
        r"^hours at most, on a100-80gb \(312 TFLOP/s .*at 30% of the device's", told, re.MULTILINE
    )
    assert list(tmp_path.iterdir()) == []


def test_a_leaderboard_with_length_control_needs_nothing_heavy(tmp_path):
    row = {"output_1": "a", "output_2": "b", "annotator": "j", "generator_2": "m"}
    judged = [{**row, "output_2": "b" * (i % 7), "preference": 1 + i % 2} for i in range(40)]
    (tmp_path / "annotations.json").write_text(json.dumps(judged))
    code, modules, told = after(tmp_path, "alpacafarm.leaderboard", "annotations.json", "--json")
    assert code == 0
    assert modules & (HEAVY | {"pandas", "sklearn", "scipy"}) == set()
    assert json.loads(told)[0]["length_controlled_win_rate"] is not None
