"""Requests and answers as values: what the transports carry, and the core decides about."""

import time
from collections.abc import Mapping
from typing import Final, TypeVar

import msgspec

from api.client.errors import LedgerqError, UnexpectedAnswer, Unreachable, class_of
from api.client.uploads import Form
from ledger.retry_after import retry_after_s

BODY_SHOWN_MAX: Final = 200

Kind = TypeVar("Kind")


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """A request."""

    method: str
    path: str
    query: Mapping[str, str] = {}
    headers: Mapping[str, str] = {}
    body: bytes | None = None
    """JSON."""
    form: Form | None = None
    """Files, in the place of a body."""
    wait_s: float = 0.0
    """How long the service may keep it waiting, beside the time that any answer may take."""


class Reply(msgspec.Struct, frozen=True):
    """An answer; header names in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes = b""


class NoAnswer(msgspec.Struct, frozen=True):
    """There was none: `error` says why."""

    error: Unreachable


Told = Reply | NoAnswer | bytes | None
"""What a driver tells a generator after each of its steps; bytes are a part of a stream."""


class Pause(msgspec.Struct, frozen=True):
    """Wait, before the next step."""

    seconds: float


def error_of(told: Reply | NoAnswer) -> LedgerqError | None:
    """What an answer says went wrong; None when it is the one that was hoped for."""
    if isinstance(told, NoAnswer):
        return told.error
    return None if 200 <= told.status < 300 else refusal(told)


class _Refusal(msgspec.Struct, frozen=True):
    message: str
    code: str
    details: Mapping[str, object] = {}


def refusal(reply: Reply) -> LedgerqError:
    """The exception of an answer that is an error."""
    asked = reply.headers.get("retry-after")
    request_id = reply.headers.get("x-request-id", "")
    asked_s = None if asked is None else max(0.0, retry_after_s(asked, time.time()))
    try:
        told = msgspec.json.decode(reply.body, type=_Refusal)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return UnexpectedAnswer(
            f"the answer was {reply.status}, and not as a ledgerq would put it: {_shown(reply)}",
            code="UNEXPECTED_ANSWER",
            status=reply.status,
            request_id=request_id,
            retry_after_s=asked_s,
        )
    return class_of(told.code, reply.status)(
        told.message,
        code=told.code,
        status=reply.status,
        details=told.details,
        request_id=request_id,
        retry_after_s=asked_s,
    )


def decoded(reply: Reply, kind: type[Kind]) -> Kind:
    """The answer as a type. Raises UnexpectedAnswer."""
    try:
        return msgspec.json.decode(reply.body, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise UnexpectedAnswer(
            f"the answer cannot be read: {error}; it begins {_shown(reply)}",
            code="UNEXPECTED_ANSWER",
            status=reply.status,
            request_id=reply.headers.get("x-request-id", ""),
        ) from error


def _shown(reply: Reply) -> str:
    return repr(reply.body[:BODY_SHOWN_MAX].decode("utf-8", "replace"))
