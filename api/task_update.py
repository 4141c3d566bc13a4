"""What `/ws/tasks` tells of a task: how it stands after an event."""

from typing import TYPE_CHECKING, Annotated, Final

import msgspec
from msgspec import UNSET, UnsetType

from api.scalars import AnyJson, LedgerPosition, Moment, Percent, TaskId
from api.wire import moment_or_nothing
from ledger.codec import encode
from ledger.store import Position, Recorded
from ledger.task import FINISHED, State, Status

if TYPE_CHECKING:
    from consumers.known_tasks import Facts

_NULL: Final = msgspec.Raw(b"null")


class TaskUpdate(msgspec.Struct, frozen=True, tag="task_update", tag_field="type"):
    """How a task stands. `kb_id` and `task_type` are null when that is no longer known."""

    # The fields stand in the contract's order.
    task_id: TaskId
    status: Status
    progress: Percent
    message: Annotated[str, msgspec.Meta(description="The last progress message.")]
    kb_id: str | None
    task_type: str | None
    result: Annotated[AnyJson, msgspec.Meta(description="Of a finished task only.")] | UnsetType
    error_message: Annotated[str, msgspec.Meta(description="The last attempt's error.")]
    position: LedgerPosition
    at: Moment


def task_update(recorded: Recorded, facts: "Facts | None", state: State) -> bytes:
    """The update that an event is, as JSON."""
    return update_at(recorded.position, recorded.at, recorded.task_id, facts, state)


def update_at(
    position: Position, at: int, task_id: str, facts: "Facts | None", state: State
) -> bytes:
    """How a task stands at a position of its partition, since `at` (ms), as JSON."""
    result = state.result if len(state.result) else _NULL
    return encode(
        TaskUpdate(
            task_id,
            state.status,
            state.progress,
            state.message,
            facts and facts.kb_id,
            facts and facts.task_type,
            result if state.status in FINISHED else UNSET,
            state.error_message,
            str(position),
            moment_or_nothing(at),
        )
    )


def shown(state: State) -> tuple[Status, int, str, str, bool]:
    """What an update shows and events change; a result comes with a status, and goes with an
    erasure."""
    return state.status, state.progress, state.message, state.error_message, state.erased
