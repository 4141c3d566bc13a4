"""How deep a JSON document may be nested, told without recursion.

JSON parsers recurse, so a document that one process can just read may be too deep for the next,
whose stack is fuller or whose interpreter counts otherwise. Hence a bound of our own, far below
all of theirs, for everything that the ledger keeps.
"""

import re
from itertools import accumulate
from typing import Final

LEVELS_MAX: Final = 256
"""Objects and arrays inside each other, in a payload, metadata or a result, its own included."""

_ESCAPE = re.compile(rb"\\.", re.DOTALL)
_STRING = re.compile(rb'"[^"]*"')
_NEITHER_BRACKET_NOR_QUOTE: Final = bytes(set(range(256)) - set(b'[]{}"'))
_DELTAS: Final = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}


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
