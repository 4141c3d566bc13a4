"""What a batch of events changes: the shape that the fold hands to every projection."""

from typing import Final

import msgspec

from ledger.events import Priority
from ledger.task import State, Status

STATUS_NO: Final = {status: no for no, status in enumerate(Status)}
PRIORITY_NO: Final = {priority: no for no, priority in enumerate(Priority)}
"""How statuses and priorities stand in the tables: by their place in the enumeration."""


class Change(msgspec.Struct):
    """One task, as it was before a batch and as it is after it."""

    id: bytes
    """The 16 bytes of the UUID."""
    kb: int
    task_type: int
    priority: int
    """The first two are numbers of `names`, as everywhere in the tables."""
    before: State | None
    """None: the batch submitted it."""
    after: State
    version: int
    """After the batch."""
    stored: bool
    """Whether the table of tasks has a row of it. A finished task may have left it since."""
    submission: bytes | None
    """JSON, where it is to be written."""
