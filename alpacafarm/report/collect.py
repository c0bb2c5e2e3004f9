"""From finished stages to the result of a run and its report."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from alpacafarm import __version__
from alpacafarm.artifacts import manifest
from alpacafarm.data.rows import read_outputs
from alpacafarm.pipeline.execute import Done
from alpacafarm.pipeline.plan import Plan
from alpacafarm.ports import Artifact
from alpacafarm.report.render import RunReport
from alpacafarm.report.result import Evaluation, Gold, Rate, Reading, Result, StageLine
from alpacafarm.report.table import Sample, samples
from alpacafarm.spec.run import RunSpec
from alpacafarm.stage import Kind

LOST = (
    "dropped_prompts",
    "truncated_responses",
    "failed",
    "failed_verdicts",
    "without_a_pair",
    "shortened_prompts",
)
MEASURED = {  # of a reward model
    "accuracy": "accuracy on {held_out} held-out pairs {accuracy:.1f}%",
    "ece": "calibration error {ece:.1f}%",
    "length_correlation": "rank correlation of score and response length {length_correlation:+.2f}",
}


def run_report(spec: RunSpec, plan: Plan, done: Sequence[Done], seconds: float) -> RunReport:
    """Everything the result table and the report show, read back from the artifacts."""
    by_key = {d.stage.key: d.artifact for d in done}
    scores = _scores(plan, by_key)
    return RunReport(
        result=_result(spec, plan, done, scores, seconds),
        manifests=[_manifest(d.artifact) for d in done],
        logs={d.stage.name: log for d in done if (log := _log(d.artifact))},
        samples=_samples(plan, by_key, scores),
        spec=spec.canonical(),
        reading=Reading(
            kl_estimator="analytic bound" if scores.get("kl_is_bound") else "k1",
            fidelity=getattr(spec.method, "fidelity", None),
            n_failures=scores["eval"]["n_failures"] if scores else None,
            notes=(*_evaluation_notes(scores), *_notes(spec, plan, by_key)),
        ),
    )


def _result(
    spec: RunSpec, plan: Plan, done: Sequence[Done], scores: Mapping[str, Any], seconds: float
) -> Result:
    by_key = {d.stage.key: d.artifact for d in done}
    made = [d for d in done if d.state != "reused"]
    costs = [_manifest(d.artifact)["cost"] for d in made]
    outputs = _outputs(plan, by_key)
    candidate = by_key[plan.candidate.key]
    return Result(
        name=spec.name,
        method=spec.method.name,
        feedback=spec.feedback.name if _uses_feedback(plan) else None,
        model=spec.model.name,
        data=spec.data.kind,
        seed=spec.seed,
        kl_coef=spec.kl_coef,
        eval=_evaluation(scores) if scores else None,
        vs_sft=_rate(scores.get("vs_sft")),
        gold=_gold(scores.get("gold")),
        reward_model_score=scores.get("reward_model_score"),
        kl_to_sft=scores.get("kl_to_sft"),
        stages=tuple(map(_stage_line, done)),
        outputs=str(outputs.path / "outputs.json") if outputs else None,
        policy=str(candidate.path / "model") if plan.candidate.makes is Kind.POLICY else None,
        picked=candidate.facts.get("picked"),
        judge_calls=int(sum(cost.get("judge_calls", 0) for cost in costs)),
        price_usd=float(sum(cost.get("price_usd", 0.0) for cost in costs)),
        seconds=seconds,
        version=__version__,
    )


def _stage_line(done: Done) -> StageLine:
    return StageLine(
        name=done.stage.name,
        key=done.stage.key,
        kind=str(done.stage.makes),
        state=done.state,
        seconds=done.seconds,
        folder=str(done.artifact.path),
        went_on=tuple(done.artifact.facts.get("went_on", ())),
    )


def _evaluation(scores: Mapping[str, Any]) -> Evaluation:
    names = (
        "win_rate",
        "standard_error",
        "n_total",
        "n_wins",
        "n_wins_base",
        "n_draws",
        "judge",
        "reference",
    )
    controlled = "length_controlled_win_rate", "length_controlled_standard_error"
    values = {name: scores["eval"][name] for name in names}
    values |= {name: scores["eval"].get(name) for name in controlled}  # not every evaluation has them
    return Evaluation(**values, avg_length=scores["avg_length"])


def _rate(raw: Mapping[str, Any] | None) -> Rate | None:
    return None if raw is None else Rate(raw["win_rate"], raw["standard_error"])


def _gold(raw: Mapping[str, Any] | None) -> Gold | None:
    if raw is None:
        return None
    return Gold(
        raw["win_rate"], raw["standard_error"], raw["score"], _rate(raw["vs_sft"]), _rate(raw["null"])
    )


def _scores(plan: Plan, by_key: Mapping[str, Artifact]) -> dict[str, Any]:
    if plan.scores is None:
        return {}
    raw: dict[str, Any] = json.loads(
        (by_key[plan.scores.key].path / "scores.json").read_text(encoding="utf-8")
    )
    return raw


def _outputs(plan: Plan, by_key: Mapping[str, Artifact]) -> Artifact | None:
    if plan.scores is None:
        return None
    node = plan.scores.inputs["outputs"]
    return by_key[node.key]


def _uses_feedback(plan: Plan) -> bool:
    return any(stage.makes is Kind.PAIRS for stage in plan.stages)


def _samples(plan: Plan, by_key: Mapping[str, Artifact], scores: Mapping[str, Any]) -> tuple[Sample, ...]:
    """Answers before and after, where there is an SFT model to compare with."""
    after = _outputs(plan, by_key)
    before = plan.scores.inputs.get("sft_outputs") if plan.scores else None
    if after is None or before is None or before.key not in by_key:
        return ()
    first = [o for o in read_outputs(by_key[before.key].path / "outputs.json") if o.sample == 0]
    return samples(first, read_outputs(after.path / "outputs.json"))


def _notes(spec: RunSpec, plan: Plan, by_key: Mapping[str, Artifact]) -> tuple[str, ...]:
    """What the stages recorded that a reader of the numbers must know."""
    return tuple(
        f"{stage.name}: {note}"
        for stage in plan.stages
        if stage.key in by_key
        for note in fact_notes(by_key[stage.key].facts, spec.kl_coef)
    )


def fact_notes(facts: Mapping[str, Any], kl_coef: float | None) -> list[str]:
    """A stage's facts in words. Counts of what was lost are told where they are not zero."""
    notes = [f"{facts[name]} {name.replace('_', ' ')}" for name in LOST if facts.get(name)]
    if kinds := facts.get("failures"):
        notes.append("of the failed " + ", ".join(f"{count} {kind}" for kind, count in kinds.items()))
    if facts.get("contradictions"):
        notes.append(f"{facts['contradictions']} pairs judged differently in the other order")
    measured = [text.format(**facts) for name, text in MEASURED.items() if facts.get(name) is not None]
    if measured:
        notes.append(", ".join(measured))
    if picked := facts.get("picked"):
        where = f" on the {picked['split']} split" if "split" in picked else ""
        notes.append(f"the snapshot of step {picked['step']}, by {picked['by']}{where}")
    notes += [f"went on from {how}" for how in facts.get("went_on", ())]
    if facts.get("kl_estimator"):
        notes.append(f"kl_coef={kl_coef} multiplies the estimator {facts['kl_estimator']} per token")
    return notes


def _evaluation_notes(scores: Mapping[str, Any]) -> Iterator[str]:
    """Why numbers are absent, and where verdicts were lost."""
    if not scores:
        return
    if reason := scores["eval"].get("length_controlled_reason"):
        yield f"no length-controlled win rate: {reason}"
    if count := scores.get("contradictions"):
        yield f"{count} pairs judged differently in the other order"
    for role, kinds in scores.get("failures", {}).items():
        if kinds:
            told = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
            other = "SFT" if role == "vs_sft" else "the references"
            yield f"comparisons with {other} that got no verdict: {told}"


def _manifest(artifact: Artifact) -> dict[str, Any]:
    raw: dict[str, Any] = json.loads((artifact.path / manifest.NAME).read_text(encoding="utf-8"))
    return raw


def _log(artifact: Artifact) -> list[dict[str, float]]:
    path = artifact.path / "log.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
