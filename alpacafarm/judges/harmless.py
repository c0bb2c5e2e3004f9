"""Text that is judged is data: here it loses what could pass for a part of the prompt around it.

Ordinary text comes out as it went in. What is broken is broken in one way, by a backslash behind its first
character, so that a reader still sees what stood there:

- characters that are not to be seen, or that move the text around them, become U+FFFD or vanish;
- tokens that separate messages in the chat formats of language models (`<|im_start|>`, `[INST]`, ...);
- what the template itself uses as a mark: headings, tags, bracketed lines;
- inside triple quotes, three quotes in a row, or a last character that would join the closing ones.
"""

import re
import unicodedata
from collections.abc import Sequence

LINE_ENDS = re.compile("\r\n|[\r\v\f\x1c-\x1e\x85\u2028\u2029]")
JOINERS = "\u200c\u200d"  # emoji and several scripts need them; inside a mark they break it as well as we do
CHAT_TOKENS = re.compile(
    r"<[|\uff5c][^<>\n]{0,64}[|\uff5c]>"  # ChatML, Llama 3, Phi; DeepSeek's bar is full-width
    r"|\[/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_RESULTS|TOOL_CALLS)\]"  # Mistral, Llama 2
    r"|<</?SYS>>"
    r"|</?(?:s|bos|eos|pad|unk|start_of_turn|end_of_turn|think|tool_call|tool_response)>",
    re.IGNORECASE,
)
HEADING = re.compile(r'\s*(?:#|\[|<|"\w|\*\*|==|--)')
WORD = re.compile(r"\w+")
FULL_WIDTH_QUOTE = "\uff02"  # the same to a reader that normalises what it reads
THIRD_QUOTE = re.compile(r'(?<=["\uff02])(["\uff02])(?=["\uff02])')
LINE_START = 400  # characters of a line in which a heading is looked for


def readable(text: str) -> str:
    """Line feeds for all line ends, U+FFFD for control characters and half surrogates, nothing invisible."""
    text = LINE_ENDS.sub("\n", text)
    if text.isascii() and text.replace("\n", "").replace("\t", "").isprintable():
        return text
    return "".join(map(_visible, text))


def _visible(character: str) -> str:
    category = unicodedata.category(character)
    if category in ("Cc", "Cs"):
        return character if character in "\n\t" else "\ufffd"
    return "" if category == "Cf" and character not in JOINERS else character


def broken(found: re.Match[str]) -> str:
    """What was found, with a backslash behind its first character."""
    return f"{found[0][0]}\\{found[0][1:]}"


def without_triple_quotes(text: str) -> str:
    """No three quotes in a row, and none (nor a backslash) at the end, where the closing ones follow."""
    text = THIRD_QUOTE.sub(r"\\\1", text)
    return f"{text} " if text.endswith(('"', FULL_WIDTH_QUOTE, "\\")) else text


def folded(text: str) -> str:
    """Without case, width and invisible characters: what a reader takes for the same."""
    if text.isascii():
        return text.casefold()
    plain = unicodedata.normalize("NFKC", text).casefold()
    return "".join(character for character in plain if unicodedata.category(character) != "Cf")


def words(line: str) -> tuple[str, ...]:
    """The words of a line, whatever their case, width and punctuation."""
    return tuple(WORD.findall(folded(line)))


class Marks:
    """What structures a prompt, looked for in texts that shall only fill it."""

    def __init__(self, marks: Sequence[str]) -> None:
        self.marks = {mark: _spaced(mark) for mark in sorted(marks, key=len, reverse=True)}
        self.headings = list(dict.fromkeys(words(mark) for mark in marks))

    def broken(self, text: str) -> str:
        """Every mark broken, whatever its case, width and the white space between its words."""
        plain = folded(text)
        for mark, pattern in self.marks.items():
            if _may_hold(plain, mark.split()):
                lines = pattern.sub(broken, text).split("\n")
                text = "\n".join(line if line.isascii() else _narrow(line, pattern) for line in lines)
        return text

    def quoted(self, text: str) -> str:
        """`> ` before each line that could be taken for a mark."""
        plain = folded(text)
        headings = [heading for heading in self.headings if _may_hold(plain, heading)]
        if not headings:
            return text
        lines = text.split("\n")
        for i, line in enumerate(lines):
            if any(_resembles(folded(line[:LINE_START]), heading) for heading in headings):
                lines[i] = f"> {line}"
        return "\n".join(lines)


def _resembles(line: str, heading: Sequence[str]) -> bool:
    """Whether a line begins with the words of a heading; with a single word, many do that are none."""
    told = WORD.findall(line)
    if len(heading) == 1:
        return told == list(heading) and HEADING.match(line) is not None
    return told[: len(heading)] == list(heading)


def _spaced(mark: str) -> re.Pattern[str]:
    told = r"\s*".join(re.escape(part) for part in mark.split())
    before, behind = r"(?<!\w)" * mark[0].isalnum(), r"(?!\w)" * mark[-1].isalnum()
    return re.compile(f"{before}{told}{behind}", re.IGNORECASE)


def _narrow(line: str, mark: re.Pattern[str]) -> str:
    """The line without its wide letters and with the mark broken, if it is one of wide letters."""
    narrow = unicodedata.normalize("NFKC", line)
    return mark.sub(broken, narrow) if mark.search(narrow) else line


def _may_hold(text: str, parts: Sequence[str]) -> bool:
    """Quickly: almost no text has them all."""
    return all(part.casefold() in text for part in parts)
