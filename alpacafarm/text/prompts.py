"""How an instruction becomes a prompt. Strings only, and the tokenizer's chat template where that is the
style.

`alpaca` is the pair of templates of Stanford Alpaca (Taori et al. 2023), as AlpacaFarm uses them. `short`
costs a tiny model few tokens. `chat` is one user turn in the tokenizer's own template.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from alpacafarm.spec.model import PromptStyle

ALPACA_WITH_INPUT = (
    "Below is an instruction that describes a task, paired with an input that provides further context. "
    "Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:"
)
ALPACA_WITHOUT_INPUT = (
    "Below is an instruction that describes a task. "
    "Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n### Response:"
)
SHORT_WITH_INPUT = "Instruction: {instruction}\nInput: {input}\nAnswer:"
SHORT_WITHOUT_INPUT = "Instruction: {instruction}\nAnswer:"
STAND_IN = "THE WORDS OF THE USER"
# Of what transformers offers to templates. The date is the one that Llama 3.2's has where there is no clock.
TODAY = "{%- macro strftime_now(format) -%}26 Jul 2024{%- endmacro -%}"


@dataclass(frozen=True)
class Prompt:
    """A prompt in three parts. Special tokens are read in `head` and `tail`; `body` holds the user's words
    and is plain text whatever it says."""

    head: str
    body: str
    tail: str

    @property
    def text(self) -> str:
        return self.head + self.body + self.tail


def prompt(style: PromptStyle, instruction: str, input: str, tokenizer: Any = None) -> Prompt:
    """The prompt up to where the response begins. `chat` needs the tokenizer; a blank input counts as
    none."""
    if style == "chat":
        return _chat(tokenizer, f"{instruction}\n\n{input}" if input.strip() else instruction)
    with_input, without_input = {
        "alpaca": (ALPACA_WITH_INPUT, ALPACA_WITHOUT_INPUT),
        "short": (SHORT_WITH_INPUT, SHORT_WITHOUT_INPUT),
    }[style]
    template = with_input if input.strip() else without_input
    return Prompt("", template.format(instruction=instruction, input=input), "")


def _chat(tokenizer: Any, words: str) -> Prompt:
    """One user turn and the opening of the answer, cut where the template's special tokens end and begin.

    The template is rendered around a stand-in to find where the user's words go, then around the words
    themselves, since templates may trim them.
    """
    if tokenizer.chat_template is None:
        raise ValueError(
            "model.prompt=chat needs a tokenizer with a chat template, and this one has none; "
            "set model.prompt to alpaca or short, or model.path to a chat model"
        )
    before, found, after = _render(tokenizer, STAND_IN).partition(STAND_IN)
    rendered = _render(tokenizer, words)
    if not (found and rendered.startswith(before) and rendered.endswith(after)):
        raise ValueError(
            "model.prompt=chat: the tokenizer's chat template does not put the user's words in one place; "
            "set model.prompt to alpaca or short"
        )
    # Not `all_special_tokens`, which leaves out those that have no role; Llama 3's headers are such.
    specials = [token.content for token in tokenizer.added_tokens_decoder.values() if token.special]
    body_start = max((before.rfind(s) + len(s) for s in specials if s in before), default=0)
    body_end = min((after.find(s) for s in specials if s in after), default=len(after))
    tail_start = len(rendered) - len(after) + body_end
    return Prompt(rendered[:body_start], rendered[body_start:tail_start], rendered[tail_start:])


def _render(tokenizer: Any, words: str) -> str:
    return templated(tokenizer, [{"role": "user", "content": words}])


def templated(tokenizer: Any, turns: Sequence[Mapping[str, str]]) -> str:
    """Turns in the tokenizer's chat template, up to where the answer begins.

    A template that tells today's date is told a fixed one: a run asks the same on every day.
    """
    template = TODAY + tokenizer.chat_template
    return str(
        tokenizer.apply_chat_template(
            list(turns), tokenize=False, add_generation_prompt=True, chat_template=template
        )
    )
