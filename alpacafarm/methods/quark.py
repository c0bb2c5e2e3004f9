"""Quark: learn from the policy's own samples, sorted by reward into quantiles (Lu et al. 2022,
arXiv:2205.13636; simplified in Dubois et al. 2023, section 4, and in rl/quark_trainer.py, rlhf_quark.sh).

With `train_on=best` the policy imitates the best quantile, as AlpacaFarm does. With `train_on=all`, as in Lu
et al., every sample is learned after the control token of its quantile, and from the second step on samples
are drawn after that of the best one, as they are from the finished policy.

`fidelity=published` has what the release does: the end token is no training target, so that stopping is never
learned from rewards; quantiles are each device's own; and the loss is a mean over every position up to
`sampling.max_new_tokens`, padding included. Not reproduced: there responses are decoded, encoded again and
padded on the left, between query and response, so that their first token is predicted from padding; control
tokens stand in the softmax of the likelihood; and the first step has a learning rate of zero.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator

from alpacafarm.errors import SpecError
from alpacafarm.ports import Context, Engine, Inputs, LossFn, Upstream
from alpacafarm.selection.pick import trained
from alpacafarm.spec.base import Problem, refuse
from alpacafarm.spec.method import OnPolicySpec
from alpacafarm.stage import Stage
from alpacafarm.stats.seeds import stable_seed
from alpacafarm.text.control import reward_token

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from alpacafarm.rollout.onpolicy import Responses
    from alpacafarm.text.collate import Tokens
    from alpacafarm.training.online import Collected
    from alpacafarm.training.pool import QuantileBatch, Sample


class Spec(OnPolicySpec):
    """Each step sorts the samples of the last `pool_steps` steps into `quantiles` and trains on the best one,
    or on `all`.

    `kl_coef` weighs the exact KL to the SFT model, summed over the vocabulary at each response token. The
    pool is kept in memory and in checkpoints: `pool_steps` times `rollouts_per_step` responses.
    """

    fidelity: Literal["corrected", "published"]
    kl_coef: float = Field(ge=0)
    entropy_coef: float = Field(ge=0)
    quantiles: int = Field(ge=1)
    train_on: Literal["best", "all"]
    pool_steps: int = Field(ge=1)

    @property
    def control_tokens(self) -> tuple[str, ...]:
        return () if self.train_on == "best" else tuple(map(reward_token, range(self.quantiles)))

    @property
    def updates(self) -> int:
        per_step = (self._rows_trained_on(min(step + 1, self.pool_steps)) for step in range(self.steps))
        return self.epochs_per_rollout * sum(-(-rows // self.optim.batch_size) for rows in per_step)

    def _rows_trained_on(self, pooled_steps: int) -> int:
        pooled = pooled_steps * self.rollouts_per_step
        return pooled if self.train_on == "all" else pooled // self.quantiles

    @model_validator(mode="after")
    def quantiles_can_be_told_apart(self) -> Spec:
        if self.rollouts_per_step < self.quantiles:
            text = (
                f"must be at most .rollouts_per_step={self.rollouts_per_step}, a response for each; "
                f"set .quantiles={self.rollouts_per_step} or less, or raise the other"
            )
            refuse(Problem("quantiles", self.quantiles, text))
        if self.train_on == "all" and self.quantiles == 1:
            text = (
                "must be at least 2 for .train_on=all: one control token would tell nothing; "
                "set .quantiles=2 or more, or .train_on=best"
            )
            refuse(Problem("quantiles", self.quantiles, text))
        return self


def plan(spec: Spec, up: Upstream) -> Stage:
    return trained(
        "alpacafarm.methods.quark:train",
        spec,
        up,
        inputs={"init": up.sft(), "reward": up.reward(), "rows": up.rows("unlabeled")},
        needs=spec.work,
    )


def train(spec: Spec, inputs: Inputs, ctx: Context) -> None:
    from alpacafarm.training.online import improve

    check_shares(spec, ctx.dist.world)
    policy = ctx.trainable(inputs["init"], spec.optim, head="anchored", control_tokens=spec.control_tokens)
    collector = Collector(spec, inputs, ctx, policy)
    improve(policy, collector.collect, quark_loss(policy, spec), spec=spec, ctx=ctx)
    if spec.train_on == "all":
        ctx.record(prompt_prefix=reward_token(0))
    ctx.record(kl_estimator="exact", fidelity=spec.fidelity, processes=ctx.dist.world)
    policy.export(ctx.out / "model")


def check_shares(spec: Spec, world: int) -> None:
    """SpecError where a device's own samples cannot fill the quantiles."""
    share = spec.rollouts_per_step // world
    if spec.fidelity == "published" and share < spec.quantiles:
        raise SpecError(
            f"method.quantiles={spec.quantiles}: method.fidelity=published sorts each process's own samples, "
            f"of which there are {share} in a step; set method.quantiles={share} or less, raise "
            "method.rollouts_per_step, or set method.fidelity=corrected"
        )


class Collector:
    """Samples and scores one step's rollouts and chooses from the pool. Every rank holds the whole pool."""

    def __init__(self, spec: Spec, inputs: Inputs, ctx: Context, policy: Engine) -> None:
        from alpacafarm.rollout.onpolicy import fitting_prompts

        self.spec, self.ctx, self.policy = spec, ctx, policy
        tokenizer = ctx.tokenizer(inputs["init"], spec.control_tokens)
        self.pad_id = tokenizer.pad_token_id
        ids: list[int] = tokenizer.convert_tokens_to_ids(list(spec.control_tokens))
        no_prefixes: list[tuple[int, ...]] = [()] * spec.quantiles
        self.prefixes = [(i,) for i in ids] or no_prefixes  # by quantile
        self.scorer = ctx.scorer(inputs["reward"], vocabulary=ctx.vocabulary(inputs["init"]))
        room = len(self.prefixes[0])
        self.prompts = fitting_prompts(inputs["rows"], inputs["init"], ctx, room=room)

    def collect(self, step: int, state: dict[str, Any]) -> Collected[QuantileBatch]:
        """One step's updates. `state` holds the pool."""
        from alpacafarm.rollout.onpolicy import draw
        from alpacafarm.training.batches import step_rows
        from alpacafarm.training.online import Collected
        from alpacafarm.training.pool import kept, pool_quantiles, restored

        spec, ctx = self.spec, self.ctx
        prefix = self.prefixes[0] if step else ()  # in the first step no token means anything yet
        count = spec.rollouts_per_step
        drawn = draw(self.policy, self.prompts, spec.sampling, ctx, step=step, rollouts=count, prefix=prefix)
        with ctx.meter.phase("score"):
            scores = self.scorer.score(drawn.rows)
        fresh = self._of_all_ranks(step, drawn, scores)
        pool = [*restored(state.get("pool", ())), *fresh]
        state["pool"] = kept(pool, since=step + 2 - spec.pool_steps)
        found = pool_quantiles(pool, spec.quantiles, fidelity=spec.fidelity, world=ctx.dist.world)
        best = [sample for sample, quantile in zip(pool, found, strict=True) if quantile == 0]
        chosen = [(s, q) for s, q in zip(pool, found, strict=True) if spec.train_on == "all" or q == 0]
        updates = step_rows(
            len(chosen),
            batch_size=spec.optim.batch_size,
            epochs=spec.epochs_per_rollout,
            seed=stable_seed(ctx.seed, "updates", step),
        )
        metrics = {
            "reward/mean": mean([s.score for s in fresh]),
            "reward/best": mean([s.score for s in best]),
            "response_tokens/mean": mean([len(s.response) for s in fresh]),
            "eos_rate": mean([s.ended for s in fresh]),
            "kl": self._kl(drawn.rows, prefix),
            "pool/rows": float(len(pool)),
        }
        return Collected([self._update([chosen[i] for i in rows]) for rows in updates], metrics)

    def _of_all_ranks(self, step: int, drawn: Responses, scores: Sequence[float]) -> list[Sample]:
        """The step's samples in the order of their numbers, which the ranks take in turn."""
        from alpacafarm.training.pool import Sample

        own = [
            Sample(step, place, row.response, ended, score)
            for place, row, ended, score in zip(drawn.places, drawn.rows, drawn.ended, scores, strict=True)
        ]
        shares = self.ctx.dist.gather(own)
        return [sample for together in zip(*shares, strict=True) for sample in together]

    def _kl(self, rows: Sequence[Tokens], prefix: tuple[int, ...]) -> float:
        """To the reference, in nats per response, over all ranks: exact at each token, where it was drawn."""
        import torch

        from alpacafarm.rollout.order import by_length
        from alpacafarm.text.collate import collate

        ctx, temperature, total = self.ctx, self.spec.sampling.temperature, 0.0
        asked = [self._asked(row, prefix) for row in rows]
        with ctx.meter.phase("log-probabilities"), torch.no_grad():
            for places in by_length([row.length for row in rows], ctx.micro_batch):
                batch, plain = (collate([side[i] for i in places], self.pad_id) for side in (asked, rows))
                total += float(self.policy(batch, plain, temperature=temperature).kl_BT.double().sum())
        nats, count = ctx.dist.total([total, len(rows)])
        return nats / count

    def _asked(self, row: Tokens, prefix: tuple[int, ...]) -> Tokens:
        from alpacafarm.text.collate import Tokens
        from alpacafarm.text.tokenise import prefixed

        return Tokens(prefixed(row.prompt, prefix, self.prompts.bos_id), row.response)

    def _update(self, chosen: Sequence[tuple[Sample, int]]) -> list[QuantileBatch]:
        """This rank's micro-batches of an optimiser step over samples and their quantiles."""
        from alpacafarm.text.collate import Tokens, collate
        from alpacafarm.training.batches import Steps
        from alpacafarm.training.pool import QuantileBatch

        spec, pad_id = self.spec, self.pad_id
        plain = [Tokens(self.prompts.ids[s.place], target(s, spec.fidelity)) for s, _ in chosen]
        asked = [self._asked(row, self.prefixes[q]) for row, (_, q) in zip(plain, chosen, strict=True)]
        width = spec.sampling.max_new_tokens
        weights = [width if spec.fidelity == "published" else len(row.response) for row in plain]

        def batch(places: Sequence[int]) -> QuantileBatch:
            return QuantileBatch(
                weight=float(sum(weights[i] for i in places)),
                sequences=collate([asked[i] for i in places], pad_id),
                plain=collate([plain[i] for i in places], pad_id),
            )

        steps = Steps(
            rows_of=[range(len(chosen))],
            lengths=[row.length for row in asked],
            collate=batch,
            micro_batch=self.ctx.micro_batch,
            rank=self.ctx.dist.rank,
            world=self.ctx.dist.world,
        )
        return steps[0]


def target(sample: Sample, fidelity: Literal["corrected", "published"]) -> tuple[int, ...]:
    """What is learned of a response: `published` leaves its end token out."""
    return sample.response[:-1] if fidelity == "published" and sample.ended else sample.response


def quark_loss(policy: Engine, spec: Spec) -> LossFn[QuantileBatch]:
    """-log p + `kl_coef` KL(policy || reference) - `entropy_coef` H, summed over response tokens.

    Lu et al. 2022, section 2, and alpaca_farm's entropy bonus, at the temperature of the samples. The KL has
    the direction of either's code.
    """

    def loss(batch: QuantileBatch) -> tuple[Tensor, dict[str, Tensor]]:
        stats = policy(batch.sequences, batch.plain, temperature=spec.sampling.temperature)
        parts = {
            "nll": -stats.logprob_BT.sum(),
            "kl/token": stats.kl_BT.sum(),
            "entropy": stats.entropy_BT.sum(),
        }
        total = parts["nll"] + spec.kl_coef * parts["kl/token"] - spec.entropy_coef * parts["entropy"]
        return total, {name: value.detach() for name, value in parts.items()}

    return loss


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
