"""A policy, a reward model and rows of the embedded world, as stage inputs, on the tiniest Llama."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from alpacafarm.artifacts import ensemble
from alpacafarm.artifacts.link import link_tree
from alpacafarm.data.plan import WorldRows
from alpacafarm.data.world import examples
from alpacafarm.engine.dist import SingleProcess
from alpacafarm.models import load
from alpacafarm.pipeline.context import StageContext
from alpacafarm.ports import Artifact, Dist
from alpacafarm.spec.cluster import ClusterSpec, OffloadSpec, ZeroSpec
from alpacafarm.spec.method import OptimSpec
from alpacafarm.spec.model import ArchitectureSpec, ModelSpec
from alpacafarm.stage import Kind
from alpacafarm.text.train_tokenizer import train_tokenizer
from alpacafarm.tracking.tracker import JsonLines

ARCHITECTURE = ArchitectureSpec(
    vocab_size=320, hidden_size=16, layers=2, heads=2, ff_size=32, max_positions=128, tie_embeddings=True
)
MODEL = ModelSpec(
    name="tiny",
    path=None,
    revision=None,
    architecture=ARCHITECTURE,
    dtype="float32",
    prompt="short",
    max_prompt_tokens=96,
    max_response_tokens=16,
    lora=None,
)
CLUSTER = ClusterSpec(
    name="test",
    launcher="launchers.inline:Inline",
    engine="plain",
    processes=1,
    micro_batch=4,
    generation_batch=8,
    threads=None,
    gradient_checkpointing=False,
    checkpoint_every_s=1e9,
    rendezvous_timeout_s=60,
    zero=ZeroSpec(
        stage="auto",
        offload=OffloadSpec(optimizer="none", parameters="none", nvme_path=None),
        persistence_threshold=0,
    ),
)


def optim(lr: float, batch_size: int) -> OptimSpec:
    return OptimSpec(
        lr=lr,
        batch_size=batch_size,
        schedule="constant",
        warmup_fraction=0.0,
        betas=[0.9, 0.999],
        eps=1e-5,
        weight_decay=0.0,
        max_grad_norm=1.0,
    )


@dataclass(frozen=True)
class Tiny:
    """Where the artifacts lie; `context` makes a fresh stage beside them."""

    home: Path
    policy: Artifact
    reward: Artifact
    rows: Artifact

    def context(
        self,
        name: str,
        *,
        model: ModelSpec = MODEL,
        cluster: ClusterSpec = CLUSTER,
        dist: Dist | None = None,
    ) -> StageContext:
        dist = dist or SingleProcess()
        folder = self.home / name
        for part in ("out", "scratch"):
            (folder / part).mkdir(parents=True, exist_ok=True)
        return StageContext(
            name=name,
            seed=7,
            out=folder / "out",
            scratch=folder / "scratch",
            labels=self.home / "labels",
            model=model,
            cluster=cluster,
            dist=dist,
            track=JsonLines(folder / "out" / "log.jsonl", dist.rank),
        )


@pytest.fixture
def tiny(tmp_path: Path) -> Tiny:
    return make(tmp_path)


def make(tmp_path: Path) -> Tiny:
    """Writes a policy, a reward model and rows under `tmp_path`."""
    from alpacafarm.data.rows import write_rows

    rows = examples(WorldRows(split="sft", rows=24, seed=0))
    write_rows(tmp_path / "rows" / "rows.jsonl", rows)
    tokenizer = train_tokenizer((f"{r.instruction} {r.output}" for r in rows), ARCHITECTURE.vocab_size)
    policy = load.build_policy(ARCHITECTURE, tokenizer, seed=1)
    for name in ("policy", "reward"):
        tokenizer.save_pretrained(str(tmp_path / name))
    policy.save_pretrained(str(tmp_path / "policy"))
    load.reward_from_policy(tmp_path / "policy", seed=2).save_pretrained(str(tmp_path / "reward"))
    return at(tmp_path)


def make_ensemble(tiny: Tiny) -> Artifact:
    """Writes an ensemble of two reward models beside them, the first with the given one's head."""
    home = tiny.home / "ensemble"
    for number in (0, 1):
        member = ensemble.member(home, number)
        load.load_tokenizer(tiny.policy.path).save_pretrained(str(member))
        load.reward_from_policy(tiny.policy.path, seed=2 + number).save_pretrained(str(member))
    link_tree(ensemble.member(home, 0), home / "model")
    ensemble.Ensemble(combine="mean_minus_std", std_coef=1.0, shifts=[0.1, -0.1]).write(home)
    return ensemble_at(tiny)


def ensemble_at(tiny: Tiny) -> Artifact:
    """What `make_ensemble` wrote."""
    return Artifact(tiny.home / "ensemble", Kind.REWARD, "e", tiny.reward.facts)


def at(tmp_path: Path) -> Tiny:
    """What `make` wrote, for another process."""
    facts = {"reward_mean": 0.0, "reward_std": 1.0, "end_with_eos": True}
    return Tiny(
        home=tmp_path,
        policy=Artifact(tmp_path / "policy", Kind.POLICY, "p"),
        reward=Artifact(tmp_path / "reward", Kind.REWARD, "r", facts),
        rows=Artifact(tmp_path / "rows", Kind.ROWS, "d"),
    )
