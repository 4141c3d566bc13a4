"""Between the domain's structs and the bytes that the ledger keeps.

Event data, snapshots and meta are JSON. Payloads, results and metadata are JSON inside JSON,
carried as `msgspec.Raw`: their bytes pass through and are never encoded again.
"""

from collections.abc import Callable, Mapping
from typing import cast

import msgspec

from ledger.events import EVENT_TYPES, Event, TaskSubmitted
from ledger.system.events import SYSTEM_EVENT_TYPES, SystemEvent
from ledger.system.state import System, SystemState
from ledger.task import State, Task
from ledger.upcast import UPCASTERS, Upcaster

_encoder = msgspec.json.Encoder()

encode: Callable[[object], bytes] = _encoder.encode
"""JSON of any struct of the domain."""

_decoders: dict[str, Callable[[bytes], Event]] = {
    name: cast("Callable[[bytes], Event]", msgspec.json.Decoder(kind).decode)
    for name, kind in EVENT_TYPES.items()
}
_decode_submission = msgspec.json.Decoder(TaskSubmitted).decode
_decode_state = msgspec.json.Decoder(State).decode
_system_decoders: dict[str, Callable[[bytes], SystemEvent]] = {
    name: cast("Callable[[bytes], SystemEvent]", msgspec.json.Decoder(kind).decode)
    for name, kind in SYSTEM_EVENT_TYPES.items()
}
_decode_system_state = msgspec.json.Decoder(SystemState).decode
_decode_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode

# ValueError covers msgspec's own errors and the UnicodeDecodeError that it lets through.
_UNREADABLE = (ValueError, RecursionError)


class Meta(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """Who made an event happen, and why: the stream entry's `meta`.

    `commit` names the append that wrote the event; events of one append share it. `request` is
    the X-Request-ID of the request that wrote it, `trace` the W3C traceparent of that request; or,
    where it had none or there was none, that of the task (`Task.trace`).
    """

    actor: str = ""
    request: str = ""
    trace: str = ""
    commit: str = ""


class Undecodable(Exception):
    """Stored bytes that are no event or snapshot of ours; says which and why."""


class UnknownEventType(Undecodable):
    """An event of a type that this version does not know: written by a newer one, or by others."""


def decode_event(name: str, data: bytes, upcasters: Mapping[str, Upcaster] = UPCASTERS) -> Event:
    """The event stored under `name` with JSON `data`.

    Raises UnknownEventType for a name that is not ours, Undecodable for data of another shape.
    """
    try:
        if name in upcasters:
            name, fields = upcasters[name](_decode_fields(data))
            data = encode(fields)
        if name not in _decoders:
            raise UnknownEventType(f"event type {name!r} is unknown to this version of ledgerq")
        return _decoders[name](data)
    except _UNREADABLE as error:
        raise Undecodable(f"the data of a {name} event cannot be read: {error}") from error


def decode_system_event(name: str, data: bytes) -> SystemEvent:
    """The event stored under `name` of the subject `system`. Raises as `decode_event`."""
    if name not in _system_decoders:
        raise UnknownEventType(f"system event type {name!r} is unknown to this version of ledgerq")
    try:
        return _system_decoders[name](data)
    except _UNREADABLE as error:
        raise Undecodable(f"the data of a {name} event cannot be read: {error}") from error


def decoder_of(name: bytes) -> Callable[[bytes], Event]:
    """`decode_event` for many events stored under one name; its errors are ValueErrors too, where
    the data has another shape. Raises UnknownEventType."""
    text = name.decode(errors="replace")
    if text in UPCASTERS:
        return lambda data: decode_event(text, data)
    if text not in _decoders:
        raise UnknownEventType(f"event type {text!r} is unknown to this version of ledgerq")
    return _decoders[text]


def decode_meta(data: bytes) -> Meta:
    """The meta of a stored event. Raises Undecodable for another shape."""
    try:
        return msgspec.json.decode(data, type=Meta)
    except _UNREADABLE as error:
        raise Undecodable(f"the meta of an event cannot be read: {error}") from error


def decode_task(task_id: str, version: int, submission: bytes, state: bytes) -> Task:
    """The task of a stored snapshot. Raises Undecodable for another shape."""
    try:
        return Task(task_id, version, _decode_submission(submission), _decode_state(state))
    except _UNREADABLE as error:
        raise Undecodable(f"the snapshot of task {task_id} cannot be read: {error}") from error


def decode_system(version: int, state: bytes) -> System:
    """The service's subject from its stored snapshot. Raises Undecodable for another shape."""
    try:
        return System(version, _decode_system_state(state))
    except _UNREADABLE as error:
        raise Undecodable(f"the snapshot of the system cannot be read: {error}") from error
