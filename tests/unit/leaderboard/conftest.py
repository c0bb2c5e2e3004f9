"""Judged pairs as files, with verdicts that are easy to count."""

import gzip
import json
from pathlib import Path

import pytest


def rows(model="m", preferences=(2, 2, 1, 1.5, None), *, baseline="b", judge="j", answer="ans", **more):
    """Row i: the baseline says `base i`, the model says `ans` i times i."""
    return [
        {
            "instruction": f"question {i}",
            "output_1": f"base {i}",
            "generator_1": baseline,
            "output_2": answer * i + str(i),
            "generator_2": model,
            "annotator": judge,
            "preference": preference,
            **more,
        }
        for i, preference in enumerate(preferences)
    ]


def saved(path: Path, content) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = content if isinstance(content, str) else json.dumps(content)
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode()))
    elif path.suffix == ".jsonl" and not isinstance(content, str):
        path.write_text("".join(json.dumps(row) + "\n" for row in content))
    else:
        path.write_text(text)
    return path


@pytest.fixture
def board(capsys):
    """What the command prints as JSON."""
    from alpacafarm.leaderboard.__main__ import main

    def told(*arguments):
        code = main([str(argument) for argument in arguments] + ["--json"])
        captured = capsys.readouterr()
        assert code == 0, captured.err
        return json.loads(captured.out)

    return told


@pytest.fixture
def refused(capsys):
    """What the command says on refusing."""
    from alpacafarm.leaderboard.__main__ import main

    def told(*arguments):
        assert main([str(argument) for argument in arguments]) == 2
        return capsys.readouterr().err

    return told
