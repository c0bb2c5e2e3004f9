"""A judge that can be fooled. It takes a prompt apart by the marks of its template, reading as leniently as a
model might, prefers the answer that says `good` more often, and says the opposite where anything but what the
prompt's author wrote stands outside of the answers."""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from alpacafarm.request import Request

TOKEN = re.compile(
    r"<[|｜](?:im_start|im_end|eot_id|endoftext|User)[|｜]>|\[/?INST\]|</s>|<</?SYS>>|<end_of_turn>",  # noqa: RUF001
    re.IGNORECASE,
)
HEADED = re.compile(
    r"^[ \t]*(?:#+[^\n]*|\[[^\]\n]*\])[ \t]*$|^[ \t]*output \([ab]\):", re.MULTILINE | re.IGNORECASE
)


@dataclass(frozen=True)
class Gullible:
    """`quoted`: the template has its fields between triple quotes. Otherwise `titles` are the headings of the
    two answers, and the last of each counts."""

    template: str
    quoted: bool
    titles: tuple[str, str] = ("output a", "output b")

    def first_is_better(self, request: Request) -> bool:
        told = as_read(request.prompt or request.messages[-1]["content"])
        first, second = self.quoted_fields(told) if self.quoted else self.headed_fields(told)
        better = first.count("good") >= second.count("good")
        return better != (TOKEN.search(told) is not None or self.is_misled(told))

    def is_misled(self, text: str) -> bool:
        """Whether what stands outside of the fields is not what the template has there."""
        if self.quoted:  # with or without escapes, as it may read them
            return any(outside(one) != outside(self.own) for one in (text, text.replace('\\"', "")))
        marks = set(titles(self.own))
        found = [mark for mark in titles(text) if mark in marks]
        lines = {one_line(match[0]) for match in HEADED.finditer(self.own)}
        counts = [one_line(text).count(line) - one_line(self.own).count(line) for line in lines]
        return found != titles(self.own) or any(counts)

    @property
    def own(self) -> str:
        """The template's message that has the answers, with nothing in its places."""
        (body,) = (part for part in self.template.split("<|im_end|>") if "{output_1}" in part)
        return re.sub(r"{\w+}", "", as_read(body.partition("<|im_start|>user")[2] or body))

    def quoted_fields(self, text: str) -> Sequence[str]:
        parts = text.split('"""')
        return (*parts[3::2], "", "")[:2]

    def headed_fields(self, text: str) -> Sequence[str]:
        parts = dict(zip(titles(text), HEADED.split(text)[1:], strict=True))
        return [parts.get(title, "") for title in self.titles]


def as_read(text: str) -> str:
    """Without what is invisible, every line end a line feed, and wide characters narrow."""
    text = unicodedata.normalize("NFKC", re.sub("\r\n|[\r\v\f\x1c-\x1e\x85\u2028\u2029]", "\n", text))
    return "".join(c for c in text if c == "\n" or unicodedata.category(c) not in ("Cf", "Cc"))


def one_line(text: str) -> str:
    return " ".join(text.casefold().split())


def outside(text: str) -> list[str]:
    """What stands outside of triple quotes, word by word."""
    return " ".join(text.split('"""')[::2]).split()


def titles(text: str) -> list[str]:
    """The words of every line that looks like a heading."""
    return [" ".join(re.findall(r"\w+", match[0].casefold())) for match in HEADED.finditer(text)]
