"""A plan, a status and a wrong key are answered without the libraries that take seconds to import."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

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
}
PROBE = """
import json, runpy, sys
sys.argv = ["alpacafarm.run", *sys.argv[1:]]
try:
    runpy.run_module("alpacafarm.run", run_name="__main__")
except SystemExit as error:
    code = error.code
print(json.dumps({"code": code, "modules": sorted({name.split(".")[0] for name in sys.modules})}))
"""


def modules_after(tmp_path: Path, *overrides: str) -> tuple[int, set[str]]:
    """The exit code, and the top-level modules that are loaded in the end."""
    command = [sys.executable, "-c", PROBE, *overrides, "store=store", "hydra.run.dir=run"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    told = json.loads(done.stdout.splitlines()[-1])
    return told["code"], set(told["modules"])


@pytest.mark.parametrize(
    ("overrides", "code"),
    [
        (["method=ppo", "action=plan"], 0),
        (["method=best_of_n", "action=plan", "feedback=human"], 0),
        (["action=status"], 0),
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
