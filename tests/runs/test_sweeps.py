"""A sweep leaves one table over its runs, whatever became of them."""

import json
import subprocess

from tests.runs import farm

ROW = {"instruction": "Say hi.", "input": "", "output": "Hi."}


def test_a_sweep_with_a_failing_job_has_a_table_of_all(tmp_path):
    (tmp_path / "good.jsonl").write_text(f"{json.dumps(ROW)}\n" * 20)
    (tmp_path / "bad.jsonl").write_text(json.dumps({"instruction": "a"}) + "\n")
    asked = farm.tiny("sft", "model=scratch", "data=files", world=False)
    asked += ["data.sft=bad.jsonl,good.jsonl", "data.pretrain=good.jsonl", "data.eval=good.jsonl"]
    asked += ["eval=none", "hydra.sweep.dir=sweep"]
    done = subprocess.run(farm.command("-m", *asked), cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2, done.stderr[-3000:]
    told = json.loads((tmp_path / "sweep" / "sweep.json").read_text())
    assert [run["state"] for run in told["runs"]] == ["failed", "done"]
    assert "bad.jsonl:1: output=None must be text" in told["runs"][0]["failure"]
    settings = [run["settings"]["data.sft"].rpartition("/")[2] for run in told["runs"]]
    assert settings == ["bad.jsonl", "good.jsonl"]
    assert "bad.jsonl:1" in (tmp_path / "sweep" / "sweep.html").read_text()
