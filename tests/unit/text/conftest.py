"""Tokenizers of the three ways a text may begin: with a start token, without one, and with a chat
template."""

import pytest
from transformers import AddedToken, PreTrainedTokenizerFast

from alpacafarm.text.train_tokenizer import train_tokenizer

TEXTS = [
    "Instruction: name the sum of two and three\nAnswer: five",
    "### Input:\nthe cat sat\n\n### Response:",
] * 9

# ChatML, as Qwen2 has it
CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] | trim"
    " + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


@pytest.fixture
def tokenizer() -> PreTrainedTokenizerFast:
    return train_tokenizer(TEXTS, 400)


@pytest.fixture
def without_start(tokenizer) -> PreTrainedTokenizerFast:
    """Like GPT-2's: it has a start token and does not put it."""
    from tokenizers.processors import ByteLevel

    tokenizer.backend_tokenizer.post_processor = ByteLevel(trim_offsets=False)
    return tokenizer


@pytest.fixture
def chat(without_start) -> PreTrainedTokenizerFast:
    markers = [AddedToken(text, special=True, normalized=False) for text in ("<|im_start|>", "<|im_end|>")]
    without_start.add_tokens(markers, special_tokens=True)
    without_start.chat_template = CHATML
    return without_start
