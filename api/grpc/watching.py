"""WatchTasks: how tasks stand, told as it changes. The reader of the ledger is the one that the
other live feeds of the process share."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Final

from api.audience import Audience, Ending
from api.errors import ApiError
from api.event_filter import EventFilter, EventsQuery, filter_of
from api.grpc import task_service_pb2 as pb
from api.grpc.call import Call
from api.grpc.messages import NUMBER_OF, PRIORITY_OF, STATUS_OF, all_known, moment
from api.outbox import Outbox
from api.query import QueryReader
from api.task_facts import Occurrence
from consumers.meters import Meter
from ledger.rejections import RejectionCode
from ledger.store import positions_text
from ledger.task import FINISHED

if TYPE_CHECKING:
    from api.broadcast import Follower

CLIENTS_MAX: Final = 1_000
"""In one process; more are UNAVAILABLE."""

MARK_S: Final = 15.0
"""While nothing happens that is wanted, a client is told so often where to go on from."""

REASONS: Final = {
    Ending.SLOW: "more was told than was read; go on from the last position",
    Ending.BROKEN: "the ledger cannot be read on from here; go on from the last position",
}
STOPPING: Final = "the server is stopping; go on elsewhere from the last position"


class Updates:
    """One client's: makes of events what it is sent."""

    wants_states: bool = True

    def __init__(self, wanted: EventFilter) -> None:
        self.wanted = wanted
        self.outbox = Outbox(self.mark, MARK_S)
        self.followers: Sequence[Follower] = ()

    async def room(self) -> None:
        await self.outbox.room()

    def take(self, occurrence: Occurrence) -> None:
        # Several of these in a row are one message again: that is how protobuf joins lists.
        if occurrence.state is not None:
            updates = pb.TaskUpdates(updates=[_update(occurrence)], position=self._position)
            self.outbox.put(updates.SerializeToString())

    def mark(self) -> bytes:
        """Where to go on from, without an update."""
        return pb.TaskUpdates(position=self._position).SerializeToString()

    @property
    def _position(self) -> str:
        return positions_text(follower.position for follower in self.followers)


class WatchMethod:
    """The method; until `stop`."""

    _query: Final = QueryReader(EventsQuery)

    def __init__(self, audience: Audience, meter: Meter) -> None:
        self._audience = audience
        self._meter = meter
        self._stopping = asyncio.Event()
        self.clients = 0

    def stop(self) -> None:
        """End every stream; clients come back to whoever serves then."""
        self._stopping.set()

    async def watch(
        self, request: pb.WatchTasksRequest, call: Call, write: Callable[[bytes], Awaitable[None]]
    ) -> None:
        """Tell the client, until it hangs up. Raises ApiError, when it is told no more too."""
        query = self._asked(request)
        updates = Updates(filter_of(query))
        positions = await self._audience.beginning("after", query.after)
        if self.clients >= CLIENTS_MAX:
            raise ApiError(
                RejectionCode.SERVICE_UNAVAILABLE,
                f"{CLIENTS_MAX} clients watch tasks here already; try again",
            )
        updates.followers = self._audience.followers(positions, updates)
        updates.outbox.put(updates.mark())
        # Who hangs up is noticed by the call, which is cancelled then.
        end = asyncio.get_running_loop().create_task(self._end())
        self.clients += 1
        self._meter.stream(opened=1)
        try:
            ending = await self._audience.serve(
                updates.followers, updates.outbox, write, end, call.request_id
            )
        finally:
            self.clients -= 1
            self._meter.stream(opened=-1)
        if ending is Ending.SLOW:
            self._meter.stream(dropped=1)
        reason = REASONS.get(ending, STOPPING)
        raise ApiError(RejectionCode.SERVICE_UNAVAILABLE, reason)

    async def _end(self) -> None:
        await self._stopping.wait()

    def _asked(self, request: pb.WatchTasksRequest) -> EventsQuery:
        values = {
            "after": request.after,
            "task_id": tuple(request.task_id),
            "kb_id": tuple(request.kb_id),
            "task_type": tuple(request.task_type),
            "status": all_known(STATUS_OF, request.status, "status"),
            "priority": all_known(PRIORITY_OF, request.priority, "priority"),
        }
        return self._query.given({name: value for name, value in values.items() if value})


def _update(occurrence: Occurrence) -> pb.TaskUpdate:
    recorded, facts, state = occurrence.recorded, occurrence.facts, occurrence.state
    assert state is not None  # noqa: S101 - whoever asks has looked
    return pb.TaskUpdate(
        position=str(recorded.position),
        task_id=recorded.task_id,
        status=NUMBER_OF[state.status],
        progress=state.progress,
        message=state.message,
        kb_id="" if facts is None else facts.kb_id,
        task_type="" if facts is None else facts.task_type,
        result=bytes(state.result) if state.status in FINISHED else b"",
        error_message=state.error_message,
        at=moment(recorded.at),
    )
