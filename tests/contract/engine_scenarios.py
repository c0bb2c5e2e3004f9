"""One course of training for every engine, on any number of ranks. `test_engine.py` compares the records."""

import traceback
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from transformers import LlamaForCausalLM, LlamaForSequenceClassification

from alpacafarm.engine.build import build_engine
from alpacafarm.engine.dist import SingleProcess
from alpacafarm.models import heads
from alpacafarm.models.export import export_policy
from alpacafarm.models.heads import ActorCritic, RewardModel
from alpacafarm.models.lora import apply_lora
from alpacafarm.spec.cluster import ClusterSpec, OffloadSpec, ZeroSpec
from alpacafarm.spec.method import OptimSpec
from alpacafarm.spec.model import LoraSpec
from alpacafarm.text.collate import SequenceBatch, collate
from tests.unit.models import tiny

ROWS = 16
STEPS = 4
Cuts = list[list[list[int]]]  # steps, ranks, micro-batch sizes
PIECES: Cuts = [[[3, 6, 7]]] * STEPS
UNEVEN: Cuts = [[[2, 4], [5, 5]], [[2, 4], [5, 5]], [[6], [1, 4, 5]], [[1, 4, 5], [6]]]


@dataclass(frozen=True)
class Case:
    """An engine and its options."""

    name: str
    stage: int | None = None  # None is the plain engine
    recompute: bool = False
    offload: bool = False
    lora: bool = False
    tied: bool = False
    dtype: str = "float32"

    @property
    def kind(self) -> str:
        return "plain" if self.stage is None else "deepspeed"


@dataclass
class Record:
    """What one rank saw."""

    losses: list[float] = field(default_factory=list)
    norms: list[float] = field(default_factory=list)
    metrics: list[dict[str, float]] = field(default_factory=list)
    graphs: list[bool] = field(default_factory=list)  # whether forwards outside an update recorded gradients
    generated: list[list[int]] = field(default_factory=list)
    logprobs: torch.Tensor | None = None  # after training
    weights: dict[str, torch.Tensor] = field(default_factory=dict)  # rank 0 only
    resumed_loss: float = 0.0
    resumed_weights: dict[str, torch.Tensor] = field(default_factory=dict)
    scores: torch.Tensor | None = None  # of a frozen reward model
    sharded: bool = False
    frozen_tokens: list[list[int]] = field(default_factory=list)
    frozen_logprobs: torch.Tensor | None = None  # after generating
    scales_moved: list[bool] = field(default_factory=list)  # bfloat16: after each of four small steps


# Adam divides by the root of the second moment: where gradients are rounding noise, a small epsilon turns
# noise into steps of full size, and no two orders of summation agree. The norms are near 4, so that clipping
# acts.
OPTIM = OptimSpec(
    lr=3e-3,
    batch_size=ROWS,
    schedule="constant",
    warmup_fraction=0.0,
    betas=[0.9, 0.95],
    eps=1e-3,
    weight_decay=0.1,
    max_grad_norm=2.5,
)


def cluster(case: Case) -> ClusterSpec:
    device = "cpu" if case.offload else "none"
    offload = OffloadSpec(optimizer=device, parameters=device if case.stage == 3 else "none", nvme_path=None)
    return ClusterSpec(
        name="test",
        launcher="launchers.inline:Inline",
        engine=case.kind,
        processes=1,
        micro_batch=4,
        generation_batch=4,
        threads=1,
        gradient_checkpointing=case.recompute,
        checkpoint_every_s=60,
        rendezvous_timeout_s=60,
        # DeepSpeed's default would keep tiny parameters whole, and nothing would be tested.
        zero=ZeroSpec(stage=case.stage or 0, offload=offload, persistence_threshold=0),
    )


def actor_critic(case: Case, seed: int) -> ActorCritic:
    dtype = getattr(torch, case.dtype)
    config = tiny.config(tie_word_embeddings=case.tied, num_labels=1)
    torch.manual_seed(seed)
    module = ActorCritic(
        LlamaForCausalLM(config).to(dtype),
        LlamaForSequenceClassification(config).to(dtype),
        value_lr_scale=3.0,
    )
    if case.lora:
        apply_lora(module, LoraSpec(rank=2, alpha=8, dropout=0.0, targets="all-linear"), seed=seed)
    return module


def build(case: Case, dist: Any, weights: dict[str, torch.Tensor], *, seed: int = 0) -> Any:
    """An engine whose export also fills `weights`."""

    def export(module: Any, state: Any, path: Path) -> None:
        weights.update(state)
        export_policy(module, state, path, tiny.tokenizer())

    module = actor_critic(case, seed)
    return build_engine(
        case.kind, module, OPTIM, cluster=cluster(case), dtype=case.dtype, dist=dist, export=export
    )


def reference(case: Case) -> tuple[list[float], list[float], list[dict[str, float]], dict[str, torch.Tensor]]:
    """Plain torch on one rank with all rows in one batch: losses, norms, metrics, weights."""
    weights: dict[str, torch.Tensor] = {}
    plain = Case("reference", lora=case.lora, tied=case.tied, dtype=case.dtype)
    engine = build(plain, SingleProcess(), weights)
    updates = [engine.update(cut(step, [[16]], 0), loss_of(engine), lr=OPTIM.lr) for step in range(STEPS)]
    for name, parameter in engine.module.named_parameters():
        weights[name] = parameter.detach()
    return (
        [u.loss for u in updates],
        [u.grad_norm for u in updates],
        [dict(u.metrics) for u in updates],
        weights,
    )


def cut(step: int, sizes: list[list[int]], rank: int) -> list[SequenceBatch]:
    """This rank's micro-batches of the step's 16 rows."""
    start = sum(sum(other) for other in sizes[:rank])
    batches = []
    for size in sizes[rank]:
        batches.append(collate(tiny.rows(ROWS, step)[start : start + size], tiny.PAD))
        start += size
    return batches


def loss_of(engine: Any) -> Any:
    """Cross-entropy, an entropy bonus and a value loss: every output is used."""

    def loss(batch: SequenceBatch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        stats = engine(batch, temperature=0.7, with_entropy=True)
        error_BT = (stats.value_BT - 1.0) * batch.mask_BT
        total = -stats.logprob_BT.sum() - 0.1 * stats.entropy_BT.sum() + 0.3 * error_BT.square().sum()
        return total, {"entropy": stats.entropy_BT.sum(), "tokens": batch.mask_BT.sum()}

    return loss


def course(dist: Any, case: Case, cuts: Cuts, folder: Path) -> Record:
    """Train, generate, train, checkpoint, train on; then the last step again from the checkpoint."""
    record = Record()
    engine = build(case, dist, record.weights)
    for step in range(STEPS):
        if step == 1:
            record.graphs.append(engine(probe(dist)).logprob_BT.requires_grad)
        if step == 2:
            record.generated = generate(engine, dist)
        if step == STEPS - 1:
            engine.checkpoint(folder / case.name)
        update = engine.update(cut(step, cuts[step], dist.rank), loss_of(engine), lr=OPTIM.lr)
        record.losses.append(update.loss)
        record.norms.append(update.grad_norm)
        record.metrics.append(dict(update.metrics))
    record.logprobs = engine(probe(dist)).logprob_BT
    engine.export(folder / f"{case.name}_export")
    resume(dist, case, cuts[-1], folder, record)
    freeze(dist, case, record)
    if case.dtype == "bfloat16":
        record.scales_moved = small_steps(dist, case, cuts[0], folder)
    return record


def probe(dist: Any) -> SequenceBatch:
    """Other rows, and another number of them, on every rank."""
    return collate(tiny.rows(3 + dist.rank, seed=99), tiny.PAD)


def generate(engine: Any, dist: Any) -> list[list[int]]:
    """Greedy; rank 1 goes on for longer than rank 0."""
    prompt = torch.tensor([[3, 11, 4, 19, 5]])
    with engine.gathered() as policy:
        tokens = policy.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            max_new_tokens=4 + 4 * dist.rank,
            do_sample=False,
            eos_token_id=None,
            pad_token_id=tiny.PAD,
        )
    return tokens.tolist()


def resume(dist: Any, case: Case, sizes: list[list[int]], folder: Path, record: Record) -> None:
    """Into an engine with other weights (with LoRA the same: frozen weights are not in a checkpoint)."""
    engine = build(case, dist, record.resumed_weights, seed=0 if case.lora else 1)
    assert engine.restore(folder / case.name) == engine.layout
    record.resumed_loss = engine.update(cut(STEPS - 1, sizes, dist.rank), loss_of(engine), lr=OPTIM.lr).loss
    engine.export(folder / f"{case.name}_resumed")


def reward_model(case: Case) -> RewardModel:
    torch.manual_seed(5)
    model = LlamaForSequenceClassification(tiny.config(num_labels=1)).eval()
    return RewardModel(model.to(getattr(torch, case.dtype)))


def freeze(dist: Any, case: Case, record: Record) -> None:
    """A reward model and a policy, both before any training."""
    options: dict[str, Any] = {"cluster": cluster(case), "dtype": case.dtype, "dist": dist}
    reward = build_engine(case.kind, reward_model(case), None, **options)
    record.scores = reward(probe(dist))
    parameters = list(reward.module.parameters())
    record.graphs.append(record.scores.requires_grad or any(p.requires_grad for p in parameters))
    record.sharded = all(p.numel() == 0 for p in parameters)
    policy = build_engine(case.kind, actor_critic(case, seed=0), None, **options)
    record.frozen_tokens = generate(policy, dist)
    record.frozen_logprobs = policy(probe(dist)).logprob_BT


def small_steps(dist: Any, case: Case, sizes: list[list[int]], folder: Path) -> list[bool]:
    """Steps so small that 1 minus one of them rounds to 1 in bfloat16: only float32 masters remember."""
    weights: dict[str, torch.Tensor] = {}
    engine = build(case, dist, weights)
    moved = []
    for _ in range(4):
        engine.update(cut(0, sizes, dist.rank), loss_of(engine), lr=6e-4)
        engine.export(folder / "small_steps")
        scales = [w for name, w in weights.items() if "layernorm" in name and name.startswith("policy.")]
        moved.append(any(bool((scale != 1).any()) for scale in scales))
    return moved


def all_courses(dist: Any, cases: list[Case], cuts: Cuts, folder: Path) -> dict[str, Record | str]:
    """Many engines in one process group: starting one costs seconds. A failed course is its traceback."""
    records: dict[str, Record | str] = {}
    chunk = 4 * tiny.VOCABULARY  # so small that ranks get different numbers of chunks
    for case in cases:
        try:
            with mock.patch.object(heads, "CHUNK_ELEMENTS", chunk):
                records[case.name] = course(dist, case, cuts, folder)
        except Exception:
            records[case.name] = traceback.format_exc()
    return records


def checkpoints(dist: Any, cases: list[Case], cuts: Cuts, folder: Path) -> None:
    """Leaves what `course` leaves before its last step."""
    for case in cases:
        engine = build(case, dist, {})
        for step in range(STEPS - 1):
            engine.update(cut(step, cuts[step], dist.rank), loss_of(engine), lr=OPTIM.lr)
        engine.checkpoint(folder / case.name)


Pairs = list[tuple[Case, Case]]  # who wrote a checkpoint, and who goes on from it


def take_over(dist: Any, pairs: Pairs, sizes: list[list[int]], folder: Path) -> list[tuple[str, float, Any]]:
    """Of each pair: on what the writer was, and loss and weights of the last step of `course`."""
    found = []
    for writer, reader in pairs:
        weights: dict[str, torch.Tensor] = {}
        engine = build(reader, dist, weights, seed=0 if reader.lora else 1)
        layout = engine.restore(folder / writer.name)
        update = engine.update(cut(STEPS - 1, sizes, dist.rank), loss_of(engine), lr=OPTIM.lr)
        engine.export(folder / f"taken_over_{dist.world}")
        found.append((str(layout), update.loss, weights))
    return found
