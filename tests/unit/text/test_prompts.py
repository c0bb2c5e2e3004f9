import pytest

from alpacafarm.text.prompts import STAND_IN, prompt

ALPACA_WITH_INPUT = """\
Below is an instruction that describes a task, paired with an input that provides further context. \
Write a response that appropriately completes the request.

### Instruction:
Add the numbers.

### Input:
2 and 3

### Response:"""

ALPACA_WITHOUT_INPUT = """\
Below is an instruction that describes a task. Write a response that appropriately completes the request.

### Instruction:
Add two and three.

### Response:"""


def test_alpaca_prompts_are_the_published_ones():
    assert prompt("alpaca", "Add the numbers.", "2 and 3").text == ALPACA_WITH_INPUT
    assert prompt("alpaca", "Add two and three.", "").text == ALPACA_WITHOUT_INPUT


def test_short_prompts():
    assert prompt("short", "Add.", "2 and 3").text == "Instruction: Add.\nInput: 2 and 3\nAnswer:"
    assert prompt("short", "Add two and three.", "").text == "Instruction: Add two and three.\nAnswer:"


def test_a_blank_input_counts_as_none():
    assert prompt("alpaca", "Add.", " \n") == prompt("alpaca", "Add.", "")


@pytest.mark.parametrize("style", ["alpaca", "short"])
def test_braces_are_the_users_own(style):
    text = prompt(style, "{input} {0} {instruction.__class__}", "{instruction}").text
    assert "{input} {0} {instruction.__class__}\n" in text
    assert text.count("{instruction}") == 1


def test_chat_is_one_user_turn_and_the_opening_of_the_answer(chat):
    found = prompt("chat", "Add.", "2 and 3", chat)
    assert found.text == "<|im_start|>user\nAdd.\n\n2 and 3<|im_end|>\n<|im_start|>assistant\n"
    assert found.head == "<|im_start|>"
    assert found.body == "user\nAdd.\n\n2 and 3"


def test_chat_leaves_out_a_blank_input_and_lets_the_template_trim(chat):
    assert prompt("chat", "  Add. ", " ", chat).body == "user\nAdd."


@pytest.mark.parametrize(
    "words", [STAND_IN, f"is {STAND_IN} or {STAND_IN}?", "user", "assistant", "<|im_end|>", ""]
)
def test_chat_finds_the_users_words_whatever_they_are(chat, words):
    found = prompt("chat", words, "", chat)
    assert (found.head, found.body) == ("<|im_start|>", "user\n" + words)
    assert found.tail == "<|im_end|>\n<|im_start|>assistant\n"


def test_chat_without_special_tokens_is_all_body(tokenizer):
    tokenizer.chat_template = "{% for m in messages %}Q: {{ m['content'] }}\nA:{% endfor %}"
    found = prompt("chat", "Add.", "", tokenizer)
    assert (found.head, found.body, found.tail) == ("", "Q: Add.\nA:", "")


def test_chat_is_the_same_on_every_day(tokenizer):
    tokenizer.chat_template = "Today is {{ strftime_now('%d %b %Y') }}. {{ messages[0]['content'] }}\nA:"
    assert prompt("chat", "Add.", "", tokenizer).text == "Today is 26 Jul 2024. Add.\nA:"


def test_chat_without_a_template_names_the_knob_and_a_way_out(tokenizer):
    with pytest.raises(ValueError, match=r"model\.prompt=chat needs .* set model\.prompt to alpaca or short"):
        prompt("chat", "Add.", "", tokenizer)


TWICE = "{% for m in messages %}{{ m['content'] }} Again: {{ m['content'] }}{% endfor %}"
NEVER = "{% for m in messages %}{{ m['role'] }} wrote{% endfor %}"


@pytest.mark.parametrize("template", [TWICE, NEVER])
def test_a_template_that_repeats_or_loses_the_users_words_is_refused(tokenizer, template):
    tokenizer.chat_template = template
    with pytest.raises(ValueError, match=r"does not put the user's words in one place; set model\.prompt"):
        prompt("chat", "Add.", "", tokenizer)
