"""The run spec: everything one run is. Equal specs give equal plans.

Methods, preference sources and evaluations own their Spec and live on a higher floor, so the parser hands
their lookup in as pydantic's validation context: `model_validate(raw, context={"lookup": lookup.module})`.
"""

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, SerializeAsAny, ValidationInfo, model_validator

from alpacafarm.spec.api import ApiSpec, BudgetSpec
from alpacafarm.spec.base import Problem, Strict, refuse
from alpacafarm.spec.cluster import ClusterSpec
from alpacafarm.spec.data import DataSpec, FilesData
from alpacafarm.spec.eval import EvalSpec
from alpacafarm.spec.feedback import FeedbackSpec
from alpacafarm.spec.judge import RecordedJudge, RewardJudge, parts
from alpacafarm.spec.method import MethodSpec, OnPolicySpec
from alpacafarm.spec.model import ModelSpec, Sampling

NAME_BYTES = 200  # file systems take 255


class TrackingSpec(Strict):
    """Where metrics go besides `log.jsonl`."""

    wandb: Literal["off", "offline", "online"]
    project: str
    group: str | None


class GivenSpec(Strict):
    """What to start from instead of making it: an artifact, a Hugging Face folder, a hub id, a rows file."""

    base: str | None
    sft: str | None
    rm: str | None
    pairs: str | None


def by_name(package: str) -> BeforeValidator:
    """Exchanges a raw mapping for an instance of the Spec of the module that its `name` names."""

    def narrow(raw: Any, info: ValidationInfo) -> Any:
        if isinstance(raw, Strict) or (raw is None and package == "evals"):
            return raw
        name = raw.get("name") if isinstance(raw, Mapping) else raw
        dotted = raw.get("_module") if isinstance(raw, Mapping) else None
        if not isinstance(dotted, str | None):
            refuse(Problem("_module", dotted, "must be the dotted name of a module; set it in quotes"))
        find: Callable[[str, Any, Any], Any] = (info.context or {})["lookup"]
        try:
            module = find(package, name, dotted)
        except ValueError as error:
            key, value = ("name", name) if dotted is None else ("_module", dotted)
            refuse(Problem(key, value, str(error)))
        return module.Spec.model_validate(dict(raw), context=info.context)

    return BeforeValidator(narrow)


def no_evaluation(raw: Any) -> Any:
    """`conf/eval/none.yaml` stands for no evaluation at all, whichever judge `data` chose for one."""
    is_none = isinstance(raw, Mapping) and raw.get("name") == "none" and set(raw) <= {"name", "judge"}
    return None if is_none else raw


Method = Annotated[SerializeAsAny[MethodSpec], by_name("methods")]
Feedback = Annotated[SerializeAsAny[FeedbackSpec], by_name("feedback")]
Evaluation = Annotated[SerializeAsAny[EvalSpec] | None, by_name("evals"), BeforeValidator(no_evaluation)]


class RunSpec(Strict):
    """One run, validated."""

    name: str = Field(min_length=1)
    seed: int = Field(ge=0, lt=2**63)
    kl_coef: float | None = Field(ge=0)
    store: str = Field(min_length=1)
    action: Literal["run", "plan", "status"]
    force: bool = False  # runs stages that are expected not to fit into memory
    model: ModelSpec
    data: DataSpec
    method: Method
    upstream: dict[Literal["base", "sft", "rm"], Method]
    feedback: Feedback
    eval: Evaluation
    given: GivenSpec
    tracking: TrackingSpec
    cluster: ClusterSpec
    api: ApiSpec
    budget: BudgetSpec

    @model_validator(mode="after")
    def groups_agree(self) -> "RunSpec":
        problems = [
            *self._name_problems(),
            *self._sampling_problems(),
            *self._judge_problems(),
            *self._data_problems(),
            *self._pick_problems(),
            *self._control_problems(),
            *(self.batch_problems(self.cluster.processes) if self.cluster.processes != "auto" else ()),
        ]
        if problems:
            refuse(*problems)
        return self

    def _name_problems(self) -> list[Problem]:
        """The name is that of the folder above the run's, too."""
        if (
            self.name in (".", "..")
            or "/" in self.name
            or not self.name.isprintable()
            or len(self.name.encode()) > NAME_BYTES
        ):
            text = (
                f"must be good for a folder's name: no slash, no control character, at most {NAME_BYTES} "
                "bytes; set name=NAME, and hydra.run.dir=FOLDER for another place"
            )
            return [Problem("name", self.name, text)]
        return []

    def _sampling_problems(self) -> list[Problem]:
        problems = []
        sampling = getattr(self.method, "sampling", None)
        budget = getattr(self.method, "kl_budget", None)
        if isinstance(sampling, Sampling) and (self.kl_coef or budget) and sampling.truncates:
            name = "top_p" if sampling.top_p < 1 else "top_k"
            told, way_out = f"kl_coef={self.kl_coef}", "kl_coef=0"
            if not self.kl_coef:
                told, way_out = f"method.kl_budget={budget}", "method.kl_budget=null"
            text = (
                f"{told}, and a sampled KL is only valid when nothing is cut off the "
                f"distribution; set method.sampling.top_p=1.0 and method.sampling.top_k=0, or {way_out}"
            )
            problems.append(Problem(f"method.sampling.{name}", getattr(sampling, name), text))
        limit = self.model.max_response_tokens
        for group in ("method", "feedback", "eval"):
            sampling = getattr(getattr(self, group), "sampling", None)
            if isinstance(sampling, Sampling) and sampling.max_new_tokens > limit:
                key = f"{group}.sampling.max_new_tokens"
                text = (
                    f"must be at most model.max_response_tokens={limit}; "
                    f"set {key}={limit} or raise model.max_response_tokens"
                )
                problems.append(Problem(key, sampling.max_new_tokens, text))
        return problems

    def _judge_problems(self) -> list[Problem]:
        problems = []
        for group in ("feedback", "eval"):
            asked = getattr(getattr(self, group), "judge", None)
            for key, judge in () if asked is None else parts(asked):
                where = f"{group}.judge.{key}"
                if group == "feedback" and isinstance(judge, RewardJudge) and self.given.rm is None:
                    text = (
                        "given.rm=null, and the reward model would be trained on its own labels; "
                        "set given.rm to a trained reward model or choose another feedback/judge"
                    )
                    problems.append(Problem(f"{where}kind", "reward", text))
                if isinstance(judge, RecordedJudge) and not judge.path:
                    text = f"must name a file of judged pairs; set {where}path=FILE"
                    problems.append(Problem(f"{where}path", judge.path, text))
        return problems

    def _data_problems(self) -> list[Problem]:
        if self.method.name == "pretrain" and self.model.architecture is None:
            text = (
                f"model.path={self.model.path}: that model is trained already; set method=base to evaluate "
                "it as it is, or model=scratch to train one from nothing"
            )
            return [Problem("method.name", "pretrain", text)]
        if self.model.name != "world" or self.data.kind == "world" or self.model.architecture is None:
            return []
        text = (
            f"data.kind={self.data.kind}, and the world's model only knows the world's vocabulary; "
            "set model=scratch (trained from nothing on data.pretrain) or model=path model.path=FOLDER"
        )
        return [Problem("model.name", "world", text)]

    def _control_problems(self) -> list[Problem]:
        if self.model.lora is None or self.model.lora.export == "merged" or not self.method.control_tokens:
            return []
        text = (
            f"method={self.method.name} adds tokens to the policy's vocabulary, and an adapter has no "
            "embeddings for them; set model.lora.export=merged"
        )
        return [Problem("model.lora.export", self.model.lora.export, text)]

    def _pick_problems(self) -> list[Problem]:
        """A snapshot is not chosen on the rows that then measure it."""
        pick = getattr(self.method, "pick", None)
        if pick is None or pick.by == "step":
            return []
        if getattr(self.eval, "split", None) == "val":
            text = "must not be val, on which method.pick chooses; set eval.split=eval or method.pick=null"
            return [Problem("eval.split", "val", text)]
        if isinstance(self.data, FilesData) and self.data.val is not None and self.data.val == self.data.eval:
            text = (
                "must not be the file of data.eval, which method.pick would then choose on; "
                "give another file, or set method.pick=null"
            )
            return [Problem("data.val", self.data.val, text)]
        return []

    def batch_problems(self, world: int) -> list[Problem]:
        """Batches that cannot be shared out among `world` processes."""
        problems = []
        roles = {"method": self.method, **{f"upstream.{role}": spec for role, spec in self.upstream.items()}}
        for path, spec in roles.items():
            batch = getattr(getattr(spec, "optim", None), "batch_size", None)
            if batch is not None and batch < world:
                key = f"{path}.optim.batch_size"
                text = (
                    f"must be at least cluster.processes={world}, a row for each process; "
                    f"set {key}={world} or more"
                )
                problems.append(Problem(key, batch, text))
        if isinstance(self.method, OnPolicySpec):
            unit = self.method.group * world
            whom = f"{world} processes" + (f" times {unit // world} responses" if unit > world else "")
            counts = {
                "rollouts_per_step": self.method.rollouts_per_step,
                "optim.batch_size": self.method.optim.batch_size,
            }
            for name, count in counts.items():
                if count % unit:
                    text = (
                        f"must be a multiple of the {whom}, so that each samples as many; "
                        f"set method.{name}={max(1, count // unit) * unit} or change cluster.processes"
                    )
                    problems.append(Problem(f"method.{name}", count, text))
        return problems
