"""Win rate against the reference outputs and against the SFT model (Dubois et al. 2023, section 3.4)."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from pydantic import Field

from alpacafarm.data.annotations import Annotation, failure_counts, merged, write_annotations
from alpacafarm.data.rows import read_outputs, read_rows, write_rows, write_text
from alpacafarm.errors import JudgeError, PlanError
from alpacafarm.judges.knows import bill, check_judge, judge_inputs
from alpacafarm.ports import Artifact, Context, Inputs, Judge, Upstream
from alpacafarm.rollout.decode import DecodeSpec
from alpacafarm.spec.base import Strict
from alpacafarm.spec.data import Split
from alpacafarm.spec.eval import EvalSpec
from alpacafarm.spec.judge import JudgeSpec, RewardJudge
from alpacafarm.spec.model import Sampling
from alpacafarm.stage import Given, Kind, Node, Stage
from alpacafarm.stats.winrate import WinRate, win_rate_by_instruction
from alpacafarm.types import Example, Output, Pair, Preference, Verdict

Told = Sequence[tuple[Pair, Verdict]]
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
    judge: JudgeSpec
    gold: bool
    temperature: float


def plan(spec: Spec, up: Upstream, candidate: Stage) -> Stage:
    check_judge(spec.judge, "eval", up)
    if spec.gold and not up.has_gold:
        raise PlanError(
            "eval.gold=true: only the embedded world's true preference is known; "
            "set eval.gold=null or data=world"
        )
    rows = up.rows(spec.split)
    sft = up.sft() if derives_from(candidate, up.sft()) else None
    inputs: dict[str, Node] = {
        "rows": rows,
        "outputs": _outputs(spec, up, candidate, rows, n=1, stream="policy"),
    }
    if candidate.makes is Kind.POLICY and not spec.sampling.truncates:  # or the sampled KL would be none
        inputs["policy"] = candidate
    if sft is not None and sft.key != candidate.key:
        inputs["sft"] = sft
        inputs["sft_outputs"] = _outputs(spec, up, sft, rows, n=spec.sft_draws + 1, stream="sft")
    reward = next(
        (node for node in ancestors(candidate) if node is not candidate and _kind(node) is Kind.REWARD), None
    )
    if reward is None and isinstance(spec.judge, RewardJudge):
        reward = up.reward()
    if reward is not None:
        inputs["reward"] = reward
    if not isinstance(spec.judge, RewardJudge):
        inputs |= judge_inputs(spec.judge, "eval", up)
    draws = spec.sft_draws if "sft" in inputs else 0
    return up.stage(
        "compare",
        "alpacafarm.evals.winrate:compare",
        CompareSpec(
            sft_draws=spec.sft_draws,
            judge=spec.judge,
            gold=up.has_gold if spec.gold is None else spec.gold,
            temperature=spec.sampling.temperature,
        ),
        makes=Kind.SCORES,
        inputs=inputs,
        version=2,
        bill=bill(spec.judge, up, rows=up.row_count(spec.split), share=1 + draws, split=spec.split),
    )


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
    rows = read_rows(inputs["rows"].path / "rows.jsonl", Example)
    outputs = {o.id: o for o in read_outputs(inputs["outputs"].path / "outputs.json")}
    if set(outputs) != {row.id for row in rows} or len(outputs) != len(rows):
        raise ValueError(f"{len(outputs)} outputs do not match {len(rows)} evaluation rows")
    references = {row.id: [row.output] for row in rows}
    candidates = {row_id: output.output for row_id, output in outputs.items()}
    judge = ctx.judge(spec.judge, inputs)
    told = _judged(rows, references, candidates, judge, ctx)
    lost = {"eval": _failures(told)}
    against_references = _rate(told)
    if against_references is None:
        kinds = ", ".join(f"{count} {kind}" for kind, count in lost["eval"].items())
        raise JudgeError(
            f"the judge {judge.name} gave no verdict on any of the {len(rows)} rows ({kinds}); "
            "choose another eval/judge, or a file that holds these pairs"
        )
    scores: dict[str, Any] = {
        "eval": {
            **against_references,
            **_at_equal_length(told),
            "judge": judge.name,
            "reference": REFERENCE,
        },
        "avg_length": statistics.fmean(len(text) for text in candidates.values()),
        "avg_tokens": statistics.fmean(o.tokens for o in outputs.values()),
        "ended_fraction": statistics.fmean(o.ended for o in outputs.values()),
        "vs_sft": None,
        "gold": None,
        "failures": lost,
        "contradictions": sum(verdict.contradicted for _, verdict in told),
    }
    draws, null = _sft_draws(inputs, spec.sft_draws)
    if draws:
        against_sft = _judged(rows, draws, candidates, judge, ctx)
        lost["vs_sft"] = _failures(against_sft)
        scores["vs_sft"] = _rate(against_sft)
        scores["contradictions"] += sum(verdict.contradicted for _, verdict in against_sft)
    if spec.gold:
        scores["gold"] = gold_scores(rows, references, candidates, draws, null)
    scores |= _proxies(spec, inputs, ctx)
    if ctx.dist.rank == 0:
        write_text(ctx.out / "scores.json", json.dumps(scores, indent=1) + "\n")
        write_rows(ctx.out / "annotations.jsonl", _preferences(told))
        write_annotations(ctx.out / "annotations.json", _annotations(rows, outputs, told, judge.name))


def _sft_draws(inputs: Inputs, count: int) -> tuple[dict[str, list[str]], dict[str, str]]:
    """The SFT model's fixed draws by row, and the redraw that stands as the null candidate."""
    if "sft_outputs" not in inputs:
        return {}, {}
    draws: dict[str, list[str]] = {}
    null: dict[str, str] = {}
    for output in read_outputs(inputs["sft_outputs"].path / "outputs.json"):
        if output.sample < count:
            draws.setdefault(output.id, []).append(output.output)
        else:
            null[output.id] = output.output
    return draws, null


def _judged(
    rows: Sequence[Example],
    baselines: Mapping[str, Sequence[str]],
    candidates: Mapping[str, str],
    judge: Judge,
    ctx: Context,
) -> Told:
    """The judge's verdicts on the candidates, each against every baseline of its row."""
    pairs = [
        Pair(row.id, row.instruction, row.input, baseline, candidates[row.id])
        for row in rows
        for baseline in baselines[row.id]
    ]
    verdicts = judge.compare(pairs)
    ctx.spend(judge_calls=sum(v.calls for v in verdicts), price_usd=sum(v.price_usd for v in verdicts))
    return list(zip(pairs, verdicts, strict=True))


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


def _failures(told: Told) -> dict[str, int]:
    return failure_counts(
        verdict.failure or "no verdict" for _, verdict in told if verdict.preference is None
    )


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


def _annotations(
    rows: Sequence[Example], outputs: Mapping[str, Output], told: Told, judge: str
) -> list[Annotation]:
    return [
        Annotation(
            row=row.id,
            place=place,
            preference=verdict.preference,
            instruction=merged(row.instruction, row.input),
            output_1=pair.output_1,
            output_2=pair.output_2,
            baseline=REFERENCE,
            model=outputs[row.id].generator,
            annotator=verdict.annotator,
            judge=judge,
            dataset=row.dataset,
            failure=verdict.failure,
        )
        for place, (row, (pair, verdict)) in enumerate(zip(rows, told, strict=True))
    ]


def summary(rate: WinRate) -> dict[str, Any]:
    return asdict(rate)


def gold_scores(
    rows: Sequence[Example],
    references: Mapping[str, Sequence[str]],
    candidates: Mapping[str, str],
    draws: Mapping[str, Sequence[str]],
    null: Mapping[str, str],
) -> dict[str, Any]:
    """The true preference: against the references and the SFT draws, and the SFT redraw against these."""
    from alpacafarm.world.gold import preference, read, score
    from alpacafarm.world.tasks import parse

    tasks = {}
    for row in rows:
        task = parse(row.instruction, row.input)
        assert task is not None, f"{row.id} is no row of the world"  # the plan asks for gold nowhere else
        tasks[row.id] = task

    def rate(baselines: Mapping[str, Sequence[str]], answers: Mapping[str, str]) -> dict[str, Any]:
        groups = [
            [preference(tasks[r.id], baseline, answers[r.id]) for baseline in baselines[r.id]] for r in rows
        ]
        return summary(win_rate_by_instruction(groups))

    return {
        **rate(references, candidates),
        "score": statistics.fmean(score(read(tasks[row.id], candidates[row.id])) for row in rows),
        "vs_sft": rate(draws, candidates) if draws else None,
        "null": rate(draws, null) if draws else None,
    }


def _proxies(spec: CompareSpec, inputs: Inputs, ctx: Context) -> dict[str, Any]:
    """Mean reward of the outputs, raw, and the sampled KL to the SFT model in nats per response.

    The KL is between the two policies at the decoding temperature, whose samples the outputs are; for outputs
    chosen among n samples it is the analytic bound.
    """
    from alpacafarm.rollout.decode import read_tokens

    of_an_api = not (inputs["outputs"].path / "tokens.jsonl").exists()  # whose texts alone are known
    tokens = [] if of_an_api else read_tokens(inputs["outputs"].path)
    reward = None
    if "reward" in inputs and not of_an_api:
        scorer = ctx.scorer(inputs["reward"], vocabulary=inputs["outputs"].facts.get("vocabulary"))
        reward = statistics.fmean(scorer.score(tokens))
    kl = inputs["outputs"].facts.get("kl_bound")
    if "policy" in inputs and "sft" in inputs:
        kl = statistics.fmean(_log_ratios(inputs["policy"], inputs["sft"], tokens, spec.temperature, ctx))
    return {
        "reward_model_score": reward,
        "kl_to_sft": kl,
        "kl_is_bound": "kl_bound" in inputs["outputs"].facts,
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
