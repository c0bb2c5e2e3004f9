"""Binary reward conditioning: the policy learns the chosen response of each pair after one control token and
the rejected one after another, and is then asked with the first (Dubois et al. 2023, supplement; after Keskar
et al. 2019, arXiv:1909.05858). The release has weights and no script."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from alpacafarm.data.rows import read_rows
from alpacafarm.errors import SpecError
from alpacafarm.ports import Context, Inputs, Upstream
from alpacafarm.spec.method import MethodSpec, OptimSpec
from alpacafarm.stage import Kind, Stage
from alpacafarm.text.control import BAD, GOOD
from alpacafarm.types import Preference

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from alpacafarm.text.collate import Tokens
    from alpacafarm.training.pairs import TokenPairs


class Spec(MethodSpec):
    """`epochs` over both responses of every pair, from the SFT model; `optim.batch_size` counts responses."""

    epochs: int = Field(ge=1)
    optim: OptimSpec

    @property
    def control_tokens(self) -> tuple[str, ...]:
        return GOOD, BAD


def plan(spec: Spec, up: Upstream) -> Stage:
    return up.stage(
        spec.name,
        "alpacafarm.methods.reward_condition:train",
        spec,
        makes=Kind.POLICY,
        inputs={"init": up.sft(), "pairs": up.preferences()},
    )


def train(spec: Spec, inputs: Inputs, ctx: Context) -> None:
    """Supervised fine-tuning on both sides. Ties have no better side: they are counted and left out."""
    from alpacafarm.methods.sft import negative_log_likelihood, token_steps
    from alpacafarm.training.offline import fit
    from alpacafarm.training.pairs import tokenised

    tokenizer = ctx.tokenizer(inputs["init"], spec.control_tokens)
    judged = read_rows(inputs["pairs"].path / "pairs.jsonl", Preference)
    decided = [pair for pair in judged if not pair.is_tie]
    if not decided:
        raise SpecError(
            f"method={spec.name} needs pairs with a better side, and all of the {len(judged)} judged ones "
            "are ties; choose another judge or give other pairs"
        )
    pairs = tokenised(decided, tokenizer, ctx, purpose="reward conditioning", room=1)
    ctx.record(ties=len(judged) - len(decided), prompt_prefix=GOOD)
    policy = ctx.trainable(inputs["init"], spec.optim, control_tokens=spec.control_tokens)
    rows = conditioned(pairs, tokenizer)
    steps = token_steps(rows, spec.epochs, spec.optim, tokenizer.pad_token_id, ctx)
    fit(policy, steps, negative_log_likelihood(policy), optim=spec.optim, ctx=ctx, label=spec.name)
    policy.export(ctx.out / "model")


def conditioned(pairs: TokenPairs, tokenizer: PreTrainedTokenizerBase) -> list[Tokens]:
    """Every chosen response to its prompt with the good token, then every rejected one with the bad one."""
    from alpacafarm.text.collate import Tokens
    from alpacafarm.text.tokenise import with_prefix

    sides = list(zip(pairs.first, pairs.second, pairs.rows, strict=True))
    chosen = [two if pair.is_second_better else one for one, two, pair in sides]
    rejected = [one if pair.is_second_better else two for one, two, pair in sides]
    rows = []
    for token, side in ((GOOD, chosen), (BAD, rejected)):
        prompts = with_prefix(tokenizer, [row.prompt for row in side], token)
        rows += [Tokens(prompt, row.response) for prompt, row in zip(prompts, side, strict=True)]
    return rows
