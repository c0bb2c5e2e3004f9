"""Reward models that score responses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from alpacafarm.artifacts import ensemble
from alpacafarm.artifacts.ensemble import Ensemble
from alpacafarm.ports import Artifact, Scorer

if TYPE_CHECKING:
    from alpacafarm.pipeline.context import StageContext
    from alpacafarm.text.collate import Tokens


def scorer_of(ctx: StageContext, weights: Artifact) -> Scorer:
    """Of a single reward model or of an ensemble, whichever the artifact holds."""
    found = ensemble.read(weights.path)
    return RewardScorer(ctx, weights) if found is None else EnsembleScorer(ctx, weights, found)


class RewardScorer:
    """A reward model over responses, each read as it was in training: with or without its end token."""

    def __init__(self, ctx: StageContext, weights: Artifact) -> None:
        self.ctx = ctx
        self.engine = ctx.frozen(weights, head="reward")
        self.eos_id = int(ctx.tokenizer(weights).eos_token_id)
        self.with_eos = bool(weights.facts.get("end_with_eos", False))
        self.positions = ctx.positions(weights)

    def score(self, rows: Sequence[Tokens]) -> list[float]:
        from alpacafarm.text.collate import scored

        read = [scored(row, self.eos_id, with_eos=self.with_eos) for row in rows]
        if self.positions is not None:
            read = [fitted(row, self.positions) for row in read]
        return self.ctx.score(self.engine, read)


def fitted(row: Tokens, positions: int) -> Tokens:
    """A row that is too long without the middle of its prompt; the prompt keeps half of the positions at
    most, and of a response that does not fit beside it the end is read."""
    from alpacafarm.text.collate import Tokens
    from alpacafarm.text.tokenise import shorten

    if row.length <= positions:
        return row
    room = max(positions - len(row.response), positions // 2)
    prompt = shorten(row.prompt, room)
    return Tokens(prompt, row.response[-(positions - len(prompt)) :])


class EnsembleScorer:
    """The combined score of an ensemble's members, which all stay loaded and score one after the other.

    So an ensemble of k takes the memory of k frozen reward models (sharded under ZeRO-3) and the time of k.
    """

    def __init__(self, ctx: StageContext, weights: Artifact, combine: Ensemble) -> None:
        self.combine = combine
        self.members = [
            RewardScorer(ctx, replace(weights, path=ensemble.member(weights.path, number)))
            for number in range(len(combine.shifts))
        ]

    def score(self, rows: Sequence[Tokens]) -> list[float]:
        return self.combine([member.score(rows) for member in self.members])
