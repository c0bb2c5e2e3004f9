"""Conversations to token ids: the template's special tokens are read as such, what is said is plain text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from alpacafarm.text.prompts import templated
from alpacafarm.text.tokenise import Ids, plain_ids, start_ids, structure_ids

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Messages = Sequence[Mapping[str, str]]
BETWEEN = "\n\n"  # messages, and before the answer, where the tokenizer has no template


def encode_conversation(tokenizer: PreTrainedTokenizerBase, messages: Messages) -> Ids:
    """Messages (role and content) and the opening of the answer, in the tokenizer's chat template.

    A tokenizer without one gets the contents as one text. What is said before the last user's turn goes into
    that turn where the template refuses it, as some do a system's message.
    """
    if tokenizer.chat_template is None:
        text = BETWEEN.join(message["content"] for message in messages) + BETWEEN
        return start_ids(tokenizer) + plain_ids(tokenizer, [text])[0]
    from jinja2 import TemplateError

    try:
        rendered = _rendered(tokenizer, messages)
    except TemplateError:
        whole = BETWEEN.join(message["content"] for message in messages)
        messages = [{"role": "user", "content": whole}]
        rendered = _rendered(tokenizer, messages)
    ids: Ids = ()
    for i, message in enumerate(messages):
        before, found, rendered = rendered.partition(_stand_in(i))
        if not found:
            raise ValueError(
                "the tokenizer's chat template leaves out or reorders messages; choose another model"
            )
        ids += structure_ids(tokenizer, before) + plain_ids(tokenizer, [message["content"]])[0]
    return ids + structure_ids(tokenizer, rendered)


def _rendered(tokenizer: PreTrainedTokenizerBase, messages: Messages) -> str:
    return templated(tokenizer, [{**message, "content": _stand_in(i)} for i, message in enumerate(messages)])


def _stand_in(place: int) -> str:
    return f"THE WORDS OF TURN {place}."
