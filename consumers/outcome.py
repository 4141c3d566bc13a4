"""What became of a handler's call: a result as JSON, or an error with its kind."""

from typing import Any

import msgspec

from consumers.handlers import Handler
from ledger.events import ErrorKind

ERROR_CHARS_MAX = 4_000
"""Longer error messages are cut."""


class HandlerFailed(Exception):
    """A handler did not give a result; `kind` says whether another attempt makes sense."""

    def __init__(self, kind: ErrorKind, message: str) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message[:ERROR_CHARS_MAX]


def decode_payload(payload: bytes | msgspec.Raw) -> Any:
    """The payload as Python objects. Raises HandlerFailed when it is nested too deeply for that."""
    try:
        return msgspec.json.decode(payload)
    except (RecursionError, msgspec.MsgspecError) as error:
        raise HandlerFailed(
            ErrorKind.PERMANENT, f"the payload cannot be decoded: {error}"
        ) from error


def encode_result(result: Any, bytes_max: int) -> bytes:
    """The result as JSON. Raises HandlerFailed when it is not JSON, or larger than `bytes_max`."""
    try:
        encoded = msgspec.json.encode(result)
    except (TypeError, ValueError, RecursionError, msgspec.MsgspecError, OverflowError) as error:
        raise HandlerFailed(
            ErrorKind.PERMANENT,
            f"the handler returned something that is not JSON ({type(result).__name__}): {error}",
        ) from error
    if len(encoded) > bytes_max:
        raise HandlerFailed(
            ErrorKind.PERMANENT,
            f"the handler returned {len(encoded):,} bytes, more than the {bytes_max:,} that a "
            "result may have; store it elsewhere and return where",
        )
    return encoded


def failure(handler: Handler, error: BaseException) -> HandlerFailed:
    """What an exception that a handler raised means for its task."""
    if isinstance(error, HandlerFailed):
        return error
    if isinstance(error, SystemExit):
        return HandlerFailed(ErrorKind.PERMANENT, f"the handler called sys.exit({error.code!r})")
    return HandlerFailed(handler.kind_of(error), f"{type(error).__name__}: {_text(error)}")


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # an exception's own __str__ may raise anything
        return "(its text cannot be shown)"
