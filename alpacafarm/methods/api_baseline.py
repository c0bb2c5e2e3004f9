"""A model behind an API answers the evaluation instructions: GPT-4 and ChatGPT in table 2 of Dubois et al.
2023 (examples/oai_baselines.py). Nothing is trained."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, Literal

from pydantic import Field, model_validator

from alpacafarm.api.cost import bill_of
from alpacafarm.data.rows import read_rows, write_outputs
from alpacafarm.errors import JudgeError
from alpacafarm.ports import Context, Inputs, Upstream
from alpacafarm.request import Answer, Failure, Request
from alpacafarm.spec.base import Problem, Strict, refuse
from alpacafarm.spec.data import Split
from alpacafarm.spec.method import MethodSpec
from alpacafarm.spec.model import Sampling
from alpacafarm.stage import Kind, Stage
from alpacafarm.text.prompts import prompt
from alpacafarm.types import Example, Output


class AskSpec(Strict):
    """Which model answers, and how it is asked.

    `chat`: the instruction is one user turn, under `system` where there is one. `completion`: it is completed
    as a plain text, as models before ChatGPT are used. `template`: `alpaca`, the text that the trained
    policies read, or `plain`, the instruction and its input alone. `no_answer`: what to do with an
    instruction that gets none, because a filter refuses it for example.
    """

    api_model: str = Field(min_length=1)  # as its endpoint names it
    interface: Literal["chat", "completion"]
    system: str | None
    template: Literal["alpaca", "plain"]
    sampling: Sampling
    no_answer: Literal["stop", "empty"]


class Spec(MethodSpec, AskSpec):
    """One answer to each instruction of `split`."""

    split: Split

    @model_validator(mode="after")
    def the_api_takes_it(self) -> Spec:
        problems: list[Problem] = []
        if self.sampling.top_k:
            text = "the API has no such parameter; set .sampling.top_k=0"
            problems.append(Problem("sampling.top_k", self.sampling.top_k, text))
        if self.system is not None and self.interface == "completion":
            text = "a completion has no system message; set .system=null or .interface=chat"
            problems.append(Problem("system", self.system, text))
        if problems:
            refuse(*problems)
        return self


def plan(spec: Spec, up: Upstream) -> Stage:
    how = AskSpec.model_validate(spec.canonical(exclude={"name", "module", "split"}))
    (empty,) = requests(how, [Example("", "")], seed=0)
    rows = up.row_count(spec.split)
    return up.stage(
        "ask",
        "alpacafarm.methods.api_baseline:ask",
        how,
        makes=Kind.OUTPUTS,
        inputs={"rows": up.rows(spec.split)},
        uses_model=False,
        bill=bill_of(empty, up, rows=rows, share=1, more_tokens=up.prompt_tokens, what="answers"),
    )


def ask(spec: AskSpec, inputs: Inputs, ctx: Context) -> None:
    """Writes `outputs.json` in row order. JudgeError where an instruction has no answer and that is to stop
    it; the others' answers are kept."""
    rows = read_rows(inputs["rows"].path / "rows.jsonl", Example)
    found = answered(spec, rows, ctx)
    failed = {rows[place].id: came for place, came in found.items() if isinstance(came, Failure)}
    ctx.record(failed=len(failed), failures=dict(Counter(came.kind for came in failed.values())))
    if failed and spec.no_answer == "stop":
        row_id, first = next(iter(failed.items()))
        raise JudgeError(
            f"{spec.api_model} gave no answer to {len(failed)} of {len(rows)} instructions; {row_id}: "
            f"{first.kind}: {first.message}; the same command asks for these again, and "
            "method.no_answer=empty takes an empty answer for them"
        )
    write_outputs(ctx.out / "outputs.json", [output(spec, row, found[i]) for i, row in enumerate(rows)])


def answered(spec: AskSpec, rows: Sequence[Example], ctx: Context) -> dict[int, Answer | Failure]:
    found: dict[int, Answer | Failure] = {}
    with ctx.progress(len(rows), f"ask {spec.api_model}") as bar:
        for place, came in ctx.asker(spec.api_model).ask(requests(spec, rows, ctx.seed)):
            found[place] = came
            bar.advance(len(found))
    ctx.spend(
        judge_calls=sum(came.calls for came in found.values()),
        price_usd=sum(came.price_usd for came in found.values()),
    )
    return found


def requests(spec: AskSpec, rows: Sequence[Example], seed: int) -> Iterator[Request]:
    """Another seed draws other answers."""
    parameters: dict[str, Any] = {
        "temperature": spec.sampling.temperature,
        "max_tokens": spec.sampling.max_new_tokens,
    }
    if spec.sampling.top_p < 1:
        parameters["top_p"] = spec.sampling.top_p
    for row in rows:
        text = asked(spec, row)
        if spec.interface == "completion":
            yield Request(spec.api_model, prompt=text, parameters=parameters, sample=seed)
            continue
        system = [{"role": "system", "content": spec.system}] if spec.system else []
        messages = [*system, {"role": "user", "content": text}]
        yield Request(spec.api_model, messages, parameters=parameters, sample=seed)


def asked(spec: AskSpec, row: Example) -> str:
    if spec.template == "alpaca":
        return prompt("alpaca", row.instruction, row.input).text
    return f"{row.instruction}\n\n{row.input}" if row.input.strip() else row.instruction


def output(spec: AskSpec, row: Example, came: Answer | Failure) -> Output:
    answer = came if isinstance(came, Answer) else Answer("")
    return Output(
        id=row.id,
        instruction=row.instruction,
        input=row.input,
        output=answer.text.strip(),
        generator=spec.api_model,
        dataset=row.dataset,
        ended=answer.finish_reason != "length",
        tokens=answer.tokens_out,
    )
