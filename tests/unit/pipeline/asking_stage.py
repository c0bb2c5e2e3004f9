"""A stage that asks: what a judge does, without the judging."""

from alpacafarm.ports import Context, Inputs
from alpacafarm.request import Request
from alpacafarm.spec.base import Strict


class Spec(Strict):
    questions: int
    model: str


def ask(spec: Spec, inputs: Inputs, ctx: Context) -> None:
    requests = (
        Request(spec.model, [{"role": "user", "content": f"question {i}"}], parameters={"max_tokens": 10})
        for i in range(spec.questions)
    )
    texts = [""] * spec.questions
    for position, told in ctx.asker("annotator-7").ask(requests):
        texts[position] = getattr(told, "text", "")
        ctx.spend(judge_calls=told.calls, price_usd=told.price_usd)
    (ctx.out / "texts.txt").write_text("\n".join(texts))
