"""One step of a method that learns from its own samples: draw responses, score them, cut them into
micro-batches, measure them on these. The result does not depend on the number of ranks.

A prompt's responses (its group) are neighbours and stay on one rank.
"""

# Shapes: B this rank's rows, T positions of the longest response.

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from alpacafarm.data.rows import read_rows
from alpacafarm.errors import ArtifactError, SpecError
from alpacafarm.ports import Artifact, Context, Engine
from alpacafarm.spec.method import OnPolicySpec
from alpacafarm.spec.model import Sampling
from alpacafarm.stats.seeds import stable_seed
from alpacafarm.text.collate import SequenceBatch, Tokens, collate
from alpacafarm.text.tokenise import Ids, encode_prompts, prefixed
from alpacafarm.training.batches import deal
from alpacafarm.training.rollouts import Rollouts
from alpacafarm.types import Example, Pair


@dataclass(frozen=True)
class Prompts:
    """The prompts of the unlabeled split that fit, and the rows that they come from."""

    ids: Sequence[Ids]
    rows: Sequence[Example]
    bos_id: int | None


def fitting_prompts(rows: Artifact, policy: Artifact, ctx: Context, *, room: int = 0) -> Prompts:
    """Drops prompts that have no place for `room` further tokens, and records how many those are.

    SpecError where none is left.
    """
    tokenizer, limit = ctx.tokenizer(policy), ctx.model.max_prompt_tokens
    examples = read_rows(rows.path / "rows.jsonl", Example)
    ids = encode_prompts(tokenizer, ctx.model.prompt, [(row.instruction, row.input) for row in examples])
    fitting = [i for i, prompt in enumerate(ids) if len(prompt) + room <= limit]
    ctx.record(dropped_prompts=len(ids) - len(fitting))
    if not fitting:
        raise SpecError(
            f"model.max_prompt_tokens={limit}: every prompt of the unlabeled split is longer; set it to "
            f"{min(map(len, ids), default=0) + room} or more, or give shorter prompts"
        )
    return Prompts([ids[i] for i in fitting], [examples[i] for i in fitting], tokenizer.bos_token_id)


def prompt_indices(prompts: int, step: int, count: int, seed: int) -> list[int]:
    """The prompts of one step: permutations of all prompts, one after the other, `count` at a time."""
    chosen: list[int] = []
    position = step * count
    while len(chosen) < count:
        epoch, offset = divmod(position, prompts)
        order = list(range(prompts))
        random.Random(stable_seed(seed, "prompts", epoch)).shuffle(order)
        taken = order[offset : offset + count - len(chosen)]
        chosen += taken
        position += len(taken)
    return chosen


@dataclass(frozen=True)
class Responses:
    """This rank's responses of one step. `rows` have the plain prompts, as a reward model reads them."""

    places: list[int]  # of each row's prompt in `Prompts`
    rows: list[Tokens]
    ended: list[bool]


def draw(
    policy: Engine,
    prompts: Prompts,
    sampling: Sampling,
    ctx: Context,
    *,
    step: int,
    rollouts: int,
    samples_per_prompt: int = 1,
    prefix: Ids = (),
) -> Responses:
    """`samples_per_prompt` responses to each of the step's prompts, `rollouts` on all ranks together.

    Args:
        rollouts: a multiple of `samples_per_prompt` times the ranks.
        prefix: control tokens to sample after; they are not in `Responses.rows`.
    """
    rank, world = ctx.dist.rank, ctx.dist.world
    assert rollouts % (samples_per_prompt * world) == 0, (rollouts, samples_per_prompt, world)
    groups = prompt_indices(len(prompts.ids), step, rollouts // samples_per_prompt, ctx.seed)
    numbers = [
        group * samples_per_prompt + sample
        for group in range(rank, len(groups), world)
        for sample in range(samples_per_prompt)
    ]
    places = [groups[n // samples_per_prompt] for n in numbers]
    asked = [prefixed(prompts.ids[i], prefix, prompts.bos_id) for i in places]
    seeds = [stable_seed(ctx.seed, "rollout", step, n) for n in numbers]
    with ctx.meter.phase("generate"), policy.gathered() as model:
        sampled = ctx.sample(model, asked, sampling, seeds=seeds)
    read = sum(map(len, asked)) + sum(map(len, sampled.responses))
    ctx.meter.count(tokens=read, samples=len(asked), computed=sampled.computed_tokens)
    rows = [Tokens(prompts.ids[i], r) for i, r in zip(places, sampled.responses, strict=True)]
    return Responses(places, rows, sampled.ended)


def group_pairs(
    drawn: Responses, prompts: Prompts, texts: Sequence[str], games: Sequence[tuple[int, int]], group: int
) -> list[Pair]:
    """The pairs of responses of every group that `games` names by their places in it, group by group."""
    pairs = []
    for start in range(0, len(texts), group):
        row = prompts.rows[drawn.places[start]]
        pairs += [
            Pair(row.id, row.instruction, row.input, texts[start + i], texts[start + j]) for i, j in games
        ]
    return pairs


@dataclass(frozen=True)
class Scale:
    """What to subtract from a raw score and what to divide it by."""

    shift: float
    deviation: float

    def standardised(
        self, raw: Sequence[float], ended: Sequence[bool], *, missing_eos_penalty: float
    ) -> Tensor:
        """score_B; the penalty is subtracted from the standardised score of a response that did not end."""
        unended_B = (~torch.tensor(ended)).float()
        return (torch.tensor(raw) - self.shift) / self.deviation - missing_eos_penalty * unended_B


def standardisation(reward: Artifact, reward_std: float | None) -> Scale:
    """From the SFT model's mean and deviation under the reward model; null leaves scores raw."""
    if reward_std is None:
        return Scale(0.0, 1.0)
    if "reward_mean" not in reward.facts:
        raise ArtifactError(
            f"method.reward_std={reward_std} needs the reward model's mean and deviation, "
            "which the given one does not record; set method.reward_std=null to use raw scores"
        )
    if not reward.facts["reward_std"]:
        raise ArtifactError(
            f"method.reward_std={reward_std}: the reward model gave the same score to every answer "
            "that it was measured on, which cannot be scaled; give more varied pairs or set it to null"
        )
    return Scale(float(reward.facts["reward_mean"]), float(reward.facts["reward_std"]))


@dataclass(frozen=True)
class Minibatch:
    """This rank's micro-batches of one optimiser step, and the rows that each holds."""

    sequences: Sequence[SequenceBatch]
    indices: Sequence[Sequence[int]]


def minibatches(
    rows: Sequence[Tokens], *, batch_size: int, pad_id: int, ctx: Context, group: int = 1
) -> list[Minibatch]:
    """Rows in their order, `batch_size` on all ranks together; similar lengths share a micro-batch.

    Args:
        group: neighbours that must share a micro-batch, which then counts groups: it holds the first row of
            each, then the second of each, and so on.
    """
    units = len(rows) // group
    share = -(-batch_size // (ctx.dist.world * group))
    lengths = [sum(row.length for row in rows[group * u : group * (u + 1)]) for u in range(units)]
    cuts = [
        deal(range(u, min(u + share, units)), lengths, micro_batch=ctx.micro_batch, rank=0, world=1)
        for u in range(0, units, share)
    ]
    indices = [[[group * u + k for k in range(group) for u in part] for part in cut] for cut in cuts]
    return [Minibatch([collate([rows[i] for i in part], pad_id) for part in cut], cut) for cut in indices]


def measured(
    model: Engine, batches: Sequence[Minibatch], names: Sequence[str], *, temperature: float
) -> dict[str, Tensor]:
    """The fields `names` of `model(batch)`, each BT over this rank's rows, zero on padding, on the CPU.

    On exactly the micro-batches that will be trained on: only then is the first ratio of new to old
    probabilities exactly one.
    """
    parts = [
        part for minibatch in batches for part in zip(minibatch.sequences, minibatch.indices, strict=True)
    ]
    rows, time = sum(len(rows) for _, rows in parts), max(batch.mask_BT.size(1) for batch, _ in parts)
    found = {name: torch.zeros(rows, time) for name in names}
    for batch, places in parts:
        with torch.no_grad():
            out = model(batch.to(model.device), temperature=temperature)
        for name in names:
            found[name][places, : batch.mask_BT.size(1)] = getattr(out, name).float().cpu()
    return found


def response_mask(batches: Sequence[Minibatch]) -> Tensor:
    """mask_BT of this rank's rows, as wide as what `measured` returns."""
    lengths = {
        i: int(length)
        for minibatch in batches
        for batch, places in zip(minibatch.sequences, minibatch.indices, strict=True)
        for i, length in zip(places, batch.mask_BT.sum(1), strict=True)
    }
    length_B = torch.tensor([lengths[i] for i in range(len(lengths))])
    return torch.arange(max(1, int(length_B.max()))) < length_B[:, None]


def measured_rollouts(
    policy: Engine,
    reference: Engine,
    drawn: Responses,
    raw: Sequence[float],
    score_B: Tensor,
    *,
    spec: OnPolicySpec,
    pad_id: int,
    ctx: Context,
    together: int = 1,
    further: Sequence[str] = (),
) -> tuple[Rollouts, list[Minibatch], dict[str, Tensor]]:
    """This rank's rollouts, the micro-batches that they were measured on, and what the policy says beside
    log-probabilities: its fields `further`, BT.

    Args:
        together: neighbouring rows that share a micro-batch.
    """
    batches = minibatches(
        drawn.rows, batch_size=spec.optim.batch_size, pad_id=pad_id, ctx=ctx, group=together
    )
    temperature = spec.sampling.temperature
    with ctx.meter.phase("log-probabilities"):
        own = measured(policy, batches, ["logprob_BT", *further], temperature=temperature)
        other = measured(reference, batches, ["logprob_BT"], temperature=temperature)
    rollouts = Rollouts(
        ended_B=torch.tensor(drawn.ended),
        mask_BT=response_mask(batches),
        logprob_BT=own["logprob_BT"],
        reference_logprob_BT=other["logprob_BT"],
        raw=raw,
        score_B=score_B,
    )
    return rollouts, batches, own


def over_epochs(minibatches: int, epochs: int, *, step: int, seed: int) -> list[int]:
    """The order in which minibatches are trained on: each once an epoch, drawn anew for every epoch.

    A row stays in its minibatch, whose old log-probabilities were measured on just its micro-batches.
    """
    order = random.Random(stable_seed(seed, "minibatches", step))
    return [i for _ in range(epochs) for i in order.sample(range(minibatches), minibatches)]
