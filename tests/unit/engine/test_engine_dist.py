import random

import pytest
import torch

from alpacafarm.engine.dist import (
    SingleProcess,
    branch_rng,
    connect,
    is_peer_lost,
    restore_rng,
    rng_state,
    seed_everything,
)
from alpacafarm.errors import StageError
from launchers.ports import free_port
from tests.contract.ranks import run_ranks


def collectives(dist):
    return {
        "total": dist.total([dist.rank + 0.1, 2.0**53 if dist.rank else 1.0]),
        "gather": dist.gather({"rank": dist.rank}),
        "broadcast": dist.broadcast(f"from {dist.rank}"),
    }


def test_two_ranks_see_the_same_sums_lists_and_words():
    first, second = run_ranks(2, "tests.unit.engine.test_engine_dist:collectives")
    assert first == second
    assert first["total"] == [0.1 + 1.1, 2.0**53 + 1.0]  # float64: float32 would lose the second digit
    assert first["gather"] == [{"rank": 0}, {"rank": 1}]
    assert first["broadcast"] == "from 0"


def deserted(dist):
    """What rank 0 makes of a barrier at which the other does not arrive, since it is gone."""
    try:
        if dist.rank == 0:
            dist.barrier()
    except RuntimeError as error:
        return is_peer_lost(error)
    finally:
        torch.distributed.destroy_process_group()


def test_a_lost_peer_is_told_from_other_errors():
    assert run_ranks(2, "tests.unit.engine.test_engine_dist:deserted") == [True, None]
    assert not is_peer_lost(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))


def test_one_process_is_the_identity():
    assert collectives(SingleProcess()) == {
        "total": [0.1, 1.0],
        "gather": [{"rank": 0}],
        "broadcast": "from 0",
    }


def test_without_a_launcher_nothing_is_joined(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert isinstance(connect(1), SingleProcess)


def test_a_missing_rank_is_named_as_such(monkeypatch):
    settings = {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1"}
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MASTER_PORT", str(free_port()))
    with pytest.raises(StageError, match=r"rank 0 of 2 .* cluster\.rendezvous_timeout_s=1"):
        connect(1)


def test_random_states_come_back():
    seed_everything(3)
    state = rng_state()
    drawn = (random.random(), torch.rand(2).tolist())
    restore_rng(state)
    assert (random.random(), torch.rand(2).tolist()) == drawn
    seed_everything(3)
    assert (random.random(), torch.rand(2).tolist()) == drawn


def test_ranks_branch_off_one_saved_state_each_with_draws_of_its_own():
    seed_everything(3)
    saved = rng_state()

    def draws(rank):
        branch_rng(saved, rank)
        return float(torch.rand(())), random.random()

    seed_everything(4)
    assert draws(0) == draws(0)
    assert len({draws(rank) for rank in range(4)}) == 4
    restore_rng(saved)
    assert draws(0) != (float(torch.rand(())), random.random())
