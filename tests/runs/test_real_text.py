"""The pipeline on real instructions, answers and GPT-4 preferences, where a checkout has them beside it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

DATA = Path(__file__).parents[3] / "shared" / "data"
needs_data = pytest.mark.skipif(
    not (DATA / "make_rows.py").is_file(),
    reason="AlpacaEval's outputs and annotations are not beside the checkout",
)
SHAPE = "{vocab_size: 512, hidden_size: 32, layers: 2, heads: 2, ff_size: 64, max_positions: 256}"
SMALL = [
    f"model.architecture={SHAPE}",
    "model.max_prompt_tokens=96",
    "model.max_response_tokens=32",
    "upstream.base.epochs=1",
    "upstream.rm.epochs=1",
    "upstream.rm.held_out=40",
    "method.steps=2",
    "method.rollouts_per_step=16",
    "method.optim.batch_size=8",
]


def thinned(path: Path, keep: int) -> Path:
    """Every k-th line, so that all models' answers are among them."""
    lines = path.read_text(encoding="utf-8").splitlines()
    path.write_text("\n".join(lines[:: max(1, len(lines) // keep)]) + "\n", encoding="utf-8")
    return path


@needs_data
def test_own_data_recipe_runs_on_real_text_with_recorded_preferences(tmp_path: Path):
    rows = tmp_path / "rows"
    subprocess.run([sys.executable, str(DATA / "make_rows.py"), str(rows)], check=True, capture_output=True)
    sft, pairs = thinned(rows / "sft.jsonl", 400), thinned(rows / "preferences.jsonl", 300)
    command = [sys.executable, "-m", "alpacafarm.run", "recipe=own_data", *SMALL]
    command += [f"data.sft={sft}", f"data.unlabeled={sft}", f"data.preferences={pairs}"]
    command += [
        f"data.eval={rows / 'eval.json'}",
        f"store={tmp_path / 'store'}",
        f"hydra.run.dir={tmp_path / 'run'}",
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["eval"]["n_total"] == 160
    assert result["eval"]["judge"].startswith("reward")
    assert result["gold"] is None
    assert result["feedback"] == "human"
    assert result["judge_calls"] == 0
    from transformers import AutoModelForCausalLM, AutoTokenizer

    assert AutoModelForCausalLM.from_pretrained(result["policy"]).config.hidden_size == 32
    assert AutoTokenizer.from_pretrained(result["policy"]).pad_token is not None
