"""Annotators of the embedded world: they see the true preference through their own taste, noise and habit.

Randomness comes from a stable hash of the pair, never from a stream: votes do not depend on the order in
which pairs are annotated, on the process, or on which of the two outputs is called the first.
"""

import hashlib
import math
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal

from alpacafarm.world.gold import GOLD, Reading, Weights, base_score, read
from alpacafarm.world.tasks import Task

PoolKind = Literal["sim", "human", "eval"]


@dataclass(frozen=True)
class Annotator:
    """Someone's taste. Unlike gold it never tires of extra sentences, cheer or length."""

    name: str
    weights: Weights
    extras: float  # worth of each extra sentence
    cheer: float  # worth of each pleasantry
    length: float  # worth of ten words
    position: float  # worth of being shown first
    noise: float  # standard deviation of an error on the margin
    temperature: float  # of the choice given the margin


@dataclass(frozen=True)
class Vote:
    preference: float  # 1 or 2; 1.5 only for identical outputs
    annotator: str
    flipped: bool


@dataclass(frozen=True)
class _Crowd:
    size: int
    spread: float  # standard deviation of the logarithm of each weight
    noise: float
    temperature: float


# From a prototype; fixed before any model was trained.
_SIM = _Crowd(size=13, spread=0.25, noise=0.2, temperature=0.25)
_HUMAN = _Crowd(size=16, spread=0.45, noise=0.4, temperature=0.35)


def pool(kind: PoolKind, seed: int) -> tuple[Annotator, ...]:
    """The annotators of a kind: `sim` stands for API simulators, `human` for more varied and noisier people.

    `eval` are the same annotators as `sim`; evaluation asks them with a flip probability of zero.
    """
    name = "human" if kind == "human" else "sim"
    crowd = _HUMAN if kind == "human" else _SIM
    rng = random.Random(f"pool-{name}-{seed}")
    return tuple(_draw_annotator(f"{name}-{i:02d}", crowd, rng) for i in range(1, crowd.size + 1))


def annotate(
    annotators: Sequence[Annotator],
    task: Task,
    output_1: str,
    output_2: str,
    *,
    seed: int,
    flip_probability: float,
) -> Vote:
    """One annotator's vote on a pair. Swapping the outputs mirrors it; other seeds give other votes."""
    first, second = sorted((output_1, output_2))
    pair = (task.instruction, task.input, first, second)
    annotator = annotators[_stable_seed("annotator", str(seed), *pair) % len(annotators)]
    if output_1 == output_2:
        return Vote(1.5, annotator.name, flipped=False)
    rng = random.Random(_stable_seed("vote", str(seed), annotator.name, *pair))
    shown_first_bonus = annotator.position if rng.random() < 0.5 else -annotator.position
    margin = utility(annotator, read(task, first)) - utility(annotator, read(task, second))
    margin += shown_first_bonus + rng.gauss(0, annotator.noise)
    prefers_first = rng.random() < _sigmoid(margin / annotator.temperature)
    flipped = rng.random() < flip_probability
    preferred = first if prefers_first != flipped else second
    return Vote(1.0 if preferred == output_1 else 2.0, annotator.name, flipped)


def utility(annotator: Annotator, reading: Reading) -> float:
    """What an output is worth to the annotator."""
    return (
        base_score(reading, annotator.weights)
        + annotator.extras * reading.extras
        + annotator.cheer * reading.pleasantries
        + annotator.length * reading.words / 10
    )


def _draw_annotator(name: str, crowd: _Crowd, rng: random.Random) -> Annotator:
    def near(mean: float, spread: float = crowd.spread) -> float:
        return mean * math.exp(rng.gauss(0, spread))

    return Annotator(
        name=name,
        weights=Weights(**{name: near(weight) for name, weight in asdict(GOLD).items()}),
        extras=near(0.30),
        cheer=near(0.25, spread=0.40),
        length=rng.gauss(0.10, 0.10),
        position=rng.gauss(0.10, 0.10),
        noise=crowd.noise,
        temperature=crowd.temperature,
    )


def _stable_seed(*parts: str) -> int:
    return int.from_bytes(hashlib.blake2b("\0".join(parts).encode(), digest_size=8).digest(), "big")


def _sigmoid(x: float) -> float:
    return 0.5 * (1 + math.tanh(x / 2))
