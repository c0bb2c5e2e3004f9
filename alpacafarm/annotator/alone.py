"""A judge outside of a run: the stage around it is this process, with nothing to make."""

from __future__ import annotations

import tempfile
import uuid
from pathlib import Path

from pydantic import TypeAdapter

from alpacafarm.annotator.config import checked, keys_of
from alpacafarm.api.client import ApiClient
from alpacafarm.engine.single import SingleProcess
from alpacafarm.errors import SpecError
from alpacafarm.pipeline.context import StageContext
from alpacafarm.ports import Artifact, Inputs, Judge
from alpacafarm.spec.api import ApiSpec, BudgetSpec
from alpacafarm.spec.cluster import ClusterSpec
from alpacafarm.spec.judge import JudgeSpec, LocalJudge, RecordedJudge, RewardJudge, parts
from alpacafarm.spec.model import ModelSpec
from alpacafarm.stage import Kind
from alpacafarm.tracking.tracker import Fanout

NAME = "annotator"  # of this process in the ledger
MODEL = ModelSpec(
    name="judge",
    path="given",
    revision=None,
    architecture=None,
    dtype="float32",
    prompt="alpaca",
    max_prompt_tokens=192,
    max_response_tokens=300,
    lora=None,
)


def judge_alone(spec: JudgeSpec, client: ApiClient, *, seed: int) -> Judge:
    """The judge of this process. SpecError for one that only a run has."""
    return context(seed, client).judge(spec, inputs_of(spec))


def client_alone(api: ApiSpec, store: Path, *, max_usd: float | None, max_calls: int | None) -> ApiClient:
    """Asks in the name of this process, which has the budget for itself. SpecError for a cap that is none."""
    return ApiClient(
        api,
        store.expanduser(),
        budget=checked(TypeAdapter(BudgetSpec), {"max_usd": max_usd, "max_calls": max_calls}, "budget"),
        run=NAME,
        stage=uuid.uuid4().hex[:16],
        stage_name=NAME,
    )


def inputs_of(spec: JudgeSpec) -> Inputs:
    """What a plan would give the judge: files and models by their place."""
    inputs: dict[str, Artifact] = {}
    for key, part in parts(spec):
        if isinstance(part, RewardJudge):
            raise SpecError(
                f"annotators_config.{key}kind=reward: that is the reward model of a run, and here is none; "
                "set kind to another"
            )
        if isinstance(part, RecordedJudge):
            inputs[f"{key}verdicts"] = Artifact(Path(part.path).expanduser(), Kind.ROWS, "")
        elif isinstance(part, LocalJudge):
            facts = {"revision": part.revision}
            inputs[f"{key}judge"] = Artifact(Path(part.path).expanduser(), Kind.POLICY, part.path, facts)
    return inputs


def context(seed: int, client: ApiClient | None = None) -> StageContext:
    """A stage of one process. Its model says how a judge's weights are loaded, not where they are."""
    cluster = {**keys_of("local", "cluster", "cluster", {}), "engine": "plain", "processes": 1}
    nowhere = Path(tempfile.gettempdir())  # a judge writes nothing
    return StageContext(
        name=NAME,
        seed=seed,
        out=nowhere,
        scratch=nowhere,
        labels=nowhere,
        model=MODEL,
        cluster=ClusterSpec.model_validate(cluster),
        dist=SingleProcess(),
        track=Fanout(),
        client=client,
    )
