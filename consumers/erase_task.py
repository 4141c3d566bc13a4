"""Decide that a task is erased: from then on nobody is told any more what it was about."""

import msgspec

from ledger.codec import Meta
from ledger.commands import EraseTask
from ledger.erasure import redactions
from ledger.events import TaskErased
from ledger.rejections import Rejection, RejectionCode
from ledger.store import Events, Position, Store
from ledger.transact import CONFLICTS_MAX, transact


class Erasure(msgspec.Struct, frozen=True):
    """That a task is erased, and by which event. `events` lose something; `new`: it was decided
    just now."""

    position: Position
    events: int
    new: bool


async def erase_task(
    store: Store, events: Events, task_id: str, reason: str, meta: Meta
) -> Erasure:
    """Once, however often it is called. `events` has the task's whole history.

    Raises Rejection: TASK_NOT_FOUND, TASK_NOT_ERASABLE when it is not finished, VERSION_CONFLICT
    when others were faster CONFLICTS_MAX times; and as `events` does.
    """
    for _ in range(CONFLICTS_MAX):
        task = await store.load(task_id)
        if task is None:
            raise Rejection(RejectionCode.TASK_NOT_FOUND, f"there is no task with the id {task_id}")
        history = await events.history(task_id)
        decided = next((event for event in history if event.type == TaskErased.__name__), None)
        if decided is not None:
            event = decided.event()
            assert isinstance(event, TaskErased)  # noqa: S101 - by its type
            return Erasure(decided.position, len(event.redacted), new=False)
        if not history or history[-1].version != task.version:
            continue
        command = EraseTask(reason, redactions(history))
        try:
            done = await transact(
                store, task_id, command, meta=meta, known=task, expected_versions={task.version}
            )
        except Rejection as rejection:
            if rejection.code is RejectionCode.VERSION_CONFLICT:
                continue
            raise
        if done.position is not None:
            return Erasure(done.position, len(command.redacted), new=True)
    raise Rejection(
        RejectionCode.VERSION_CONFLICT,
        f"the task was changed by others {CONFLICTS_MAX} times in a row; try again",
    )
