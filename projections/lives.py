"""Tasks as they were at some moment: events folded in memory, without a read model.

Only tasks that are not finished, or whose callback is still to be taken, are kept: what becomes of
the others is told, so that memory is bounded by what was alive. One that comes back to life is
taken up again by its history.
"""

from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from typing import Final

import msgspec

from ledger.codec import Undecodable, decode_event, decoder_of
from ledger.erasure import redacted_submission
from ledger.events import Event, Priority, TaskSubmitted
from ledger.evolve import initial_state, state_after
from ledger.identity import SYSTEM
from ledger.placement import Queue
from ledger.store import Recorded
from ledger.task import FINISHED, State, Status
from ledger.transitions import IllegalTransition, next_status
from projections.counting import process_ms
from projections.queue_sizes import QueueSize
from projections.queues import Place, place
from projections.task_stats import Stats

NO_JSON: Final = msgspec.Raw(b"{}")

History = Callable[[str], Awaitable[Sequence[Recorded]]]


class Unfoldable(Exception):
    """An event that cannot follow upon those before it, or cannot be read."""

    def __init__(self, event: Recorded, reason: str) -> None:
        super().__init__(f"{event.type} of {event.task_id} at {event.position}: {reason}")
        self.position = event.position


class Life(msgspec.Struct, gc=False):
    """One task, at one moment."""

    submission: TaskSubmitted
    """Without its payload, unless that is wanted."""
    state: State
    version: int

    @property
    def over(self) -> bool:
        """Whether nothing is to be expected any more."""
        state = self.state
        return state.status in FINISHED and (
            self.submission.callback_url is None or state.callback_over
        )


class Lives:
    """`take` events, each task's in order; then look at `living`.

    `ended` is told of each task that is over, and `returned` of one that is not, after all.
    """

    def __init__(
        self,
        history: History,
        ended: Callable[[str, Life], None],
        returned: Callable[[str, Life], None],
        *,
        with_payloads: bool = False,
    ) -> None:
        self._history = history
        self._ended = ended
        self._returned = returned
        self._with_payloads = with_payloads
        self._decoders: dict[str, Callable[[bytes], Event]] = {}
        self.living: dict[str, Life] = {}

    async def take(self, events: Iterable[Recorded]) -> None:
        """Fold events of one partition. Raises Unfoldable, and as the history does."""
        left = iter(events)
        while (unknown := self._take_all(left)) is not None:
            before = await self._history(unknown.task_id)
            life = self._life_before(unknown, before)
            if life.over:
                self._returned(unknown.task_id, life)
            self._go_on(unknown, life)

    def _take_all(self, left: Iterable[Recorded]) -> Recorded | None:
        """Take those that are left, up to one of a task that is not at hand, if there is one."""
        living, decoders = self.living, self._decoders
        event: Recorded | None = None
        try:
            for event in left:
                life = living.get(event.task_id)
                if life is None:
                    if event.task_id == SYSTEM:
                        continue
                    if event.version != 1:
                        return event
                    living[event.task_id] = self._begin(event)
                    continue
                if event.version != life.version + 1:
                    raise IllegalTransition(f"it cannot follow version {life.version}")
                decode = decoders.get(event.type) or self._decoder_of(event.type)
                state = life.state = state_after(life.state, decode(event.data), event.at)
                life.version = event.version
                if state.erased:
                    life.submission = redacted_submission(life.submission)
                if state.status in FINISHED and life.over:
                    del living[event.task_id]
                    self._ended(event.task_id, life)
        except (Undecodable, IllegalTransition, ValueError, RecursionError) as error:
            assert event is not None  # noqa: S101 - it is one of them that failed
            raise Unfoldable(event, str(error)) from error
        return None

    def _go_on(self, event: Recorded, life: Life) -> None:
        self.living[event.task_id] = life
        self._take_all([event])

    def _begin(self, event: Recorded) -> Life:
        submitted = decode_event(event.type, event.data)
        if not isinstance(submitted, TaskSubmitted):
            next_status(None, type(submitted))
            raise AssertionError("the transition table lets a life begin in one way only")
        state = initial_state(submitted, event.at)
        if not self._with_payloads:
            submitted = msgspec.structs.replace(submitted, payload=NO_JSON, metadata=NO_JSON)
        return Life(submitted, state, 1)

    def _life_before(self, event: Recorded, history: Sequence[Recorded]) -> Life:
        """The task as it was before an event. Raises Unfoldable."""
        life: Life | None = None
        for each in history:
            if each.version >= event.version:
                break
            try:
                if life is None:
                    life = self._begin(each)
                else:
                    happened = decode_event(each.type, each.data)
                    life.state = state_after(life.state, happened, each.at)
                    life.version = each.version
                    if life.state.erased:
                        life.submission = redacted_submission(life.submission)
            except (Undecodable, IllegalTransition) as error:
                raise Unfoldable(each, str(error)) from error
        if life is None or life.version != event.version - 1:
            raise Unfoldable(event, "there is nothing of what came before it")
        return life

    def _decoder_of(self, name: str) -> Callable[[bytes], Event]:
        decode = self._decoders[name] = decoder_of(name.encode())
        return decode


class Counts:
    """Statistics and queues of lives."""

    def __init__(self) -> None:
        self._cells: dict[tuple[str, str, Priority, Status], list[int]] = {}

    def ended(self, _: str, life: Life) -> None:
        """See Lives."""
        self._count(self._cells, life, 1)

    def returned(self, _: str, life: Life) -> None:
        """See Lives."""
        self._count(self._cells, life, -1)

    def stats(
        self, living: Iterable[Life], kbs: Collection[str] | None, types: Collection[str] | None
    ) -> Stats:
        """As the projection of that name tells them: of all tasks, or of these knowledge bases and
        types."""
        cells = {key: list(cell) for key, cell in self._cells.items()}
        for life in living:
            self._count(cells, life, 1)
        by_status, by_priority = dict.fromkeys(Status, 0), dict.fromkeys(Priority, 0)
        by_type: dict[str, int] = {}
        spent = 0
        for (kb, kind, priority, status), (n, spent_ms) in cells.items():
            if (kbs is None or kb in kbs) and (types is None or kind in types):
                by_status[status] += n
                by_priority[priority] += n
                by_type[kind] = by_type.get(kind, 0) + n
                spent += spent_ms
        named = {kind: n for kind, n in sorted(by_type.items()) if n}
        return Stats(by_status, named, by_priority, spent)

    def _count(
        self, cells: dict[tuple[str, str, Priority, Status], list[int]], life: Life, n: int
    ) -> None:
        submission, state = life.submission, life.state
        key = submission.kb_id, submission.task_type, submission.priority, state.status
        cell = cells.setdefault(key, [0, 0])
        cell[0] += n
        cell[1] += n * process_ms(state)


def queues_of(living: Iterable[Life], kbs: Collection[str] | None) -> list[QueueSize]:
    """The queues in which something waits or runs, as the projection of that name tells them."""
    places: dict[Queue, list[int]] = {}
    oldest: dict[Queue, int] = {}
    for life in living:
        where, submission = place(life.state), life.submission
        if where is None or (kbs is not None and submission.kb_id not in kbs):
            continue
        queue = Queue(submission.task_type, submission.priority)
        places.setdefault(queue, [0] * len(Place))[where] += 1
        if where is Place.READY:
            oldest[queue] = min(oldest.get(queue, life.state.updated_at), life.state.updated_at)
    order = list(Priority)
    return [
        _size(queue, places[queue], oldest.get(queue))
        for queue in sorted(places, key=lambda q: (q.task_type, order.index(q.priority)))
    ]


def _size(queue: Queue, placed: Sequence[int], oldest: int | None) -> QueueSize:
    ready, delayed, processing = (placed[where] for where in Place)
    return QueueSize(queue, ready, delayed, processing, oldest)
