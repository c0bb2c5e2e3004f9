"""Training stages of the methods on this rank, for `test_stages_across_ranks`."""

from pathlib import Path
from typing import Any
from unittest import mock

from alpacafarm.methods import dpo, kto, online_dpo, ppo, quark, reinforce, reward_condition, rm, sft
from alpacafarm.models import heads
from alpacafarm.ports import Artifact, Dist
from alpacafarm.rollout import reference
from alpacafarm.spec.cluster import ClusterSpec
from alpacafarm.stage import Kind
from tests.unit.methods.conftest import ARCHITECTURE, CLUSTER, at, ensemble_at, optim
from tests.unit.methods.test_dpo import spec as pairwise_spec
from tests.unit.methods.test_kto import spec as kto_spec
from tests.unit.methods.test_online_dpo import JUDGED
from tests.unit.methods.test_online_dpo import spec as fresh_pairs_spec
from tests.unit.methods.test_ppo import inputs, spec
from tests.unit.methods.test_quark import spec as quark_spec
from tests.unit.methods.test_reinforce import spec as critic_free_spec

CHUNK = 7 * ARCHITECTURE.vocab_size  # logits; so few that ranks get different numbers of chunks
BATCH = 7  # of 24 rows: uneven over two ranks and over micro-batches of 4, and a short last step

IN_REWARD = {"kl_placement": "reward", "kl_estimator": "k1"}
CRITIC_FREE: dict[str, dict[str, Any]] = {  # as their own YAML files, where that matters over ranks
    "grpo": {},
    "dr_grpo": {"estimator": "dr_grpo", "loss_normalisation": "constant"},
    "rloo": {"estimator": "rloo", "clip": None, "loss_normalisation": "constant", **IN_REWARD},
    "reinforce": {
        "estimator": "reinforce",
        "samples_per_prompt": 1,
        "reward_std": None,
        "clip": None,
        "loss_normalisation": "constant",
        **IN_REWARD,
    },
    "reinforce_pp": {
        "estimator": "reinforce_pp",
        "samples_per_prompt": 1,
        "loss_normalisation": "token",
        **IN_REWARD,
    },
}


def cluster(stage: int | None) -> ClusterSpec:
    """DeepSpeed at a ZeRO stage, every tensor sharded at stage 3; plain torch for None."""
    if stage is None:
        return CLUSTER
    zero = CLUSTER.zero.model_copy(update={"stage": stage, "persistence_threshold": 0})
    return CLUSTER.model_copy(update={"engine": "deepspeed", "zero": zero})


def train_all(dist: Dist, home: str, stages: list[int | None]) -> None:
    """Leaves a log for each method and ZeRO stage in `<home>/<method>-<stage>`."""
    tiny = at(Path(home))
    pairs = Artifact(Path(home) / "pairs", Kind.PAIRS, "pairs")
    # A larger epsilon than usual: Adam amplifies what rounding leaves of gradients near zero.
    even = optim(1e-3, BATCH).model_copy(update={"eps": 1e-4})
    runs: dict[str, tuple[Any, Any, dict[str, Artifact]]] = {
        "sft": (
            sft.train,
            sft.TrainSpec(epochs=1, optim=even),
            {"init": tiny.policy, "rows": tiny.rows},
        ),
        "rm": (
            rm.train,
            rm.Spec(name="rm", epochs=1, held_out=4, end_with_eos=True, optim=even),
            {"init": tiny.policy, "pairs": pairs},
        ),
        "reward_condition": (
            reward_condition.train,
            reward_condition.Spec(name="reward_condition", epochs=1, optim=even),
            {"init": tiny.policy, "pairs": pairs},
        ),
        "quark": (
            quark.train,
            quark_spec(
                optim=even.model_copy(update={"batch_size": 8, "lr": 1e-2}),
                steps=2,
                train_on="all",
                quantiles=3,
                pool_steps=2,
                kl_coef=30.0,  # large, so that the KL is seen in the loss
            ),
            inputs(tiny),
        ),
        "ppo": (
            ppo.train,
            spec(optim=even.model_copy(update={"batch_size": 8}), steps=2),
            inputs(tiny) | {"reward": ensemble_at(tiny)},
        ),
        "online_dpo": (
            online_dpo.train,
            fresh_pairs_spec(optim=even.model_copy(update={"batch_size": 8}), **JUDGED),
            inputs(tiny),
        ),
    }
    for name, changes in CRITIC_FREE.items():
        critic_free = critic_free_spec(optim=even.model_copy(update={"batch_size": 8}), name=name, **changes)
        runs[name] = (reinforce.train, critic_free, inputs(tiny))
    for stage in stages:
        ctx = tiny.context(f"reference-{stage}", cluster=cluster(stage), dist=dist)
        reference.measure(reference.ReferenceSpec(), {"policy": tiny.policy, "pairs": pairs}, ctx)
        dist.barrier()
        measured = {"reference": Artifact(ctx.out, Kind.LOGPROBS, "reference")}
        runs["dpo"] = (
            dpo.train,
            pairwise_spec(optim=even, correction="robust", flip_probability=0.1),
            {"init": tiny.policy, "pairs": pairs, **measured},
        )
        ctx = tiny.context(f"mismatched-{stage}", cluster=cluster(stage), dist=dist)
        kto.measure_mismatched(
            kto.MismatchedSpec(unpaired=True), {"policy": tiny.policy, "pairs": pairs}, ctx
        )
        dist.barrier()
        measured["mismatched_reference"] = Artifact(ctx.out, Kind.LOGPROBS, "mismatched")
        runs["kto"] = (
            kto.train,
            kto_spec(optim=even, unpaired=True),
            {"init": tiny.policy, "pairs": pairs, **measured},
        )
        for name, (train, settings, given) in runs.items():
            ctx = tiny.context(f"{name}-{stage}", cluster=cluster(stage), dist=dist)
            with mock.patch.object(heads, "CHUNK_ELEMENTS", CHUNK):
                train(settings, given, ctx)
            ctx.track.close()
            dist.barrier()
