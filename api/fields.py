"""Which field of a submission a byte of the request belongs to: so that an error can name it."""

import re
from typing import NamedTuple

from ledger.nesting import LEVELS_MAX

_TOKEN = re.compile(rb'"(?:[^"\\]++|\\.)*+"?|[\[\]{}:,]', re.DOTALL)


class Place(NamedTuple):
    """A field of a submission; `item` is the submission's place in a batch, None outside one."""

    item: int | None
    field: str


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
