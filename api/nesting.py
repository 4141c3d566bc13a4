"""How deep a JSON document is nested, and which field a byte of it belongs to.

JSON parsers recurse, so a document that one process can just read may be too deep for the next,
whose stack is fuller or whose interpreter counts otherwise. Hence a bound of our own, far below
all of theirs, told without recursion.
"""

import re
from itertools import accumulate
from typing import Final, NamedTuple

LEVELS_MAX: Final = 256
"""Objects and arrays inside each other, in a payload or in metadata, its own level included."""

_ESCAPE = re.compile(rb"\\.", re.DOTALL)
_STRING = re.compile(rb'"[^"]*"')
_NEITHER_BRACKET_NOR_QUOTE: Final = bytes(set(range(256)) - set(b'[]{}"'))
_DELTAS: Final = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}
_TOKEN = re.compile(rb'"(?:[^"\\]++|\\.)*+"?|[\[\]{}:,]', re.DOTALL)


class Place(NamedTuple):
    """A field of a submission; `item` is the submission's place in a batch, None outside one."""

    item: int | None
    field: str


def is_too_deep(document: bytes) -> bool:
    """Whether valid JSON is nested in more than LEVELS_MAX levels. The common case costs two
    scans for a byte; the others are a handful of passes in C."""
    if document.count(b"[") + document.count(b"{") <= LEVELS_MAX:
        return False
    if b"\\" in document:
        document = _ESCAPE.sub(b"", document)
    # Without escapes, dropping two neighbouring quotes never moves anything in or out of a string.
    skeleton = document.translate(None, _NEITHER_BRACKET_NOR_QUOTE).replace(b'""', b"")
    brackets = _STRING.sub(b"", skeleton)
    return max(accumulate(map(_DELTAS.__getitem__, brackets)), default=0) > LEVELS_MAX


def field_at(body: bytes, offset: int) -> Place:
    """The field of a submission, or of a batch of them, that the byte at `offset` belongs to.

    `body` need not be valid JSON; the answer is `body` where no field can be told.
    """
    return _walk(body, offset, None)


def too_deep_field(body: bytes) -> Place:
    """The first field whose value is nested in more than LEVELS_MAX levels."""
    return _walk(body, len(body), LEVELS_MAX)


def _walk(body: bytes, end: int, levels_max: int | None) -> Place:
    in_batch = body.lstrip()[:1] == b"["
    # The depth at which a submission's keys stand: inside its braces, inside the batch's brackets.
    key_depth = 2 if in_batch else 1
    depth, index, name, key = 0, 0, b"", b""
    for token in _TOKEN.finditer(body, 0, end):
        match body[token.start()]:
            case 0x22:  # a string
                if depth == key_depth:
                    name = token[0]
            case 0x3A:  # a colon
                if depth == key_depth:
                    key = name
            case 0x2C:  # a comma
                if depth == key_depth:
                    key = b""
                elif depth < key_depth and in_batch:
                    index, key = index + 1, b""
            case 0x5B | 0x7B:
                depth += 1
                if levels_max is not None and depth - key_depth > levels_max:
                    break
            case _:
                depth -= 1
                if depth < key_depth:
                    key = b""
    text = key.strip(b'"')[:100].decode(errors="replace")
    return Place(index if in_batch else None, text or "body")
