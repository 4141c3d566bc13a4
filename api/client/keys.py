"""Idempotency keys: those that callers give, and those that are made for them."""

from typing import Any, Final
from uuid import UUID, uuid4

from api.client.errors import unsendable

CHARACTERS_MAX: Final = 255
"""What the service takes."""

OF_MANY_CHARACTERS_MAX: Final = 245
"""Of a key that the requests of one call share, each with its number behind it."""


def key_of(key: str | UUID | None, *, of_many: bool = False) -> str:
    """The key that was given, or one that nobody had before. Raises InvalidRequest for one that the
    service would not take, or would read as another one; an empty one too: whoever gives that
    counts on a key, and would make a second task without. Raises TypeError for what is no text."""
    if key is None:
        return str(uuid4())
    given: Any = str(key) if isinstance(key, UUID) else key
    if not isinstance(given, str):
        raise TypeError(f"idempotency_key: expected a text, got {type(given).__name__}")
    most = OF_MANY_CHARACTERS_MAX if of_many else CHARACTERS_MAX
    if 1 <= len(given) <= most and given.isprintable() and given == given.strip():
        return given
    expected = f"1 to {most} printable characters, without spaces at either end"
    raise unsendable("idempotency_key", "idempotency_key", expected, given)
