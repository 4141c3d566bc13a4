"""POST /api/v1/queues/{task_type}/pause and /resume: whether tasks of a type are taken."""

from typing import Annotated, Final

import msgspec
from msgspec import Meta

from api.bodies import BodyReader
from api.describe import READING, Answer, Group, operation
from api.exchange import Exchange
from api.known_types import check_types
from api.scalars import Moment
from api.system_changes import CHANGE_HEADERS, CHANGED_HEADERS, change_system, system_marks
from api.wire import moment_text
from ledger.codec import encode
from ledger.rejections import RejectionCode
from ledger.settings import Settings
from ledger.store import Store
from ledger.system.commands import PauseQueue, ResumeQueue
from ledger.system.state import Pause
from ledger.system.transact import SystemCommitted

BODY_BYTES_MAX: Final = 16 * 1024
REASON_CHARACTERS_MAX: Final = 1_024

Reason = Annotated[
    str, Meta(max_length=REASON_CHARACTERS_MAX, description="Why, for people; may be empty.")
]


class PauseRequestBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Why a queue is paused."""

    reason: Reason = ""


class PauseView(msgspec.Struct, frozen=True):
    """That tasks of a type are not taken now."""

    since: Moment
    reason: str
    by: Annotated[str, Meta(description="The `X-Actor` of whoever paused it.")]


Paused = Annotated[PauseView | None, Meta(description="null: its tasks are taken.")]


class QueueState(msgspec.Struct, frozen=True):
    """Whether tasks of a type are taken."""

    task_type: str
    paused: Paused


class QueuePauses:
    """The endpoints; each takes an Exchange and answers it, or raises."""

    _body: Final = BodyReader(
        PauseRequestBody, {"reason": f"text of at most {REASON_CHARACTERS_MAX} characters"}
    )

    def __init__(self, store: Store, settings: Settings) -> None:
        self._store = store
        self._task_types = settings.known_task_types

    @operation(
        "pauseQueue",
        Group.CONTROL,
        {200: Answer("It is paused.", QueueState, CHANGED_HEADERS)},
        body=PauseRequestBody,
        body_may_be_absent=True,
        headers=CHANGE_HEADERS,
        refusals=(RejectionCode.VERSION_CONFLICT,),
    )
    async def pause(self, exchange: Exchange) -> None:
        """Take no more tasks of a type.

        Workers leave them alone within about a second. What runs goes on, and what is submitted
        waits. A queue that is paused already stays so, with the reason that it has.
        """
        exchange.parameters()
        task_type = exchange.path_text("task_type")
        check_types((task_type,), self._task_types)
        body = await exchange.json_body(BODY_BYTES_MAX)
        reason = self._body.read(body).reason if body.strip() else ""
        done = await change_system(exchange, self._store, PauseQueue(task_type, reason))
        await _answer(exchange, task_type, done)

    @operation(
        "resumeQueue",
        Group.CONTROL,
        {200: Answer("It is not paused.", QueueState, CHANGED_HEADERS)},
        headers=CHANGE_HEADERS,
        refusals=(RejectionCode.VERSION_CONFLICT, *READING),
    )
    async def resume(self, exchange: Exchange) -> None:
        """Take tasks of a type again, within about a second."""
        exchange.parameters()
        await exchange.no_body()
        task_type = exchange.path_text("task_type")
        if task_type not in self._task_types:
            # One that was paused may have left the settings since.
            paused = (await self._store.load_system()).state.paused
            check_types((task_type,), (*self._task_types, *paused))
        done = await change_system(exchange, self._store, ResumeQueue(task_type))
        await _answer(exchange, task_type, done)


async def _answer(exchange: Exchange, task_type: str, done: SystemCommitted) -> None:
    state = QueueState(task_type, pause_view(done.system.state.paused.get(task_type)))
    await exchange.respond(200, encode(state), system_marks(done))


def pause_view(pause: Pause | None) -> PauseView | None:
    """A pause for a caller."""
    return None if pause is None else PauseView(moment_text(pause.since), pause.reason, pause.by)
