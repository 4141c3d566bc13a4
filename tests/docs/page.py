"""A page that is to be followed: what its reader writes, runs and opens, in order, and is shown.

A block of Python, TOML or HTML is the file that the line before it ends with; a block of `sh` is
typed into a terminal, and a block of `text` is what is seen then.
"""

import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Final, NamedTuple


class File(NamedTuple):
    """The reader writes it."""

    name: str
    text: str


class Commands(NamedTuple):
    """The reader runs them."""

    script: str
    shown: str


class Visit(NamedTuple):
    """The reader opens a page, and chooses files there."""

    url: str
    files: list[str]
    shown: str


class Glance(NamedTuple):
    """The reader looks at what runs in the first terminal."""

    shown: str


Step = File | Commands | Visit | Glance

_BLOCK: Final = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_NAME: Final = re.compile(r"`([\w.]+)`[^`\n]*:$")
_VISIT: Final = re.compile(r"^Open (http\S+) and choose (.*):$", re.MULTILINE)

_VARIES: Final = re.compile(
    r"""(?P<uuid>[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})
    | (?P<time>\d\d:\d\d:\d\d(?:\.\d{3})?)
    | (?P<date>\d{4}-\d\d-\d\d)
    | (?P<worker>\w+-\d+-[0-9a-f]{4}\b)
    | (?P<digits>\b[0-9a-f]{8,}\b)
    | (?P<number>\d[\d,]{3,})""",
    re.VERBOSE,
)
_ROW_NUMBER: Final = re.compile(r"^\d+(?=  )", re.MULTILINE)
_AS_ANOTHER: Final = {"worker": r"\S+-\d+-[0-9a-f]{4}", "number": r"[\d,]+", "digits": "[0-9a-f]+"}
"""What may stand in the place of what differs from run to run; else, it has the same form."""


def steps_of(page: Path) -> Iterator[Step]:
    """What the page has its reader do."""
    text, end = page.read_text(), 0
    blocks = list(_BLOCK.finditer(text))
    shown_after = [_shown(text, *pair) for pair in pairwise(blocks)] + [""]
    for block, shown in zip(blocks, shown_after, strict=True):
        before, end = text[end : block.start()].strip(), block.end()
        match block[1]:
            case "sh":
                yield Commands(block[2], shown)
            case "text":
                for visit in _VISIT.finditer(before):
                    yield Visit(visit[1], re.findall(r"`(.+?)`", visit[2]), block[2])
                if before.endswith("In the first terminal:"):
                    yield Glance(block[2])
            case _:
                name = _NAME.search(before)
                assert name, f"a file without a name after: {before[-80:]}"
                yield File(name[1], block[2])


def is_shown(shown: str, said: str) -> bool:
    """Whether a page that shows this shows what was said: times, ids and numbers of processes are
    others, `…` is whatever the page leaves out, and lines may be broken elsewhere."""
    shown = _ROW_NUMBER.sub("…", shown)
    parts = [r"\s+".join(map(_word, part.split())) for part in shown.split("…")]
    return bool(re.search(".*?".join(parts), said, re.DOTALL))


def _shown(text: str, block: re.Match[str], after: re.Match[str]) -> str:
    """What is shown right after the block."""
    return after[2] if after[1] == "text" and not text[block.end() : after.start()].strip() else ""


def _word(word: str) -> str:
    pattern, end = "", 0
    for varying in _VARIES.finditer(word):
        pattern += re.escape(word[end : varying.start()])
        kind = str(varying.lastgroup)
        pattern += _AS_ANOTHER.get(kind) or re.sub(r"[0-9a-f]", "[0-9a-f]", varying[0])
        end = varying.end()
    return pattern + re.escape(word[end:])
