"""Control tokens: special tokens of our own that stand before a prompt and say how to answer it.

A policy learns what they mean, reads them, and never says them. They come after every other token of its
vocabulary, so that no other id moves, and the tokenizer's own files say which they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

RECORD = "control_tokens"  # a key of tokenizer_config.json

GOOD, BAD = "<good>", "<bad>"


def reward_token(quantile: int) -> str:
    """Stands before what is in this quantile of the rewards; 0 is the best."""
    return f"<reward_{quantile}>"


def add_control_tokens(tokenizer: PreTrainedTokenizerBase, tokens: Sequence[str]) -> None:
    """Puts at the tokenizer's end those of `tokens` that it lacks; one that it has is used as it is."""
    from transformers import AddedToken

    vocabulary = tokenizer.get_vocab()
    new = [AddedToken(text, special=True, normalized=False) for text in tokens if text not in vocabulary]
    if new:
        tokenizer.add_tokens(new, special_tokens=True)
    tokenizer.init_kwargs[RECORD] = list(dict.fromkeys([*control_tokens(tokenizer), *tokens]))


def control_tokens(tokenizer: PreTrainedTokenizerBase) -> tuple[str, ...]:
    return tuple(tokenizer.init_kwargs.get(RECORD, ()))


def control_ids(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Sorted; empty where there are none."""
    vocabulary = tokenizer.get_vocab()
    return sorted(vocabulary[text] for text in control_tokens(tokenizer))


def spoken_vocabulary(tokenizer: PreTrainedTokenizerBase) -> dict[str, int]:
    """What can stand in a response: every token but the control tokens."""
    unspoken = set(control_tokens(tokenizer))
    return {text: i for text, i in tokenizer.get_vocab().items() if text not in unspoken}
