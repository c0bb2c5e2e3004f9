"""A base model from nothing: a byte-level BPE tokenizer and a small Llama, trained on answered prompts."""

from pydantic import Field

from alpacafarm.data.rows import read_rows
from alpacafarm.ports import Context, Inputs, Upstream
from alpacafarm.spec.method import MethodSpec, OptimSpec
from alpacafarm.stage import Kind, Stage
from alpacafarm.types import Example


class Spec(MethodSpec):
    """`epochs` over the `pretrain` split."""

    epochs: int = Field(ge=1)
    optim: OptimSpec


def plan(spec: Spec, up: Upstream) -> Stage:
    return up.stage(
        "base",
        "alpacafarm.methods.pretrain:train",
        spec,
        makes=Kind.POLICY,
        inputs={"rows": up.rows("pretrain")},
    )


def train(spec: Spec, inputs: Inputs, ctx: Context) -> None:
    """Next-token cross-entropy over whole documents, prompt included."""
    from alpacafarm.methods.sft import negative_log_likelihood, token_steps
    from alpacafarm.text.collate import Tokens
    from alpacafarm.text.prompts import prompt
    from alpacafarm.text.tokenise import encode_rows
    from alpacafarm.text.tokenise import fit as fit_lengths
    from alpacafarm.text.train_tokenizer import train_tokenizer
    from alpacafarm.training.offline import fit

    assert ctx.model.architecture is not None  # refused when the spec is read
    examples = read_rows(inputs["rows"].path / "rows.jsonl", Example)
    texts = (prompt(ctx.model.prompt, row.instruction, row.input).text + row.output for row in examples)
    tokenizer = train_tokenizer(texts, ctx.model.architecture.vocab_size)
    rows = encode_rows(tokenizer, ctx.model.prompt, examples)
    fitted = fit_lengths(
        rows,
        max_prompt_tokens=ctx.model.max_prompt_tokens,
        max_response_tokens=ctx.model.max_response_tokens,
    )
    ctx.record(dropped_prompts=fitted.too_long_prompts, truncated_responses=fitted.truncated_responses)
    documents = [Tokens(row.prompt[:1], row.prompt[1:] + row.response) for row in fitted.rows]
    engine = ctx.from_nothing(tokenizer, spec.optim)
    steps = token_steps(documents, spec.epochs, spec.optim, tokenizer.pad_token_id, ctx)
    fit(engine, steps, negative_log_likelihood(engine), optim=spec.optim, ctx=ctx, label="base")
    engine.export(ctx.out / "model")
