"""Control tokens come last, are read as special, and are no part of what can be said."""

import pytest
from transformers import AutoTokenizer

from alpacafarm.text.control import (
    BAD,
    GOOD,
    add_control_tokens,
    control_ids,
    control_tokens,
    reward_token,
    spoken_vocabulary,
)
from alpacafarm.text.tokenise import decode_response, encode_prompt, encode_prompts, shorten, with_prefix
from tests.unit.text.conftest import TEXTS

START = 0
ASKED = [("Name the cat.", ""), ("Name the <good> dog.", "a dog")]


def test_they_come_last_and_move_no_other_id(tokenizer):
    before = dict(tokenizer.get_vocab())
    add_control_tokens(tokenizer, [GOOD, BAD])
    assert control_tokens(tokenizer) == (GOOD, BAD)
    assert control_ids(tokenizer) == [len(before), len(before) + 1]
    assert spoken_vocabulary(tokenizer) == before


def test_they_survive_the_tokenizers_folder(tokenizer, tmp_path):
    add_control_tokens(tokenizer, [GOOD, BAD])
    tokenizer.save_pretrained(str(tmp_path))
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert control_ids(loaded) == control_ids(tokenizer)
    assert spoken_vocabulary(loaded) == spoken_vocabulary(tokenizer)
    assert loaded.get_vocab() == tokenizer.get_vocab()


def test_those_that_are_there_are_used_as_they_are(tokenizer):
    add_control_tokens(tokenizer, [GOOD, BAD])
    ids = control_ids(tokenizer)
    add_control_tokens(tokenizer, [BAD, reward_token(0)])
    assert control_tokens(tokenizer) == (GOOD, BAD, "<reward_0>")
    assert control_ids(tokenizer) == [*ids, ids[-1] + 1]


def test_a_token_of_the_models_own_keeps_its_id(tokenizer):
    tokenizer.add_tokens([GOOD], special_tokens=True)
    size = len(tokenizer)
    add_control_tokens(tokenizer, [GOOD])
    assert (len(tokenizer), control_ids(tokenizer)) == (size, [size - 1])


def test_none_are_there_unless_added(tokenizer):
    assert control_tokens(tokenizer) == ()
    assert control_ids(tokenizer) == []
    assert spoken_vocabulary(tokenizer) == tokenizer.get_vocab()


def test_texts_are_encoded_and_decoded_as_before(tokenizer):
    hostile = [*TEXTS, f"say {GOOD} and {BAD}"]
    before = [encode_prompt(tokenizer, "short", text) for text in hostile]
    add_control_tokens(tokenizer, [GOOD, BAD])
    assert [encode_prompt(tokenizer, "short", text) for text in hostile] == before
    (good, _) = control_ids(tokenizer)
    five = tokenizer("five", add_special_tokens=False).input_ids
    assert decode_response(tokenizer, [good, *five]) == "five"


@pytest.mark.parametrize("style", ["short", "chat"])
def test_a_prefix_put_into_plain_prompts_is_that_of_encoding(tokenizer, chat, style):
    own = chat if style == "chat" else tokenizer
    add_control_tokens(own, [GOOD])
    plain = encode_prompts(own, style, ASKED)
    prefixed = encode_prompts(own, style, ASKED, prefix=GOOD)
    assert with_prefix(own, plain, GOOD) == prefixed
    for one, other in zip(plain, prefixed, strict=True):
        assert [i for i in other if i not in control_ids(own)] == list(one)
        assert other.index(control_ids(own)[0]) == (1 if one[0] == own.bos_token_id else 0)


def test_no_prefix_changes_nothing(tokenizer):
    plain = encode_prompts(tokenizer, "short", ASKED)
    assert with_prefix(tokenizer, plain, "") == plain


def test_a_shortened_prompt_keeps_its_prefix_after_the_start(tokenizer):
    add_control_tokens(tokenizer, [GOOD])
    (plain,) = encode_prompts(tokenizer, "short", [("word " * 99, "")])
    (asked,) = with_prefix(tokenizer, [shorten(plain, 20)], GOOD)
    assert asked[:2] == (START, *control_ids(tokenizer))
    assert len(asked) == 21
