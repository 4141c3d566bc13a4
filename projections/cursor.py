"""A place in a list as text that a caller hands back: it fits one query only, and is ours."""

import base64
import hashlib
import hmac
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from projections.list_query import Anchor

CURSOR_CHARACTERS_MAX: Final = 512
_VERSION: Final = 1
_SIGNATURE_BYTES: Final = 16
_DIGEST_BYTES: Final = 16
_NOT_OURS: Final = "it is none that was given out"


class BadCursor(ValueError):
    """A cursor that is of no use here; says why."""


class Cursor(msgspec.Struct, frozen=True, array_like=True):
    """`query` is the digest of what was asked. An age such as `1h` moves on with time, but a walk
    through pages must not: hence what it meant when the walk began."""

    version: int
    query: bytes
    created_after: int | None
    created_before: int | None
    anchor: Anchor


_encode: Callable[[Cursor], bytes] = msgspec.msgpack.Encoder().encode
_decode: Callable[[bytes], Cursor] = msgspec.msgpack.Decoder(Cursor).decode


def query_digest(asked: Sequence[object]) -> bytes:
    """The same for the same question: its filters as the caller wrote them, and its order."""
    return hashlib.sha256(msgspec.msgpack.encode(asked)).digest()[:_DIGEST_BYTES]


def write_cursor(
    secret: bytes, query: bytes, created: tuple[int | None, int | None], anchor: Anchor
) -> str:
    """The cursor of a place; `created` holds the bounds on created_at, in ms."""
    body = _encode(Cursor(_VERSION, query, *created, anchor))
    return _text(_signature(secret, body) + body)


def read_cursor(secret: bytes, text: str, query: bytes) -> Cursor:
    """The same again. Raises BadCursor for what was not written with `secret`, and for `query`."""
    if len(text) > CURSOR_CHARACTERS_MAX:
        raise BadCursor(_NOT_OURS)
    try:
        signed = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        # Other text can decode to the same bytes, but was not given out.
        genuine = hmac.compare_digest(_text(signed).encode(), text.encode())
        signature, body = signed[:_SIGNATURE_BYTES], signed[_SIGNATURE_BYTES:]
        if not genuine or not hmac.compare_digest(signature, _signature(secret, body)):
            raise BadCursor(_NOT_OURS)
        cursor = _decode(body)
    except (ValueError, msgspec.MsgspecError) as error:
        raise BadCursor(_NOT_OURS) from error
    if cursor.query != query or cursor.version != _VERSION:
        raise BadCursor("it belongs to a list with other filters or another order")
    return cursor


def _text(signed: bytes) -> str:
    return base64.urlsafe_b64encode(signed).rstrip(b"=").decode()


def _signature(secret: bytes, body: bytes) -> bytes:
    return hmac.digest(secret, body, "sha256")[:_SIGNATURE_BYTES]
