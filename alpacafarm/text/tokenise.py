"""Text to token ids and back.

The user's words are plain text: a `</s>` in an instruction or in an answer becomes the tokens of its
characters, never the end token. Prompt and response are encoded apart, so that the same prompt has the same
tokens with any response. Sampled ids are kept as they are; nothing decodes and encodes them again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from alpacafarm.spec.model import PromptStyle
from alpacafarm.text.collate import Tokens
from alpacafarm.text.prompts import prompt
from alpacafarm.types import Example

if TYPE_CHECKING:  # the tokenizer comes as an argument; importing transformers takes seconds
    from transformers import PreTrainedTokenizerBase

Ids = tuple[int, ...]
PROMPT_TAIL = 16  # tokens at a shortened prompt's end, which hold the opening of the answer in every style


def encode_prompt(
    tokenizer: PreTrainedTokenizerBase,
    style: PromptStyle,
    instruction: str,
    input: str = "",
    *,
    prefix: str = "",
) -> Ids:
    """`encode_prompts` of one."""
    return encode_prompts(tokenizer, style, [(instruction, input)], prefix=prefix)[0]


def encode_prompts(
    tokenizer: PreTrainedTokenizerBase,
    style: PromptStyle,
    asked: Iterable[tuple[str, str]],
    *,
    prefix: str = "",
) -> list[Ids]:
    """Prompts of (instruction, input).

    The start token comes once, first, if the tokenizer puts one; in the `chat` style the template decides.
    `prefix` follows it, see `with_prefix`.
    """
    prompts = [prompt(style, instruction, input, tokenizer) for instruction, input in asked]
    structure = {
        text: structure_ids(tokenizer, text) for text in {t for p in prompts for t in (p.head, p.tail)}
    }
    start = () if style == "chat" else start_ids(tokenizer)
    bodies = plain_ids(tokenizer, [p.body for p in prompts])
    whole = [
        start + structure[p.head] + body + structure[p.tail] for p, body in zip(prompts, bodies, strict=True)
    ]
    return with_prefix(tokenizer, whole, prefix)


def with_prefix(tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Ids], prefix: str) -> list[Ids]:
    """Each prompt `prefixed`. The prefix is ours, not the user's: special tokens in it are read as such."""
    ahead = structure_ids(tokenizer, prefix)
    return [prefixed(prompt, ahead, tokenizer.bos_token_id) for prompt in prompts]


def prefixed(prompt: Ids, prefix: Ids, bos_id: int | None) -> Ids:
    """The prompt with control tokens after its start token, or first where it has none."""
    cut = 1 if prompt and prompt[0] == bos_id else 0
    return prompt[:cut] + prefix + prompt[cut:]


def encode_response(tokenizer: PreTrainedTokenizerBase, text: str, *, ended: bool = True) -> Ids:
    """`encode_responses` of one."""
    return encode_responses(tokenizer, [text], ended=[ended])[0]


def encode_responses(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], *, ended: Sequence[bool] | None = None
) -> list[Ids]:
    """Responses, each with the end token, or without where `ended` is false."""
    end = (tokenizer.eos_token_id,)
    assert isinstance(end[0], int), "a tokenizer needs an end token"
    ends = ended if ended is not None else [True] * len(texts)
    return [
        ids + end if has_ended else ids
        for ids, has_ended in zip(plain_ids(tokenizer, texts), ends, strict=True)
    ]


def encode_rows(
    tokenizer: PreTrainedTokenizerBase, style: PromptStyle, examples: Sequence[Example], *, prefix: str = ""
) -> list[Tokens]:
    """Prompt and demonstrated answer of each example."""
    prompts = encode_prompts(tokenizer, style, [(e.instruction, e.input) for e in examples], prefix=prefix)
    responses = encode_responses(tokenizer, [e.output for e in examples])
    return [Tokens(p, r) for p, r in zip(prompts, responses, strict=True)]


def decode_response(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
    """`decode_responses` of one."""
    return decode_responses(tokenizer, [ids])[0]


def decode_responses(tokenizer: PreTrainedTokenizerBase, rows: Sequence[Sequence[int]]) -> list[str]:
    """Texts without special tokens and without one leading space, otherwise as the model wrote them."""
    texts = tokenizer.batch_decode(
        [list(row) for row in rows], skip_special_tokens=True, clean_up_tokenization_spaces=False
    )
    return [text.removeprefix(" ") for text in texts]


@dataclass(frozen=True)
class Fitted:
    """Rows within the model's token limits, and what it took. `kept` are the indices of `rows` in what came
    in."""

    rows: list[Tokens]
    kept: list[int]
    too_long_prompts: int
    truncated_responses: int


def fit(rows: Sequence[Tokens], *, max_prompt_tokens: int, max_response_tokens: int) -> Fitted:
    """Drops rows whose prompt is too long, since half a prompt asks something else. Cuts responses that are
    too long; they lose their end token, as a sampled response that met the limit has none."""
    kept = [i for i, row in enumerate(rows) if len(row.prompt) <= max_prompt_tokens]
    return Fitted(
        rows=[Tokens(rows[i].prompt, rows[i].response[:max_response_tokens]) for i in kept],
        kept=kept,
        too_long_prompts=len(rows) - len(kept),
        truncated_responses=sum(len(rows[i].response) > max_response_tokens for i in kept),
    )


def shorten(prompt: Ids, limit: int) -> Ids:
    """A prompt of at most `limit` tokens. The middle is cut: the beginning and the answer's opening stay."""
    if len(prompt) <= limit:
        return prompt
    tail = min(PROMPT_TAIL, limit // 2)
    return prompt[: limit - tail] + prompt[len(prompt) - tail :]


def start_ids(tokenizer: PreTrainedTokenizerBase) -> Ids:
    """The start token, if the tokenizer puts one before a text; GPT-2 names one and does not."""
    ids = tokenizer("a")["input_ids"]
    return (ids[0],) if ids[0] == tokenizer.bos_token_id else ()


def plain_ids(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[Ids]:
    """Texts as what they say: a special token in them is the tokens of its characters."""
    if not texts:  # the fast tokenizer refuses an empty batch
        return []
    encoded = tokenizer(
        list(texts),
        add_special_tokens=False,
        split_special_tokens=True,
        return_attention_mask=False,
        return_token_type_ids=False,
        verbose=False,  # `fit` counts what is too long
    )
    return [tuple(ids) for ids in encoded["input_ids"]]


def structure_ids(tokenizer: PreTrainedTokenizerBase, text: str) -> Ids:
    """A text of ours, such as a template's: special tokens in it are read as such."""
    if not text:
        return ()
    return tuple(tokenizer(text, add_special_tokens=False, split_special_tokens=False)["input_ids"])
