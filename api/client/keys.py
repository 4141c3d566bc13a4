"""Idempotency keys: those that callers give, and those that are made for them."""

from typing import Final
from uuid import uuid4

from api.client.errors import unsendable

CHARACTERS_MAX: Final = 255
"""What the service takes."""

OF_MANY_CHARACTERS_MAX: Final = 245
"""Of a key that the requests of one call share, each with its number behind it."""


def key_of(given: str | None, *, of_many: bool = False) -> str:
    """The key that was given, or one that nobody had before. Raises InvalidRequest for one that the
    service would not take, or would read as another one; an empty one too: whoever gives that
    counts on a key, and would make a second task without."""
    if given is None:
        return str(uuid4())
    most = OF_MANY_CHARACTERS_MAX if of_many else CHARACTERS_MAX
    if 1 <= len(given) <= most and given.isprintable() and given == given.strip():
        return given
    expected = f"1 to {most} printable characters, without spaces at either end"
    raise unsendable("idempotency_key", "idempotency_key", expected, given)
