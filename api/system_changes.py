"""What every request that pauses or limits has in common: its precondition, and its marks."""

from typing import Final

from api.describe import (
    IF_MATCH_SYSTEM_HEADER,
    LEDGER_POSITION_IF_WRITTEN,
    SYSTEM_ETAG,
    WRITER_HEADERS,
)
from api.errors import Header
from api.exchange import Exchange
from api.preconditions import expected_versions
from ledger.store import Store
from ledger.system.commands import SystemCommand
from ledger.system.state import System
from ledger.system.transact import SystemCommitted, transact_system

CHANGE_HEADERS: Final = (IF_MATCH_SYSTEM_HEADER, *WRITER_HEADERS)
"""Read by every request that changes the service."""

CHANGED_HEADERS: Final = (SYSTEM_ETAG, LEDGER_POSITION_IF_WRITTEN)
"""Of their answers."""


async def change_system(
    exchange: Exchange, store: Store, command: SystemCommand
) -> SystemCommitted:
    """Carry a command out, if the service is as the caller saw it. Raises ApiError (400) and
    Rejection."""
    expected = expected_versions(exchange.list_header(b"if-match"))
    return await transact_system(store, command, exchange.meta(), expected)


def system_etag(system: System) -> Header:
    """Which version the service is at."""
    return b"etag", b'"%d"' % system.version


def system_marks(done: SystemCommitted) -> list[Header]:
    """The version afterwards, and where the write stands, if there was one."""
    marks = [system_etag(done.system)]
    if done.position is not None:
        marks.append((b"ledger-position", str(done.position).encode()))
    return marks
