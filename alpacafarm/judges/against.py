"""A judge's verdicts on a model's outputs, each against the baselines of its row: what an evaluation asks.

Asking a judge behind an API is a stage of its own, which holds no device while it waits for answers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from alpacafarm.data.annotations import failure_counts
from alpacafarm.data.rows import read_outputs, read_rows, write_rows
from alpacafarm.errors import JudgeError
from alpacafarm.ports import Artifact, Context, Inputs, Judge
from alpacafarm.spec.base import Strict
from alpacafarm.spec.judge import JudgeSpec
from alpacafarm.types import Example, Output, Pair, Verdict

Told = Sequence[tuple[Pair, Verdict]]
Baselines = Mapping[str, Sequence[str]]  # texts by row
REFERENCES, SFT = "references.jsonl", "sft.jsonl"


class AskSpec(Strict):
    sft_draws: int
    judge: JudgeSpec


@dataclass(frozen=True)
class Answers:
    """What is judged: a row's output, by the row's id, against its reference and the SFT model's `draws`.

    `null` is the SFT model's redraw that stands as the null candidate. Without such a model both are empty.
    """

    rows: Sequence[Example]
    outputs: Mapping[str, Output]
    draws: Baselines
    null: Mapping[str, str]

    @property
    def references(self) -> Baselines:
        return {row.id: [row.output] for row in self.rows}

    @property
    def candidates(self) -> dict[str, str]:
        return {row_id: output.output for row_id, output in self.outputs.items()}

    def against(self, baselines: Baselines) -> list[Pair]:
        """Output 1 is always the baseline. Where there are any, every row must have some."""
        return [
            Pair(row.id, row.instruction, row.input, baseline, self.outputs[row.id].output)
            for row in self.rows
            if baselines
            for baseline in baselines[row.id]
        ]


@dataclass(frozen=True)
class Judged:
    """By the judge called `judge`, against the references and against the SFT model's draws."""

    judge: str
    references: Told
    sft: Told


def read_answers(inputs: Inputs, sft_draws: int) -> Answers:
    """Rows are joined by id; an output without a reference, or the reverse, is an error."""
    rows = read_rows(inputs["rows"].path / "rows.jsonl", Example)
    outputs = {o.id: o for o in read_outputs(inputs["outputs"].path / "outputs.json")}
    if set(outputs) != {row.id for row in rows} or len(outputs) != len(rows):
        raise ValueError(f"{len(outputs)} outputs do not match {len(rows)} evaluation rows")
    draws: dict[str, list[str]] = {}
    null: dict[str, str] = {}
    if "sft_outputs" in inputs:
        for output in read_outputs(inputs["sft_outputs"].path / "outputs.json"):
            if output.sample < sft_draws:
                draws.setdefault(output.id, []).append(output.output)
            else:
                null[output.id] = output.output
    return Answers(rows, outputs, draws, null)


def ask(spec: AskSpec, inputs: Inputs, ctx: Context) -> None:
    """Writes the verdicts, in the order of the pairs, for `read_judged`."""
    found = judged(spec.judge, read_answers(inputs, spec.sft_draws), inputs, ctx)
    if ctx.dist.rank == 0:
        write_rows(ctx.out / REFERENCES, (verdict for _, verdict in found.references))
        write_rows(ctx.out / SFT, (verdict for _, verdict in found.sft))
    ctx.record(judge=found.judge)


def read_judged(artifact: Artifact, answers: Answers) -> Judged:
    """What `ask` wrote of the same answers."""

    def told(name: str, baselines: Baselines) -> Told:
        return list(zip(answers.against(baselines), read_rows(artifact.path / name, Verdict), strict=True))

    return Judged(artifact.facts["judge"], told(REFERENCES, answers.references), told(SFT, answers.draws))


def judged(spec: JudgeSpec, answers: Answers, inputs: Inputs, ctx: Context) -> Judged:
    """Asks the judge. JudgeError where it knows nothing of any reference: there is no rate then."""
    judge = ctx.judge(spec, inputs)
    references = verdicts(judge, answers.against(answers.references), ctx)
    if all(verdict.preference is None for _, verdict in references):
        kinds = ", ".join(f"{count} {kind}" for kind, count in failures(references).items())
        raise JudgeError(
            f"the judge {judge.name} gave no verdict on any of the {len(references)} rows ({kinds}); "
            "choose another eval/judge, or a file that holds these pairs"
        )
    return Judged(judge.name, references, verdicts(judge, answers.against(answers.draws), ctx))


def verdicts(judge: Judge, pairs: Sequence[Pair], ctx: Context) -> Told:
    found = judge.compare(pairs) if pairs else []
    ctx.spend(judge_calls=sum(v.calls for v in found), price_usd=sum(v.price_usd for v in found))
    return list(zip(pairs, found, strict=True))


def failures(told: Told) -> dict[str, int]:
    return failure_counts(
        verdict.failure or "no verdict" for _, verdict in told if verdict.preference is None
    )
