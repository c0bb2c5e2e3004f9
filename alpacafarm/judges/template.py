"""Prompts of judges: a text with ChatML messages and places for the pair, filled in one pass.

What fills a place is made harmless for that template (`alpacafarm.judges.harmless`): it cannot open another
message, end its own field or start another one, and a placeholder inside it stays what it is.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from alpacafarm.judges import harmless

FIELDS = ("instruction", "input", "output_1", "output_2")
PLACE = re.compile("{(" + "|".join(FIELDS) + ")}")
MESSAGE = re.compile(r"<\|im_start\|>([^\n]*)\n(.*?)<\|im_end\|>", re.DOTALL)
ROLE = re.compile(r"\s*\w+(\s+\w+=[^\s{}]+)*\s*")
QUOTES = '"""'

Shown = Mapping[str, str]  # a text for each of FIELDS


@dataclass(frozen=True)
class Template:
    """`text` as its file has it. Without ChatML it is one message, or the prompt of a model without chat."""

    text: str

    def __post_init__(self) -> None:
        counts = {name: self.text.count(f"{{{name}}}") for name in FIELDS}
        needed = {counts["instruction"], counts["output_1"], counts["output_2"]}
        if len(needed) > 1 or not min(needed) or counts["input"] not in (0, *needed):
            told = ", ".join(f"{{{name}}} {count} times" for name, count in counts.items())
            raise ValueError(
                f"it has {told}; it needs {{instruction}}, {{output_1}} and {{output_2}} equally often, at "
                "least once"
            )
        if self.is_chat and MESSAGE.sub("", self.text).strip():
            raise ValueError("there is text outside of <|im_start|>role ... <|im_end|>; move it inside")

        for role, _ in MESSAGE.findall(self.text):
            if not ROLE.fullmatch(role):
                raise ValueError(
                    f"<|im_start|>{role} is no role; write <|im_start|>user, or a role with keys behind it "
                    "such as <|im_start|>system name=example_user"
                )

    @property
    def is_chat(self) -> bool:
        return "<|im_start|>" in self.text or "<|im_end|>" in self.text

    @property
    def pairs(self) -> int:
        """How many pairs one prompt asks about."""
        return self.text.count("{output_1}")

    @property
    def has_input(self) -> bool:
        """Whether the input has a place of its own."""
        return "{input}" in self.text

    @cached_property
    def marks(self) -> list[str]:
        """Lines, or parts of lines, that structure the prompt."""
        lines = [line for body in self._bodies for line in body.split("\n") if line.strip()]
        fields = [i for i, line in enumerate(lines) if PLACE.search(line)]
        beside = {j for i in fields for j in (i - 1, i, i + 1) if 0 <= j < len(lines)}
        found = []
        for i, line in enumerate(lines):
            for part in (re.sub(r"\s+", " ", part).strip() for part in PLACE.split(line)[::2]):
                if len(harmless.words(part)) and (i in beside or harmless.HEADING.match(part)):
                    found.append(part)
        return list(dict.fromkeys(found))

    def messages(self, shown: Sequence[Shown]) -> list[dict[str, str]]:
        """One dictionary for each ChatML message, with the texts of as many pairs as there are places for."""
        found = MESSAGE.findall(self.text) if self.is_chat else [("user", self.text)]
        texts = self._filled([body.strip() for _, body in found], shown)
        return [{**_speaker(role), "content": text} for (role, _), text in zip(found, texts, strict=True)]

    def prompt(self, shown: Sequence[Shown]) -> str:
        """The whole as one text, for a model without chat."""
        return self._filled([self.text.strip()], shown)[0]

    def _filled(self, bodies: Sequence[str], shown: Sequence[Shown]) -> list[str]:
        if len(shown) != self.pairs:
            raise ValueError(f"{len(shown)} pairs for {self.pairs} places")
        left = {name: iter(shown) for name in FIELDS}

        def fill(place: re.Match[str]) -> str:
            name, around = place[1], place.string
            is_quoted = around[: place.start()].endswith(QUOTES) and around[place.end() :].startswith(QUOTES)
            return self.protected(next(left[name])[name], is_quoted=is_quoted)

        return [PLACE.sub(fill, body) for body in bodies]

    def protected(self, text: str, *, is_quoted: bool) -> str:
        """`text` without what this template could be mistaken by."""
        text = harmless.CHAT_TOKENS.sub(harmless.broken, harmless.readable(text))
        text = self._marks.broken(text)
        return harmless.without_triple_quotes(text) if is_quoted else self._marks.quoted(text)

    @cached_property
    def _marks(self) -> harmless.Marks:
        return harmless.Marks(self.marks)

    @property
    def _bodies(self) -> list[str]:
        return [body for _, body in MESSAGE.findall(self.text)] if self.is_chat else [self.text]


def _speaker(role: str) -> dict[str, str]:
    """`system name=example_user` is a role with further keys, as OpenAI's ChatML has it."""
    name, *others = role.split()
    return {"role": name, **dict(other.split("=", 1) for other in others)}
