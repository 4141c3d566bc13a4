"""Which failures are alike: a name for the kind of failure, whatever it happened to.

Two errors are the same when they are so once all that is particular is taken out of their texts:
numbers, ids, hexadecimal digits, quoted text, paths. Fingerprints stand in the read model and in
what callers keep: a change of the rules here needs another tasks.VERSION.
"""

import hashlib
import re
from typing import Final

from ledger.events import ErrorKind

FINGERPRINT_BYTES: Final = 8
CHARACTERS_MAX: Final = 500
"""What comes after that in a message does not count: the projector has better things to do."""

# Each alternative is linear in the text: nothing is scanned again from the middle.
# A quote within a word is an apostrophe. A relative path has a second separator or a dot, or else
# "and/or" were one.
_PARTICULAR: Final = re.compile(
    r"""
      (?P<text> "[^"\n]*" | `[^`\n]*` | (?<!\w)'[^'\n]*'(?!\w) )
    | (?P<path> (?<![\w+.-])[A-Za-z][A-Za-z0-9+.-]*://[^\s"'`<>()]+
              | (?<![\w.~<-])(?:[A-Za-z]:|\.{1,2}|~[\w.-]*)?[/\\][^\s"'`<>():,;]+
              | (?<![\w.~<-])[\w.-]+[/\\][^\s"'`<>():,;]*[/\\.][^\s"'`<>():,;]+ )
    | (?P<id>   \b[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\b )
    | (?P<hex>  \b0[xX][0-9a-fA-F]+\b
              | \b(?=[a-fA-F]*[0-9])(?=[0-9]*[a-fA-F])[0-9a-fA-F]{8,}\b )
    | (?P<n>    [0-9]+(?:[.,:_-][0-9]+)* )
    | [^\W\d_]+[ ]*                                              # a word, so as to pass over it
    """,
    re.VERBOSE,
)


def pattern(message: str) -> str:
    """The message with `<n>`, `<id>`, `<hex>`, `<text>` and `<path>` where it is particular."""
    return " ".join(_PARTICULAR.sub(_shown, message[:CHARACTERS_MAX]).split())


def _shown(found: re.Match[str]) -> str:
    return f"<{found.lastgroup}>" if found.lastgroup else found[0]


def fingerprint(task_type: str, kind: ErrorKind, message: str) -> bytes:
    """The name of a kind of failure: the beginning of a SHA-256."""
    told = f"{task_type}\0{kind.value}\0{pattern(message)}"
    return hashlib.sha256(told.encode()).digest()[:FINGERPRINT_BYTES]
