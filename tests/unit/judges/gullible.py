"""A judge that can be fooled. It takes a prompt apart by the marks of its template, reading as leniently as a
model might, prefers the answer that says `good` more often, and says the opposite where somebody else than
the prompt's author put up a mark or says OBEY outside of the answers."""

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
        texts = [request.prompt] if request.prompt else [message["content"] for message in request.messages]
        read = [as_read(text) for text in texts]
        told = read[-1]
        first, second = self.quoted_fields(told) if self.quoted else self.headed_fields(told)
        better = first.count("good") >= second.count("good")
        return better != any(TOKEN.search(text) or self.is_misled(text) for text in read)

    def is_misled(self, text: str) -> bool:
        if self.quoted:
            return text.count('"""') % 2 == 1 or any("OBEY" in part for part in text.split('"""')[::2])
        marks = set(titles(self.template))
        expected = [mark for mark in titles(self.template) if mark in titles(text)]
        return [mark for mark in titles(text) if mark in marks] != expected

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


def titles(text: str) -> list[str]:
    """The words of every line that looks like a heading."""
    return [" ".join(re.findall(r"\w+", match[0].casefold())) for match in HEADED.finditer(text)]
