"""What one connection to `/ws/tasks` is told: its filter, and the tasks that it subscribes to.

A subscription begins with how the task stands at the place that the connection has reached, and
goes on with what happens after: nothing between the two is missed or told twice, since events that
pass by while the history is read are folded into that first message.
"""

from collections.abc import Sequence
from typing import Final

import msgspec

from api.broadcast import Follower
from api.errors import invalid, task_not_found
from api.event_filter import EventFilter
from api.outbox import Outbox
from api.task_facts import Occurrence
from api.task_states import fold
from api.task_update import update_at
from api.websocket import PING_S, text_frame
from consumers.known_tasks import Facts, facts_of
from ledger.identity import is_task_id
from ledger.store import Recorded, Store, positions_text

TASKS_MAX: Final = 1_000
"""Tasks that one connection may name."""


class Subscribe(msgspec.Struct, frozen=True, tag="subscribe", forbid_unknown_fields=True):
    """Tell how this task stands, and of it from now on."""

    task_id: str


class Unsubscribe(msgspec.Struct, frozen=True, tag="unsubscribe", forbid_unknown_fields=True):
    """Tell of this task no longer."""

    task_id: str


Command = Subscribe | Unsubscribe


class PositionMessage(msgspec.Struct, frozen=True, tag="position", tag_field="type"):
    """Up to where everything was told, in each partition: to resume from, when asked for."""

    position: str


class TaskWatch:
    """The `broadcast.Sink` of a connection."""

    wants_states: bool = True

    def __init__(self, store: Store, asked: EventFilter, *, tell_positions: bool) -> None:
        self._store = store
        self._asked = asked
        self._passing: dict[str, list[Recorded]] = {}
        """Of tasks whose history is being read."""
        self._tell_positions = tell_positions
        self.outbox = Outbox(self._position_message, PING_S)
        self.followers: Sequence[Follower] = ()
        self.wanted = asked

    async def room(self) -> None:
        await self.outbox.room()

    def take(self, occurrence: Occurrence) -> None:
        passing = self._passing.get(occurrence.recorded.task_id)
        if passing is not None:
            passing.append(occurrence.recorded)
        if occurrence.state is not None and self._asked.matches(occurrence):
            self.outbox.put(occurrence.update)

    def begin(self) -> None:
        """Say where this begins, to whoever wants to know."""
        if self._tell_positions:
            self.outbox.put(self._position_message())

    @property
    def position(self) -> str:
        """Up to where the client has been told everything, once it has what waits."""
        return positions_text(follower.position for follower in self.followers)

    async def subscribe(self, task_id: str) -> None:
        """Tell how the task stands, and of it from now on. Raises ApiError for one that is not
        there, that the filters leave out, or that is too many; and as `Store.history`."""
        before = self._asked
        tasks = before.task_id or frozenset()
        if not is_task_id(task_id):
            raise invalid("task_id", "a lower-case UUID", task_id=task_id[:100])
        if task_id not in tasks and len(tasks) >= TASKS_MAX:
            expected = f"at most {TASKS_MAX} tasks on one connection"
            raise invalid("task_id", expected, task_id=task_id)
        # Whoever subscribes to many is answered as fast as he reads.
        await self.room()
        follower = self.followers[self._store.partition_of(task_id)]
        passing = self._passing[task_id] = []
        # Whatever it is that happens to the task meanwhile has to be seen.
        self._want(msgspec.structs.replace(before, task_id=tasks | {task_id}, status=None))
        try:
            history = await self._store.history(task_id)
            message = self._how_it_stands(task_id, [*history, *passing], follower)
            self._asked = msgspec.structs.replace(before, task_id=tasks | {task_id})
            if message:
                self.outbox.put(message)
        finally:
            del self._passing[task_id]
            self._want(self._asked)

    def unsubscribe(self, task_id: str) -> None:
        """Tell of the task no longer. Raises ApiError where all tasks are told of."""
        tasks = self._asked.task_id
        if tasks is None:
            expected = "a task that was subscribed to: this connection tells of all"
            raise invalid("task_id", expected, task_id=task_id[:100])
        self._asked = msgspec.structs.replace(self._asked, task_id=tasks - {task_id})
        self._want(self._asked)

    def _how_it_stands(
        self, task_id: str, history: Sequence[Recorded], follower: Follower
    ) -> bytes:
        """The first message of a subscription; empty where there is nothing to tell yet."""
        if not history:
            raise task_not_found(task_id)
        facts = facts_of(history[0])
        self._check_possible(task_id, facts)
        position = follower.position
        told = _up_to(history, position.order)
        state, since = fold(told)
        wanted = self._asked.status
        if state is None or (wanted is not None and state.status not in wanted):
            return b""
        return text_frame(update_at(position, since, task_id, facts, state))

    def _check_possible(self, task_id: str, facts: Facts | None) -> None:
        for name in ("kb_id", "task_type"):
            wanted: frozenset[str] | None = getattr(self._asked, name)
            found = None if facts is None else getattr(facts, name)
            if wanted is not None and found not in wanted:
                expected = f"a task whose {name} the connection's filter lets through"
                message = f"{task_id}: its {name} is {found}"
                raise invalid("task_id", expected, message, task_id=task_id, found=found)

    def _want(self, wanted: EventFilter) -> None:
        if wanted == self.wanted:
            return
        self.wanted = wanted
        for follower in self.followers:
            follower.wants_others()

    def _position_message(self) -> bytes:
        if not self._tell_positions:
            return b""
        return text_frame(msgspec.json.encode(PositionMessage(self.position)))


def _up_to(history: Sequence[Recorded], order: tuple[int, int]) -> list[Recorded]:
    """The events up to a place, by version, each once."""
    by_version = {one.version: one for one in history if one.position.order <= order}
    return [by_version[version] for version in sorted(by_version)]
