"""The embedded world's annotators as a judge."""

from collections.abc import Sequence

from alpacafarm.errors import JudgeError
from alpacafarm.spec.judge import WorldJudge
from alpacafarm.types import Pair, Verdict
from alpacafarm.world.annotators import annotate, pool
from alpacafarm.world.tasks import parse


class WorldAnnotators:
    """A pool of simulated people. Verdicts depend on `seed` and pair alone and mirror under an order swap."""

    def __init__(self, spec: WorldJudge, seed: int) -> None:
        self.name = f"world-{spec.pool}"
        self.annotators = pool(spec.pool, spec.pool_seed)
        self.seed = seed

    def compare(self, pairs: Sequence[Pair]) -> list[Verdict]:
        return [self._verdict(pair) for pair in pairs]

    def _verdict(self, pair: Pair) -> Verdict:
        task = parse(pair.instruction, pair.input)
        if task is None:
            raise JudgeError(
                f"row {pair.id}: {pair.instruction!r} is no instruction of the embedded world, "
                "whose annotators know no other; choose another judge"
            )
        vote = annotate(
            self.annotators, task, pair.output_1, pair.output_2, seed=self.seed, flip_probability=0.0
        )
        return Verdict(vote.preference, vote.annotator, calls=1)
