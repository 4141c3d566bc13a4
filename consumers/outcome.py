"""What became of a handler's call: a result as JSON, or an error with its kind."""

import json
from typing import Any, Final

import msgspec

from consumers.context import plain_text
from consumers.handlers import Handler
from ledger.events import ErrorKind
from ledger.nesting import LEVELS_MAX, is_too_deep

ERROR_CHARS_MAX: Final = 4_000
"""Longer error messages are cut."""


class HandlerFailed(Exception):
    """A handler did not give a result; `kind` says whether another attempt makes sense."""

    def __init__(self, kind: ErrorKind, message: str, retry_after_ms: int | None = None) -> None:
        """`retry_after_ms`: how long the handler asks to wait; None when the policy says."""
        super().__init__(message)
        self.kind = kind
        self.message = plain_text(message, ERROR_CHARS_MAX)
        self.retry_after_ms = retry_after_ms


def decode_payload(payload: bytes | msgspec.Raw) -> Any:
    """The payload as Python objects. Raises HandlerFailed when it is nested too deeply for that."""
    try:
        return msgspec.json.decode(payload)
    except (RecursionError, msgspec.MsgspecError) as error:
        raise HandlerFailed(
            ErrorKind.PERMANENT, f"the payload cannot be decoded: {error}"
        ) from error


def decode_metadata(metadata: bytes | msgspec.Raw) -> Any:
    """The metadata as Python objects, None when there is none. Raises like `decode_payload`."""
    return decode_payload(metadata) if metadata else None


def encode_result(result: Any, bytes_max: int) -> bytes:
    """The result as JSON. Raises HandlerFailed when it is not JSON, or larger than `bytes_max`.

    What has one obvious form in JSON is given it: dataclasses and msgspec structs become objects,
    sets and tuples arrays, times, UUIDs and enums text, bytes Base64. NaN and the infinities have
    none.
    """
    try:
        encoded = msgspec.json.encode(result)
        if len(encoded) > bytes_max:
            raise HandlerFailed(
                ErrorKind.PERMANENT,
                f"the handler returned {len(encoded):,} bytes, more than the {bytes_max:,} that a "
                "result may have; store it elsewhere and return where",
            )
        _check_floats(result, encoded)
        if is_too_deep(encoded):
            raise ValueError(f"it is nested more than {LEVELS_MAX} levels deep")
    except (TypeError, ValueError, RecursionError, msgspec.MsgspecError, OverflowError) as error:
        raise HandlerFailed(
            ErrorKind.PERMANENT,
            f"the handler returned something that is not JSON ({type(result).__name__}): {error}",
        ) from error
    return encoded


def _check_floats(result: Any, encoded: bytes) -> None:
    """msgspec writes null for NaN and the infinities, so a null may be one of them."""
    if result is not None and b"null" in encoded:
        json.dumps(msgspec.to_builtins(result, str_keys=True), allow_nan=False)


def failure(handler: Handler, error: BaseException) -> HandlerFailed:
    """What an exception that a handler raised means for its task."""
    if isinstance(error, HandlerFailed):
        return error
    kind, name, text = handler.errors.kind_of(error), type(error).__name__, _text(error)
    if isinstance(error, SystemExit):
        return HandlerFailed(kind, f"the handler called sys.exit({text})")
    message = f"{name}: {text}" if text else name
    return HandlerFailed(kind, message, handler.errors.retry_after_ms(error))


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except BaseException:  # an exception's own __str__ may raise anything
        return "(its text cannot be shown)"
