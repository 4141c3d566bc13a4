"""An event as one line of JSON."""

import msgspec

from api.wire import EventView, event_view
from ledger.codec import Meta, Undecodable, decode_meta, encode
from ledger.store import Recorded


class ReplayedEvent(EventView, frozen=True, kw_only=True):
    """As the API tells events, and whose it is."""

    task_id: str


def event_line(event: Recorded) -> bytes:
    """One line, without its end."""
    view = event_view(event)
    told = ReplayedEvent(
        position=view.position,
        task_id=event.task_id,
        type=view.type,
        version=view.version,
        at=view.at,
        data=view.data,
        meta=view.meta,
    )
    return one_line(encode(told))


def one_line(line: bytes) -> bytes:
    """JSON without line breaks."""
    # A payload's line breaks stand between tokens.
    return msgspec.json.format(line, indent=-1) if b"\n" in line or b"\r" in line else line


def meta_of(event: Recorded) -> Meta:
    """Who wrote it, and why; nothing where that cannot be read."""
    try:
        return decode_meta(event.meta)
    except Undecodable:
        return Meta()
