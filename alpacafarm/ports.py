"""What the parts ask of each other. Adapters live on the floor below; a stage function sees only these."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar

from alpacafarm.stage import NOTHING_TO_PAY, Bill, Kind, Node, Stage
from alpacafarm.types import Pair, Verdict

if TYPE_CHECKING:  # a plan is made and printed without torch
    import torch
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from alpacafarm.request import Answer, Failure, Price, Request
    from alpacafarm.spec.base import Strict
    from alpacafarm.spec.judge import JudgeSpec
    from alpacafarm.spec.method import OptimSpec
    from alpacafarm.spec.model import ModelSpec, Sampling
    from alpacafarm.text.collate import Batch, Tokens

B = TypeVar("B", bound="Batch")
LossFn = Callable[[B], "tuple[Tensor, Mapping[str, Tensor]]"]  # sums over the batch, never means
Head = Literal["language", "anchored", "reward", "actor_critic"]


@dataclass(frozen=True)
class Manifest:
    """`artifact.json`: what an artifact is, what it came from and what it cost."""

    kind: Kind
    key: str
    stage: str
    params: Mapping[str, Any]
    inputs: Mapping[str, str]
    seed: int
    versions: Mapping[str, str]
    started: str  # ISO 8601, UTC
    seconds: float
    files: Mapping[str, str]  # relative path: sha256
    throughput: Mapping[str, Any] | None = None
    cost: Mapping[str, float] = field(default_factory=dict)  # judge_calls, price_usd
    facts: Mapping[str, Any] = field(
        default_factory=dict
    )  # what consumers must know: prompt prefix, reward scale


@dataclass(frozen=True)
class Artifact:
    """A finished folder (or something the user gave)."""

    path: Path
    kind: Kind
    key: str
    facts: Mapping[str, Any] = field(default_factory=dict)


Inputs = Mapping[str, Artifact]


@dataclass(frozen=True)
class Update:
    """One optimiser step, the same on every rank: means over the global weight, norm before clipping."""

    loss: float
    grad_norm: float
    weight: float
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class Layout:
    """Who holds an engine's state, and how it is cut up. A checkpoint has that of its writer."""

    engine: str
    world: int
    stage: int | None = None  # of ZeRO

    def __str__(self) -> str:
        how = "plain torch" if self.stage is None else f"ZeRO-{self.stage}"
        return f"{self.world} rank{'s' * (self.world > 1)} with {how}"


class Engine(Protocol):
    """A model under an optimiser, or a frozen one. Losses are sums, divided here by the global weight."""

    rank: int
    world: int
    device: torch.device
    layout: Layout

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The module's forward, gradients recorded only inside `update`."""
        ...

    def update(self, batches: Sequence[B], loss: LossFn[B], *, lr: float) -> Update:
        """One optimiser step over this rank's micro-batches.

        The result does not depend on how the rows were cut into micro-batches and ranks. Ranks may hold
        different numbers of micro-batches, each at least one.
        """
        ...

    def gathered(self) -> AbstractContextManager[PreTrainedModel]:
        """The whole policy in eval mode, without gradients, on every rank: to generate."""
        ...

    def export(self, path: Path) -> None:
        """Writes `path` in Hugging Face layout (rank 0 writes, all ranks call)."""
        ...

    def checkpoint(self, path: Path) -> None:
        """Writes weights and optimiser states of all ranks under `path`."""
        ...

    def restore(self, path: Path) -> Layout:
        """Reads what `checkpoint` wrote, and returns the writer's layout.

        Where that is this engine's own, training goes on to the bit, else to rounding; dropout, which alone
        draws from the global random states, then goes on with other draws.
        """
        ...


@dataclass(frozen=True)
class Sampled:
    """Responses as exact tokens, in the order of the prompts."""

    responses: list[tuple[int, ...]]
    ended: list[bool]  # the end token was emitted (it is the last token)
    computed_tokens: int = field(
        default=0, compare=False
    )  # positions computed: padding and ended rows included


class Dist(Protocol):
    """The processes of this stage. All ranks call every method; with one rank each is the identity."""

    rank: int
    world: int

    def total(self, values: Sequence[float]) -> list[float]:
        """Sums over ranks, in float64."""
        ...

    def gather(self, value: Any) -> list[Any]:
        """Every rank's value, in rank order, on every rank."""
        ...

    def broadcast(self, value: Any) -> Any:
        """Rank 0's value on every rank."""
        ...

    def barrier(self) -> None: ...


class Judge(Protocol):
    """Compares pairs; the verdicts come back in order."""

    name: str

    def compare(self, pairs: Sequence[Pair]) -> list[Verdict]: ...


class Asker(Protocol):
    """Asks models behind an API. What was paid for once is answered from the store, within the budget."""

    def ask(self, requests: Iterable[Request]) -> Iterator[tuple[int, Answer | Failure]]:
        """(position of the request, what came of it), in the order in which the answers arrive.

        `requests` is read as it goes, never far ahead, so memory does not grow with its length. Each request
        comes back exactly once; equal ones are asked once. An endpoint that nothing can be asked of (no
        key, not reachable at all, unknown model) raises JudgeError.
        """
        ...


class Scorer(Protocol):
    """Scores responses with a reward model, in nats of preference, raw (neither centred nor scaled)."""

    def score(self, rows: Sequence[Tokens]) -> list[float]: ...


class Tracker(Protocol):
    """Metrics of one stage. JSON lines always; elsewhere when asked."""

    def log(self, step: int, values: Mapping[str, float]) -> None: ...

    def rewind(self, step: int) -> None:
        """Forgets what was logged after `step`, before a resumed stage goes on."""
        ...

    def close(self) -> None: ...


class Progress(Protocol):
    """One bar on the console, or nothing where there is no console."""

    def __enter__(self) -> Progress: ...
    def __exit__(self, *exc: object) -> None: ...
    def advance(self, done: int, note: str = "") -> None:
        """`done` of the total are done by now."""
        ...


class Meter(Protocol):
    """Where a stage's time goes. Only real tokens count; set-up and evaluation are left out."""

    def phase(self, name: str) -> AbstractContextManager[None]: ...
    def count(self, *, tokens: int = 0, samples: int = 0, computed: int = 0) -> None: ...
    def state(self) -> dict[str, Any]: ...
    def restore(self, state: Mapping[str, Any]) -> None: ...


class Context(Protocol):
    """What a stage function works with. Built for each stage by the worker."""

    name: str  # the stage's, for people
    seed: int
    out: Path  # the artifact being made
    scratch: Path  # survives a kill, not part of the artifact
    labels: Path  # of the whole store: what people said outlives every stage that asked them
    model: ModelSpec
    dist: Dist
    track: Tracker
    meter: Meter
    micro_batch: int
    generation_batch: int
    checkpoint_every_s: float

    def trainable(
        self,
        weights: Artifact,
        optim: OptimSpec,
        *,
        head: Head = "language",
        critic: Artifact | None = None,
        value_lr_scale: float = 1.0,
        control_tokens: Sequence[str] = (),
        seed: int | None = None,
    ) -> Engine:
        """An engine to train. `critic` is the reward model that an actor's value network starts from (of an
        ensemble, its first member).

        An `anchored` language model has a frozen copy of `weights` beside it and tells its KL to that. A
        language model learns `control_tokens` on top of its vocabulary; it reads them and never says them.
        `seed` is that of what is drawn anew (a head, adapters, embeddings), else the stage's.
        """
        ...

    def from_nothing(self, tokenizer: PreTrainedTokenizerBase, optim: OptimSpec) -> Engine:
        """`model.architecture` with random weights drawn from the seed, to train."""
        ...

    def frozen(self, weights: Artifact, *, head: Head = "language") -> Engine: ...

    def tokenizer(self, weights: Artifact, control_tokens: Sequence[str] = ()) -> PreTrainedTokenizerBase: ...

    def vocabulary(self, weights: Artifact) -> str:
        """A hash of what token ids in responses stand for: they mean the same to models that share it."""
        ...

    def positions(self, weights: Artifact) -> int | None:
        """The longest sequence the model has positions for; None where its architecture has no limit."""
        ...

    def sample(
        self,
        model: PreTrainedModel,
        prompts: Sequence[Sequence[int]],
        sampling: Sampling,
        *,
        seeds: Sequence[int],
    ) -> Sampled:
        """This rank's prompts only, with one seed for each: what is drawn depends on nothing else."""
        ...

    def scorer(self, weights: Artifact, *, vocabulary: str | None = None) -> Scorer:
        """Scores exact tokens. ArtifactError where their `vocabulary` is not the reward model's."""
        ...

    def score(self, reward: Engine, rows: Sequence[Tokens]) -> list[float]:
        """Raw scores of rows as they are."""
        ...

    def logprobs(self, policy: Engine, rows: Sequence[Tokens], temperature: float) -> Tensor:
        """log p of every response token, BT, zero on padding."""
        ...

    def judge(self, spec: JudgeSpec, inputs: Inputs) -> Judge: ...

    def asker(self, label: str) -> Asker:
        """Asks models behind the run's endpoints, within its budget. `label` is the annotator in the ledger.

        All ranks call `ask`, each with requests of its own; rank 0 asks them all.
        """
        ...

    def progress(self, total: int, label: str) -> Progress: ...

    def record(self, **facts: Any) -> None:
        """Adds to the manifest's facts."""
        ...

    def went_on(self, how: str) -> None:
        """Says, in the log and in the fact `went_on`, that an earlier attempt was cut up in another way."""
        ...

    def spend(self, *, judge_calls: int = 0, price_usd: float = 0.0) -> None:
        """Adds to the manifest's cost."""
        ...


class Upstream(Protocol):
    """What a plan may build on: the user's own artifact where one was given, else the stage that makes it."""

    @property
    def has_gold(self) -> bool:
        """Whether the data's true preference is known."""
        ...

    def row_count(self, split: str) -> int | None:
        """Rows of a split where they are known before they are made or read."""
        ...

    @property
    def released(self) -> Mapping[str, str]:
        """Judged pairs that the data set has: by name, the file."""
        ...

    def expected_rows(self, split: str) -> tuple[int, int] | None:
        """The least and the most rows that the user's file of a split or of judged pairs may have."""
        ...

    @property
    def prompt_tokens(self) -> int:
        """Tokens of an instruction, as long as it may be for the run's model."""
        ...

    @property
    def pair_tokens(self) -> int:
        """Tokens of an instruction with two answers, as long as the run's model may make them."""
        ...

    def price(self, model: str) -> Price:
        """Of asking `model` at the run's endpoints. PlanError where it has no price and is not free."""
        ...

    def base(self) -> Node: ...
    def sft(self) -> Node: ...
    def reward(self) -> Node: ...
    def preferences(self) -> Node: ...
    def model(self, key: str, location: str, revision: str | None) -> Node:
        """A language model that the config names at `key`, by its content."""
        ...

    def rows(self, split: str) -> Node: ...
    def thumbs(self) -> Node | None:
        """The user's own answers with thumbs; None where the data has none."""
        ...

    def stage(
        self,
        name: str,
        run: str,
        spec: Strict,
        *,
        makes: Kind,
        inputs: Mapping[str, Node],
        version: int = 1,
        uses_model: bool = True,
        needs: str = "",
        bill: Bill = NOTHING_TO_PAY,
    ) -> Stage: ...


class Ticket(Protocol):
    """A submitted stage."""

    folder: Path


class Launcher(Protocol):
    """Runs stage folders somewhere. Loaded from `cluster.launcher`."""

    at_once: int  # stages of one run to submit and wait for at the same time, from threads where above 1
    room: int  # the same of several runs together, of a sweep

    def submit(self, folder: Path, after: Sequence[Ticket]) -> Ticket: ...

    def wait(self, tickets: Sequence[Ticket]) -> None:
        """Returns when all are done; raises StageError with the failing rank's log tail."""
        ...

    def cancel(self) -> None:
        """Ends what runs; those who wait for it get an error."""
        ...
