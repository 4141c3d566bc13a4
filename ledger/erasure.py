"""What is left of an event, or of a submission, once what it was about is removed.

Who did what, when, to which kind of task is left; what callers, handlers and people wrote is not.
Doing it twice changes nothing more.
"""

import hashlib
from collections.abc import Iterable
from typing import Final

import msgspec
from msgspec.structs import replace

from ledger.codec import Undecodable, decode_event, encode
from ledger.events import (
    NO_JSON,
    AttemptFailed,
    CallbackFailed,
    Event,
    TaskCanceled,
    TaskCompleted,
    TaskFailed,
    TaskProgressed,
    TaskSubmitted,
)
from ledger.store import Recorded

NO_PAYLOAD: Final = msgspec.Raw(b"{}")
NULL: Final = msgspec.Raw(b"null")
NOTHING_LEFT: Final = b"{}"
"""Of data that this version cannot read."""


def redacted_submission(submission: TaskSubmitted) -> TaskSubmitted:
    """Without payload, metadata and callback_url; and without the hash by which a body could be
    guessed."""
    return replace(
        submission, payload=NO_PAYLOAD, metadata=NO_JSON, callback_url=None, body_sha256=""
    )


def redacted_event(event: Event) -> Event:
    """The event, as far as it may stay."""
    match event:
        case TaskSubmitted():
            return redacted_submission(event)
        case TaskProgressed():
            return replace(event, message="")
        case TaskCompleted():
            return replace(event, result=NULL)
        case AttemptFailed() | TaskFailed():
            return replace(event, error_message="")
        case TaskCanceled():
            return replace(event, reason="")
        case CallbackFailed():
            return replace(event, error="")
        case _:
            return event


def redacted_data(kind: str, data: bytes) -> bytes:
    """What is left of the data of an event of this type; the same bytes where all of it is."""
    try:
        event = decode_event(kind, data)
    except Undecodable:
        return NOTHING_LEFT
    left = encode(redacted_event(event))
    return data if left == encode(event) else left


def redactions(history: Iterable[Recorded]) -> dict[str, str]:
    """What TaskErased says of the events that lose something: by version, SHA-256 of what is
    left."""
    found: dict[str, str] = {}
    for event in history:
        left = redacted_data(event.type, event.data)
        if left != event.data:
            found[str(event.version)] = hashlib.sha256(left).hexdigest()
    return found
