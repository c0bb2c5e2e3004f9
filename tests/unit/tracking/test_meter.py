import json
import subprocess
import sys
from types import SimpleNamespace

import pytest

from alpacafarm.tracking import meter as module
from alpacafarm.tracking.meter import Meter, peak_memory_bytes


@pytest.fixture
def clock(monkeypatch):
    """Time that passes when told to."""
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr(module.time, "perf_counter", lambda: clock.now)
    return clock


def spend(meter, clock, phase, seconds):
    with meter.phase(phase):
        clock.now += seconds


def test_rates_are_real_tokens_and_samples_over_the_seconds_of_all_phases(clock):
    meter = Meter()
    spend(meter, clock, "rollout", 3.0)
    clock.now += 1000.0  # outside every phase
    spend(meter, clock, "update", 1.0)
    spend(meter, clock, "rollout", 1.0)
    meter.count(tokens=300, samples=10, computed=400)
    meter.count(tokens=200)
    told = meter.summary()
    assert told["seconds"] == {"rollout": 4.0, "update": 1.0}
    assert told["tokens_per_second"] == 100.0
    assert told["samples_per_second"] == 2.0
    assert told["computed_per_real_token"] == 0.8


def test_set_up_compilation_and_evaluation_are_not_throughput(clock):
    meter = Meter()
    for phase in ("setup", "compile", "evaluate"):
        spend(meter, clock, phase, 50.0)
    spend(meter, clock, "update", 2.0)
    meter.count(tokens=10)
    assert meter.summary()["tokens_per_second"] == 5.0
    assert meter.summary()["seconds"] == {"update": 2.0}


def test_an_inner_phase_stops_the_outer_clock(clock):
    meter = Meter()
    with meter.phase("update"):
        clock.now += 1.0
        spend(meter, clock, "evaluate", 5.0)
        clock.now += 2.0
        spend(meter, clock, "checkpoint", 7.0)
    assert meter.state()["seconds"] == {"update": 3.0, "evaluate": 5.0, "checkpoint": 7.0}


def test_time_counts_when_a_phase_ends_by_an_exception(clock):
    meter = Meter()

    def fail_after(seconds):
        clock.now += seconds
        raise RuntimeError

    with pytest.raises(RuntimeError), meter.phase("update"):
        fail_after(1.0)
    clock.now += 10.0
    assert meter.state()["seconds"] == {"update": 1.0}


def test_a_resumed_stage_reports_the_whole_without_the_lost_work(clock):
    first = Meter()
    with first.phase("update"):
        clock.now += 2.0
        first.count(tokens=100, samples=1, computed=100)
        saved = json.loads(json.dumps(first.state()))  # inside a phase, as checkpoints are written
        clock.now += 50.0
        first.count(tokens=1000)
    second = Meter()
    spend(second, clock, "update", 9.0)
    with second.phase("update"):
        clock.now += 9.0
        second.restore(saved)
        clock.now += 3.0
        second.count(tokens=150, samples=1, computed=150)
    told = second.summary()
    assert told["seconds"] == {"update": 5.0}
    assert told["tokens_per_second"] == 50.0


def test_counts_are_summed_over_ranks_and_memory_is_the_largest(clock):
    meter = Meter()
    spend(meter, clock, "update", 2.0)
    meter.count(tokens=10, samples=1, computed=20)
    other = {
        "seconds": {"update": 2.5},
        "peak_memory_bytes": 2**60,
        "tokens": 30,
        "samples": 2,
        "computed": 30,
    }
    told = meter.summary(SimpleNamespace(gather=lambda value: [value, other]))
    assert told["tokens_per_second"] == 20.0
    assert told["samples_per_second"] == 1.5
    assert told["computed_per_real_token"] == 50 / 40
    assert told["peak_memory_bytes"] == 2**60


def test_nothing_done_is_no_rate(clock):
    told = Meter().summary()
    assert told["tokens_per_second"] is None
    assert told["computed_per_real_token"] is None
    assert told["seconds"] == {}


def test_peak_memory_grows_with_what_is_touched():
    code = (
        "from alpacafarm.tracking.meter import peak_memory_bytes as peak\n"
        "before = peak(); block = bytearray(b'x') * before * 2; print(before, peak())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )  # ours is large
    before, after = map(int, done.stdout.split())
    assert after > 2 * before > 2**20


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the system keeps one peak for all")
def test_the_peak_of_others_is_not_ours():
    """Neither that of the process that started this one, nor that of an earlier stage of this one."""
    code = (
        "from alpacafarm.tracking.meter import Meter, peak_memory_bytes as peak\n"
        "first = peak(); block = bytearray(b'x') * 2**28; after = peak(); del block\n"
        "Meter(); print(first, after, peak())"
    )
    ballast = bytearray(b"x") * 2**28
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    first, after, second = map(int, done.stdout.split())
    assert first < len(ballast) < after
    assert second < len(ballast)


def test_on_a_gpu_memory_is_what_torch_allocated(monkeypatch):
    cuda = SimpleNamespace(is_available=lambda: True, max_memory_allocated=lambda: 42)
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=cuda))
    assert peak_memory_bytes() == 42
