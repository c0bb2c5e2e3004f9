"""A pool of annotators: one of them reads each pair and says what its judge says, with faults of its own.

Simulated annotators are a mix of prompts and models that differ as people do (Dubois et al. 2023, section 3).
Who reads a pair and how it errs is drawn from the seed and the pair's texts: pairs of one instruction are
independent, and swapping the outputs mirrors the verdict.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from alpacafarm.judges.together import Comparing, WaitingJudge, in_turns
from alpacafarm.ports import Judge
from alpacafarm.spec.judge import NoiseSpec, PoolJudge
from alpacafarm.stage import content_key
from alpacafarm.stats.habits import NO_HABITS, Chance, Habits, abstains, chance, drawn, habitual, ties
from alpacafarm.types import Pair, Verdict


def habits_of(noise: NoiseSpec | None) -> Habits:
    return NO_HABITS if noise is None else Habits(**noise.canonical())


@dataclass(frozen=True)
class Look:
    """Who reads a pair, and what chance has in store. `place` is 0 for the first pair and 1 for the last."""

    pair: Pair
    annotator: str
    luck: Chance
    place: float


class AnnotatorPool:
    """`judges` are those behind the annotators; annotators with the same one are asked in one go."""

    def __init__(self, spec: PoolJudge, judges: Mapping[str, Judge], seed: int) -> None:
        self.name = f"pool-of-{len(judges)}-{content_key(spec.canonical())[:8]}"
        self.weights = {name: member.weight for name, member in spec.members.items()}
        self.habits = {name: habits_of(member.noise) for name, member in spec.members.items()}
        self.judges = judges
        self.distinct = list({id(judge): judge for _, judge in sorted(judges.items())}.values())
        self.seed = seed

    def compare(self, pairs: Sequence[Pair]) -> list[Verdict]:
        looks = [self._look(pair, i / max(1, len(pairs) - 1)) for i, pair in enumerate(pairs)]
        found = {i: unseen for i, look in enumerate(looks) if (unseen := self._unseen(look)) is not None}
        places = [
            [i for i, look in enumerate(looks) if i not in found and self.judges[look.annotator] is judge]
            for judge in self.distinct
        ]
        told = self._told([[pairs[i] for i in own] for own in places])
        for own, verdicts in zip(places, told, strict=True):
            found |= {i: self._said(looks[i], verdict) for i, verdict in zip(own, verdicts, strict=True)}
        return [found[i] for i in range(len(pairs))]

    def _told(self, shares: Sequence[Sequence[Pair]]) -> list[list[Verdict]]:
        """What each distinct judge says of its share; those that wait for answers wait at the same time.

        All are asked, also about nothing: processes that ask a judge together wait for each other.
        """
        told: dict[int, list[Verdict]] = {}
        works: dict[int, Comparing] = {}
        for i, (judge, share) in enumerate(zip(self.distinct, shares, strict=True)):
            if isinstance(judge, WaitingJudge):
                works[i] = judge.comparing(share)
            else:
                told[i] = judge.compare(share)
        told |= dict(zip(works, in_turns(list(works.values())), strict=True))
        return [told[i] for i in range(len(shares))]

    def _look(self, pair: Pair, place: float) -> Look:
        texts = (pair.instruction, pair.input, *sorted((pair.output_1, pair.output_2)))
        annotator = drawn(self.weights, self.seed, texts)
        return Look(pair, annotator, chance(self.seed, annotator, texts), place)

    def _unseen(self, look: Look) -> Verdict | None:
        """What needs no judge: equal outputs are a tie that an annotator may yet abstain from."""
        habits = self.habits[look.annotator]
        if abstains(habits, look.luck):
            return Verdict(None, look.annotator, failure="abstained")
        if ties(habits, look.luck) or look.pair.output_1 == look.pair.output_2:
            return Verdict(1.5, look.annotator)
        return None

    def _said(self, look: Look, verdict: Verdict) -> Verdict:
        """The judge's verdict, under the annotator's name and with its faults. A failure stays one."""
        told = verdict.preference
        if told is not None:
            told = habitual(
                told,
                look.pair.output_1,
                look.pair.output_2,
                habits=self.habits[look.annotator],
                luck=look.luck,
                place=look.place,
            )
        return replace(verdict, preference=told, annotator=look.annotator)
