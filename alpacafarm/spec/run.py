"""The run spec: everything one run is. Equal specs give equal plans.

Methods, preference sources and evaluations own their Spec and live on a higher floor, so the parser hands
their lookup in as pydantic's validation context: `RunSpec.model_validate(raw, context={"lookup":
lookup.module})`.
"""

from collections.abc import Callable, Mapping
from typing import Any, Literal

from pydantic import Field, SerializeAsAny, ValidationInfo, field_validator, model_validator

from alpacafarm.spec.base import Strict
from alpacafarm.spec.cluster import ClusterSpec
from alpacafarm.spec.data import DataSpec
from alpacafarm.spec.eval import EvalSpec
from alpacafarm.spec.feedback import FeedbackSpec
from alpacafarm.spec.judge import RecordedJudge, RewardJudge, WorldJudge
from alpacafarm.spec.method import MethodSpec
from alpacafarm.spec.model import ModelSpec, Sampling


class TrackingSpec(Strict):
    """Where metrics go besides `log.jsonl`."""

    wandb: Literal["off", "offline", "online"]
    project: str
    group: str | None


class GivenSpec(Strict):
    """Artifacts to start from instead of making them: a stored artifact, a Hugging Face folder, a hub id, a
    file."""

    base: str | None
    sft: str | None
    rm: str | None
    pairs: str | None


def narrowed(package: str, raw: Any, info: ValidationInfo) -> Any:
    """Exchanges a raw mapping for an instance of the Spec of the module that its `name` names."""
    if not isinstance(raw, Mapping):
        return raw
    if not isinstance(raw.get("name"), str):
        raise ValueError(f"name={raw.get('name')!r} must be the name of one of {package}")
    find: Callable[[str, str], Any] = (info.context or {})["lookup"]
    return find(package, raw["name"]).Spec.model_validate(dict(raw), context=info.context)


class RunSpec(Strict):
    """One run, validated."""

    name: str = Field(min_length=1)
    seed: int = Field(ge=0, lt=2**63)
    kl_coef: float | None = Field(ge=0)
    store: str = Field(min_length=1)
    action: Literal["run", "plan", "status"]
    model: ModelSpec
    data: DataSpec
    method: SerializeAsAny[MethodSpec]
    upstream: dict[Literal["base", "sft", "rm"], SerializeAsAny[MethodSpec]]
    feedback: SerializeAsAny[FeedbackSpec]
    eval: SerializeAsAny[EvalSpec] | None
    given: GivenSpec
    tracking: TrackingSpec
    cluster: ClusterSpec

    @field_validator("method", mode="before")
    @classmethod
    def method_by_name(cls, raw: Any, info: ValidationInfo) -> Any:
        return narrowed("methods", raw, info)

    @field_validator("upstream", mode="before")
    @classmethod
    def upstream_by_name(cls, raw: Any, info: ValidationInfo) -> Any:
        return (
            {role: narrowed("methods", value, info) for role, value in raw.items()}
            if isinstance(raw, Mapping)
            else raw
        )

    @field_validator("feedback", mode="before")
    @classmethod
    def feedback_by_name(cls, raw: Any, info: ValidationInfo) -> Any:
        return narrowed("feedback", raw, info)

    @field_validator("eval", mode="before")
    @classmethod
    def eval_by_name(cls, raw: Any, info: ValidationInfo) -> Any:
        if isinstance(raw, Mapping) and raw.get("name") == "none":
            return None
        return narrowed("evals", raw, info)

    @model_validator(mode="after")
    def groups_agree(self) -> "RunSpec":
        problems = [
            *self._sampling_problems(),
            *self._judge_problems(),
            *self._data_problems(),
            *self._batch_problems(),
        ]
        if problems:
            raise ValueError("\n".join(problems))
        return self

    def _sampling_problems(self) -> list[str]:
        sampling = getattr(self.method, "sampling", None)
        problems = []
        if isinstance(sampling, Sampling):
            if self.kl_coef and sampling.truncates:
                problems.append(
                    f"method.sampling.top_p={sampling.top_p}, top_k={sampling.top_k} with kl_coef={self.kl_coef}: a sampled KL "
                    "is only valid when nothing is cut off the distribution; set method.sampling.top_p=1.0 and "
                    "method.sampling.top_k=0, or kl_coef=0"
                )
            problems += self._too_long("method.sampling", sampling)
        eval_sampling = getattr(self.eval, "sampling", None)
        if isinstance(eval_sampling, Sampling):
            problems += self._too_long("eval.sampling", eval_sampling)
        return problems

    def _too_long(self, path: str, sampling: Sampling) -> list[str]:
        limit = self.model.max_response_tokens
        if sampling.max_new_tokens <= limit:
            return []
        return [
            f"{path}.max_new_tokens={sampling.max_new_tokens} must be at most model.max_response_tokens={limit}; "
            f"set {path}.max_new_tokens={limit} or raise model.max_response_tokens"
        ]

    def _judge_problems(self) -> list[str]:
        problems = []
        for group in ("feedback", "eval"):
            judge = getattr(getattr(self, group), "judge", None)
            if isinstance(judge, WorldJudge) and self.data.kind != "world":
                problems.append(
                    f"{group}.judge.kind=world with data.kind={self.data.kind}: the world's annotators only know the world's "
                    f"own instructions; set {group}/judge=reward or {group}/judge=recorded, or data=world"
                )
            if group == "feedback" and isinstance(judge, RewardJudge) and self.given.rm is None:
                problems.append(
                    "feedback.judge.kind=reward with given.rm=null: the reward model would be trained on its own labels; "
                    "set given.rm to a trained reward model or choose another feedback/judge"
                )
            if isinstance(judge, RecordedJudge) and not judge.path:
                problems.append(f"{group}.judge.path is empty: name a file of judged pairs")
        return problems

    def _data_problems(self) -> list[str]:
        if self.model.name == "world" and self.data.kind != "world" and self.model.architecture is not None:
            return [
                f"model=world with data.kind={self.data.kind}: the world's model only knows the world's vocabulary; set "
                "model=scratch (a model trained from nothing on data.pretrain) or model=path model.path=FOLDER"
            ]
        return []

    def _batch_problems(self) -> list[str]:
        world = self.cluster.processes
        if not isinstance(world, int):
            return []
        problems = []
        for path, spec in [
            ("method", self.method),
            *((f"upstream.{k}", v) for k, v in self.upstream.items()),
        ]:
            batch = getattr(getattr(spec, "optim", None), "batch_size", None)
            if batch is not None and batch < world:
                problems.append(
                    f"{path}.optim.batch_size={batch} must be at least cluster.processes={world} (a row for each process); "
                    f"set {path}.optim.batch_size={world} or more"
                )
        return problems
