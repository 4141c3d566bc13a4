"""Where a task waits, as the caller is told."""

from ledger.store import Store
from ledger.task import Status, Task
from ledger.transact import Committed


async def queue_position(store: Store, task: Task) -> int:
    """1 = next of its type to be taken; 0 for a task that is in no queue now, without asking."""
    if task.state.status is Status.QUEUED and task.state.waiting_until is None:
        return await store.queue_position(task)
    return 0


async def position_after(store: Store, committed: Committed) -> int:
    """The same of a task that was just written; asks only when the write did not tell."""
    if committed.queue_position is not None:
        return committed.queue_position
    return await queue_position(store, committed.task)
