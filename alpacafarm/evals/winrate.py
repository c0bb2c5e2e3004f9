"""Win rate against the reference outputs and against the SFT model (Dubois et al. 2023, section 3.4)."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from pydantic import Field

from alpacafarm.data.annotations import Annotation, merged, write_annotations
from alpacafarm.data.rows import write_rows, write_text
from alpacafarm.errors import PlanError
from alpacafarm.judges.against import (
    Answers,
    AskSpec,
    Judged,
    Told,
    failures,
    judged,
    read_answers,
    read_judged,
)
from alpacafarm.judges.knows import bill, check_judge, judge_inputs
from alpacafarm.ports import Artifact, Context, Inputs, Upstream
from alpacafarm.rollout.decode import DecodeSpec
from alpacafarm.spec.base import Strict
from alpacafarm.spec.data import Split
from alpacafarm.spec.eval import EvalSpec
from alpacafarm.spec.judge import JudgeSpec, RewardJudge, is_waited_for, runs_a_model
from alpacafarm.spec.model import Sampling
from alpacafarm.stage import NOTHING_TO_PAY, Given, Kind, Node, Stage
from alpacafarm.stats.winrate import WinRate, win_rate_by_instruction
from alpacafarm.types import Preference

REFERENCE = "reference"  # the baseline's name: the evaluation rows' own outputs


class Spec(EvalSpec):
    """`sft_draws` redraws of the SFT model's outputs are the opponents of `vs_sft`; one more is the null."""

    split: Split
    sampling: Sampling
    sft_draws: int = Field(ge=1)
    judge: JudgeSpec
    gold: bool | None  # also the embedded world's true preference; null: where there is one


class CompareSpec(Strict):
    """What `compare` needs of the evaluation: how the outputs were sampled is in the outputs' own keys."""

    sft_draws: int
    judge: JudgeSpec | None  # null: its verdicts are among the inputs
    gold: bool
    temperature: float


def plan(spec: Spec, up: Upstream, candidate: Stage) -> Stage:
    check_judge(spec.judge, "eval", up)
    if spec.gold and not up.has_gold:
        raise PlanError(
            "eval.gold=true: only the embedded world's true preference is known; "
            "set eval.gold=null or data=world"
        )
    texts = _texts(spec, up, candidate)
    models = _models(spec, up, candidate, has_sft="sft_outputs" in texts)
    judge: JudgeSpec | None = spec.judge
    asked = {} if isinstance(judge, RewardJudge) else judge_inputs(spec.judge, "eval", up)
    baselines = 1 + (spec.sft_draws if "sft_outputs" in texts else 0)
    cost = bill(spec.judge, up, rows=up.row_count(spec.split), share=baselines, split=spec.split)
    if is_waited_for(spec.judge):
        verdicts = up.stage(
            "judge outputs",
            "alpacafarm.judges.against:ask",
            AskSpec(sft_draws=spec.sft_draws, judge=spec.judge),
            makes=Kind.VERDICTS,
            inputs={**texts, **asked},
            uses_model=False,
            bill=cost,
        )
        judge, asked, cost = None, {"verdicts": verdicts}, NOTHING_TO_PAY
    return up.stage(
        "compare",
        "alpacafarm.evals.winrate:compare",
        CompareSpec(
            sft_draws=spec.sft_draws,
            judge=judge,
            gold=up.has_gold if spec.gold is None else spec.gold,
            temperature=spec.sampling.temperature,
        ),
        makes=Kind.SCORES,
        inputs={**texts, **models, **asked},
        version=2,
        uses_model=bool(models) or runs_a_model(spec.judge),
        bill=cost,
    )


def _texts(spec: Spec, up: Upstream, candidate: Stage) -> dict[str, Node]:
    """What is judged. The SFT model's outputs are opponents where the candidate is made from it."""
    rows = up.rows(spec.split)
    texts: dict[str, Node] = {
        "rows": rows,
        "outputs": _outputs(spec, up, candidate, rows, n=1, stream="policy"),
    }
    sft = up.sft() if derives_from(candidate, up.sft()) else None
    if sft is not None and sft.key != candidate.key:
        texts["sft_outputs"] = _outputs(spec, up, sft, rows, n=spec.sft_draws + 1, stream="sft")
    return texts


def _models(spec: Spec, up: Upstream, candidate: Stage, *, has_sft: bool) -> dict[str, Node]:
    """What the outputs are measured with: the two policies of a KL, and the run's reward model."""
    models: dict[str, Node] = {}
    is_sampled_whole = not spec.sampling.truncates  # or the sampled KL would be none
    if has_sft and candidate.makes is Kind.POLICY and is_sampled_whole:
        models = {"policy": candidate, "sft": up.sft()}
    reward = next(
        (node for node in ancestors(candidate) if node is not candidate and _kind(node) is Kind.REWARD), None
    )
    if reward is None and isinstance(spec.judge, RewardJudge):
        reward = up.reward()
    return models if reward is None else {**models, "reward": reward}


def _outputs(spec: Spec, up: Upstream, node: Node, rows: Node, *, n: int, stream: str) -> Node:
    if _kind(node) is Kind.OUTPUTS:
        return node
    return up.stage(
        f"decode {stream}",
        "alpacafarm.rollout.decode:decode",
        DecodeSpec(n=n, sampling=spec.sampling, stream=stream, prompts=None),
        makes=Kind.OUTPUTS,
        inputs={"policy": node, "rows": rows},
    )


def _kind(node: Node) -> Kind:
    return node.kind if isinstance(node, Given) else node.makes


def ancestors(node: Node) -> Iterator[Node]:
    """The node and everything it is made from, depth first: a node comes before its own inputs."""
    yield node
    if isinstance(node, Stage):
        for parent in node.inputs.values():
            yield from ancestors(parent)


def derives_from(node: Stage, other: Node) -> bool:
    return any(ancestor.key == other.key for ancestor in ancestors(node))


def compare(spec: CompareSpec, inputs: Inputs, ctx: Context) -> None:
    """Writes `scores.json` and the judged pairs; output 1 is always the baseline.

    `annotations.json` has every row, as AlpacaEval writes them; `annotations.jsonl` those with a verdict, as
    preferences. Rows are joined by id; an output without a reference, or the reverse, is an error. Failed
    verdicts are counted by their kind and excluded from the rates.
    """
    answers = read_answers(inputs, spec.sft_draws)
    if spec.judge is None:
        found = read_judged(inputs["verdicts"], answers)
    else:
        found = judged(spec.judge, answers, inputs, ctx)
    outputs = answers.outputs.values()
    against_references = _rate(found.references)
    assert against_references is not None  # a judge that knows none of them has failed
    scores: dict[str, Any] = {
        "eval": {
            **against_references,
            **_at_equal_length(found.references),
            "judge": found.judge,
            "reference": REFERENCE,
        },
        "avg_length": statistics.fmean(len(o.output) for o in outputs),
        "avg_tokens": statistics.fmean(o.tokens for o in outputs),
        "ended_fraction": statistics.fmean(o.ended for o in outputs),
        "vs_sft": _rate(found.sft),
        "gold": gold_scores(answers) if spec.gold else None,
        "failures": {"eval": failures(found.references)},
        "contradictions": sum(verdict.contradicted for _, verdict in (*found.references, *found.sft)),
    }
    if answers.draws:
        scores["failures"]["vs_sft"] = failures(found.sft)
    scores |= _proxies(spec, inputs, ctx)
    if ctx.dist.rank == 0:
        write_text(ctx.out / "scores.json", json.dumps(scores, indent=1) + "\n")
        write_rows(ctx.out / "annotations.jsonl", _preferences(found.references))
        write_annotations(ctx.out / "annotations.json", _annotations(answers, found))


def _rate(told: Told) -> dict[str, Any] | None:
    """The win rate, with the instruction as the unit.

    None where no pair got a verdict: a file of recorded ones seldom holds pairs with the SFT model's draws.
    """
    if all(verdict.preference is None for _, verdict in told):
        return None
    groups: dict[str, list[float | None]] = {}
    for pair, verdict in told:
        groups.setdefault(pair.id, []).append(verdict.preference)
    return summary(win_rate_by_instruction(list(groups.values())))


def _at_equal_length(told: Told) -> dict[str, Any]:
    """The length-controlled win rate of a model on its own: there are no difficulties of the rows."""
    from alpacafarm.stats.length_control import Rated, length_controlled

    won = [math.nan if v.preference is None else v.preference - 1 for _, v in told]
    longer = [float(len(pair.output_1) - len(pair.output_2)) for pair, _ in told]
    (found,) = length_controlled([Rated(won, longer)])
    return {
        "length_controlled_win_rate": found.win_rate,
        "length_controlled_standard_error": found.standard_error,
        "length_controlled_reason": found.reason,
    }


def _preferences(told: Told) -> list[Preference]:
    return [
        Preference(**asdict(pair), preference=verdict.preference, annotator=verdict.annotator)
        for pair, verdict in told
        if verdict.preference is not None
    ]


def _annotations(answers: Answers, found: Judged) -> list[Annotation]:
    return [
        Annotation(
            row=row.id,
            place=place,
            preference=verdict.preference,
            instruction=merged(row.instruction, row.input),
            output_1=pair.output_1,
            output_2=pair.output_2,
            baseline=REFERENCE,
            model=answers.outputs[row.id].generator,
            annotator=verdict.annotator,
            judge=found.judge,
            dataset=row.dataset,
            failure=verdict.failure,
        )
        for place, (row, (pair, verdict)) in enumerate(zip(answers.rows, found.references, strict=True))
    ]


def summary(rate: WinRate) -> dict[str, Any]:
    return asdict(rate)


def gold_scores(answers: Answers) -> dict[str, Any]:
    """The true preference: against the references and the SFT draws, and the SFT redraw against these."""
    from alpacafarm.world.gold import preference, read, score
    from alpacafarm.world.tasks import parse

    rows, candidates, draws = answers.rows, answers.candidates, answers.draws
    tasks = {}
    for row in rows:
        task = parse(row.instruction, row.input)
        assert task is not None, f"{row.id} is no row of the world"  # the plan asks for gold nowhere else
        tasks[row.id] = task

    def rate(baselines: Mapping[str, Sequence[str]], texts: Mapping[str, str]) -> dict[str, Any]:
        groups = [
            [preference(tasks[r.id], baseline, texts[r.id]) for baseline in baselines[r.id]] for r in rows
        ]
        return summary(win_rate_by_instruction(groups))

    return {
        **rate(answers.references, candidates),
        "score": statistics.fmean(score(read(tasks[row.id], candidates[row.id])) for row in rows),
        "vs_sft": rate(draws, candidates) if draws else None,
        "null": rate(draws, answers.null) if draws else None,
    }


def _proxies(spec: CompareSpec, inputs: Inputs, ctx: Context) -> dict[str, Any]:
    """Mean reward of the outputs, raw, and the sampled KL to the SFT model in nats per response.

    The KL is between the two policies at the decoding temperature, whose samples the outputs are; for outputs
    chosen among n samples it is the analytic bound.
    """
    from alpacafarm.rollout.decode import read_tokens

    folder, facts = inputs["outputs"].path, inputs["outputs"].facts
    is_measured = bool(inputs.keys() & {"policy", "reward"}) and (folder / "tokens.jsonl").exists()
    tokens = read_tokens(folder) if is_measured else []  # of an API the texts alone are known
    reward, kl = None, facts.get("kl_bound")
    if is_measured and "reward" in inputs:
        scorer = ctx.scorer(inputs["reward"], vocabulary=facts.get("vocabulary"))
        reward = statistics.fmean(scorer.score(tokens))
    if is_measured and "policy" in inputs:
        kl = statistics.fmean(_log_ratios(inputs["policy"], inputs["sft"], tokens, spec.temperature, ctx))
    return {
        "reward_model_score": reward,
        "kl_to_sft": kl,
        "kl_is_bound": "kl_bound" in facts,
    }


def _log_ratios(
    policy: Artifact, sft: Artifact, tokens: Sequence[Any], temperature: float, ctx: Context
) -> list[float]:
    """log policy(response) - log sft(response), summed over each response. Each is asked in its own way."""
    from alpacafarm.rollout.decode import prompt_prefix
    from alpacafarm.text.collate import Tokens
    from alpacafarm.text.tokenise import with_prefix

    sums = []
    for weights in (policy, sft):
        plain = [row.prompt for row in tokens]
        prompts = with_prefix(ctx.tokenizer(weights), plain, prompt_prefix(weights))
        rows = [Tokens(prompt, row.response) for prompt, row in zip(prompts, tokens, strict=True)]
        logprob_BT = ctx.logprobs(ctx.frozen(weights), rows, temperature)
        sums.append(logprob_BT.double().sum(1).tolist())
    return [a - b for a, b in zip(*sums, strict=True)]
