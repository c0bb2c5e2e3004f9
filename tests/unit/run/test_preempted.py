"""A stage that stops because the site will end it is no failed stage."""

import json
import signal
import sys

import pytest
import torch  # noqa: F401  # as where a stage has trained

from alpacafarm import preemption, worker
from alpacafarm.errors import StageError


def raising(error):
    def run_stage(folder):
        raise error

    return run_stage


@pytest.fixture(autouse=True)
def _stage(monkeypatch, tmp_path):
    (tmp_path / "stage.json").write_text('{"uses_devices": true}')
    monkeypatch.setattr(sys, "argv", ["worker", str(tmp_path)])


def test_it_leaves_its_exit_code_and_no_error(monkeypatch, tmp_path):
    monkeypatch.setattr(worker, "run_stage", raising(preemption.Preempted("stopped after step 3")))
    assert worker.main() == 75
    assert not (tmp_path / "error.json").exists()
    monkeypatch.setattr(worker, "run_stage", raising(StageError("no luck")))
    assert worker.main() == 1
    assert json.loads((tmp_path / "error.json").read_text())["message"] == "no luck"


def test_a_rank_whose_peer_is_gone_leaves_no_error_either(monkeypatch, tmp_path, capsys):
    lost = "[/third_party/gloo/gloo/transport/tcp/pair.cc:553] Connection closed by peer [127.0.0.1]:26813"
    monkeypatch.setattr(worker, "run_stage", raising(RuntimeError(lost)))
    assert worker.main() == 74
    assert "Connection closed by peer" in capsys.readouterr().err
    assert not (tmp_path / "error.json").exists()
    monkeypatch.setattr(worker, "run_stage", raising(RuntimeError("no luck")))
    with pytest.raises(RuntimeError, match="no luck"):
        worker.main()


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
