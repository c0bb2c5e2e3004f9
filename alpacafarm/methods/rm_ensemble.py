"""An ensemble of reward models against over-optimisation (Coste et al. 2023; arXiv:2310.02743).

The members are reward models (`rm.py`) on the same pairs that differ in their seed: the head they start with
and the order of the rows. Whoever scores with the artifact gets the combined score. `model/` is the first
member, so that PPO's critic, and any program that loads a sequence classifier, finds one there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from pydantic import Field, model_validator

from alpacafarm.artifacts import ensemble
from alpacafarm.artifacts.ensemble import Ensemble
from alpacafarm.artifacts.link import link_tree
from alpacafarm.data.rows import read_rows, write_rows
from alpacafarm.errors import ArtifactError
from alpacafarm.methods import rm
from alpacafarm.ports import Context, Inputs, Upstream
from alpacafarm.spec.base import Problem, Strict, refuse
from alpacafarm.stage import Kind, Stage
from alpacafarm.stats.ensemble import Combine, aligning_shifts
from alpacafarm.stats.seeds import stable_seed
from alpacafarm.types import ScoredPair


class Spec(rm.Spec):
    """`members` reward models; the keys of a single one are those of each. `std_coef` is only for
    `combine: mean_minus_std`."""

    members: int = Field(ge=2)
    combine: Combine
    std_coef: float | None = Field(ge=0)

    @model_validator(mode="after")
    def std_coef_has_its_use(self) -> Spec:
        if self.combine == "mean_minus_std" and self.std_coef is None:
            text = "must be a number for .combine=mean_minus_std; set .std_coef=1.0, or .combine=min"
            refuse(Problem("std_coef", None, text))
        if self.combine != "mean_minus_std" and self.std_coef is not None:
            text = (
                f"must be null for .combine={self.combine}, which does not use it; "
                "set .std_coef=null or .combine=mean_minus_std"
            )
            refuse(Problem("std_coef", self.std_coef, text))
        return self


class MemberSpec(rm.Spec):
    """A reward model with draws of its own. Member 0 is the reward model that `method=rm` trains."""

    member: int = Field(ge=1)


class CombineSpec(Strict):
    combine: Combine
    std_coef: float | None


def plan(spec: Spec, up: Upstream) -> Stage:
    alone = {**spec.canonical(exclude={"module", "members", "combine", "std_coef"}), "name": "rm"}
    first = rm.plan(rm.Spec.model_validate(alone), up)
    others = [
        up.stage(
            f"rm member {number}",
            "alpacafarm.methods.rm_ensemble:train_member",
            MemberSpec.model_validate({**alone, "member": number}),
            makes=Kind.REWARD,
            inputs=first.inputs,
            version=rm.VERSION,
        )
        for number in range(1, spec.members)
    ]
    return up.stage(
        "rm_ensemble",
        "alpacafarm.methods.rm_ensemble:combine",
        CombineSpec(combine=spec.combine, std_coef=spec.std_coef),
        makes=Kind.REWARD,
        inputs={f"member_{number}": stage for number, stage in enumerate([first, *others])},
        uses_model=False,
    )


def train_member(spec: MemberSpec, inputs: Inputs, ctx: Context) -> None:
    rm.train_from(spec, inputs, ctx, seed=stable_seed(ctx.seed, "member", spec.member))


def combine(spec: CombineSpec, inputs: Inputs, ctx: Context) -> None:
    """Brings the members together and records what a single reward model records, of the combined score.

    Nothing is scored again: every member has left its scores of the same measured pairs.
    """
    members = [inputs[f"member_{number}"] for number in range(len(inputs))]
    means = [member.facts["reward_mean"] for member in members]
    if None in means:  # how a manifest has a NaN
        raise ArtifactError(
            f"member {means.index(None)} of the ensemble gives scores that are no numbers: its training "
            "diverged; lower the reward model's optim.lr"
        )
    together = Ensemble(combine=spec.combine, std_coef=spec.std_coef, shifts=aligning_shifts(means))
    pairs = combined_pairs(
        [read_rows(member.path / "measured.jsonl", ScoredPair) for member in members], together
    )
    first = members[0].facts
    ctx.record(
        **rm.measurements(pairs, held_out=first["held_out"]),
        end_with_eos=first["end_with_eos"],
        combine=spec.combine,
        std_coef=spec.std_coef,
        members=len(members),
    )
    write_rows(ctx.out / "measured.jsonl", pairs)
    together.write(ctx.out)
    link_tree(members[0].path / "model", ctx.out / "model")
    for number, member in enumerate(members):
        link_tree(member.path / "model", ensemble.member(ctx.out, number))


def combined_pairs(of_members: Sequence[Sequence[ScoredPair]], together: Ensemble) -> list[ScoredPair]:
    """The measured pairs, the same for every member and in the same order, with the ensemble's scores."""
    assert all([p.id for p in pairs] == [p.id for p in of_members[0]] for pairs in of_members)
    first = together([[pair.score_1 for pair in pairs] for pairs in of_members])
    second = together([[pair.score_2 for pair in pairs] for pairs in of_members])
    return [
        replace(pair, score_1=score_1, score_2=score_2)
        for pair, score_1, score_2 in zip(of_members[0], first, second, strict=True)
    ]
