"""A stage is a value: what to run, on which inputs, with which parameters. Its key is their hash."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import Any


class Kind(StrEnum):
    """What an artifact is."""

    ROWS = "rows"
    POLICY = "policy"
    REWARD = "reward"
    PAIRS = "pairs"
    OUTPUTS = "outputs"
    VERDICTS = "verdicts"
    SCORES = "scores"
    LOGPROBS = "logprobs"


def canonical_json(value: Any) -> str:
    """JSON that depends on the value alone: sorted keys, no spaces, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def content_key(value: Any) -> str:
    """64 bits of SHA-256 over the canonical JSON, as 16 hexadecimal digits."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Given:
    """Something that exists already: a folder, a file or a hub id. `fingerprint` stands for its content."""

    kind: Kind
    location: str
    fingerprint: str
    revision: str | None = None

    @property
    def name(self) -> str:
        return f"given {self.kind}"

    @cached_property
    def key(self) -> str:
        return content_key(["given", str(self.kind), self.fingerprint])


@dataclass(frozen=True)
class Bill:
    """What a stage will ask of judges. `judge_calls` is None where that is not known before it runs.

    `models` are those that are asked behind an API; tokens are what they read and write. `unlimited` are
    those that have a price, and answers that may be of any length.
    """

    text: str = ""
    judge_calls: int | None = 0
    price_usd: float = 0.0
    tokens_in: int = 0
    tokens_out: int = 0
    models: tuple[str, ...] = ()
    unlimited: tuple[str, ...] = ()


NOTHING_TO_PAY = Bill()


def in_usd(price: float) -> str:
    """To the cent, or as far as there is something to see."""
    if price == 0:
        return "0 USD"
    return f"{price:,.2f} USD" if price >= 0.01 else f"{price:.2g} USD"


@dataclass(frozen=True)
class Stage:
    """One node of the plan.

    `params` is everything that changes the result and nothing that does not. `model` is the same for the
    policy's settings, None where no model is involved. `version` is raised by hand when the code's meaning
    changes.
    """

    name: str
    run: str  # "alpacafarm.methods.ppo:train"
    makes: Kind
    params: Mapping[str, Any]
    inputs: Mapping[str, "Stage | Given"]
    seed: int
    model: Mapping[str, Any] | None = None
    version: int = 1
    needs: str = ""  # what it will cost, for people; not part of the key, and neither is the bill
    bill: Bill = NOTHING_TO_PAY
    uses_devices: bool = field(default=True)  # launched on every rank; false for stages that only move rows

    @property
    def cost(self) -> str:
        """Work and bill in words, for the plan."""
        return ", ".join(filter(None, (self.needs, self.bill.text)))

    @cached_property
    def identity(self) -> dict[str, Any]:
        """What the key is made of. Two stages with equal identities are one stage."""
        return {
            "run": self.run,
            "version": self.version,
            "makes": str(self.makes),
            "params": dict(self.params),
            "model": None if self.model is None else dict(self.model),
            "inputs": {role: node.key for role, node in sorted(self.inputs.items())},
            "seed": self.seed,
        }

    @cached_property
    def key(self) -> str:
        return content_key(self.identity)


Node = Stage | Given
