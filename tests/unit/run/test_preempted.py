"""A stage that stops because the site will end it is no failed stage."""

import json
import signal
import sys

from alpacafarm import preemption, worker
from alpacafarm.errors import StageError


def raising(error):
    def run_stage(folder):
        raise error

    return run_stage


def test_it_leaves_its_exit_code_and_no_error(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "argv", ["worker", str(tmp_path)])
    monkeypatch.setattr(worker, "run_stage", raising(preemption.Preempted("stopped after step 3")))
    assert worker.main() == 75
    assert not (tmp_path / "error.json").exists()
    monkeypatch.setattr(worker, "run_stage", raising(StageError("no luck")))
    assert worker.main() == 1
    assert json.loads((tmp_path / "error.json").read_text())["message"] == "no luck"


def test_the_signal_is_the_warning(monkeypatch):
    monkeypatch.setattr(preemption, "_warned", False)
    before = signal.getsignal(signal.SIGUSR2)
    try:
        preemption.listen(signal.SIGUSR2)
        assert not preemption.is_warned()
        signal.raise_signal(signal.SIGUSR2)
        assert preemption.is_warned()
    finally:
        signal.signal(signal.SIGUSR2, before)
