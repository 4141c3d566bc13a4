"""How tasks wait in queues, in plain dictionaries: the reference that queues.lua is compared with.

A queue's tasks stand in line (`ready`, short) or behind it (`backlog`), from which they move up one
of each kb_id in turn. Tasks that stand in line or run are admitted; limits bound how many are.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Final

import msgspec

from ledger.events import Priority
from ledger.placement import STAGED_MAX, Queue
from ledger.task import Task


def _name(queue: Queue) -> str:
    return f"{queue.task_type}:{queue.priority}"


def _least_urgent_first(queues: Iterable[Queue]) -> list[Queue]:
    order = list(Priority)
    return sorted(queues, key=lambda queue: (-order.index(queue.priority), _name(queue)))


class ReadyEntry(msgspec.Struct):
    task_id: str
    kb_id: str
    delivered_at: int | None = None


FIRST_AGE: Final = 1_000
"""Room below, for what goes back to the front of a backlog."""

Owner = tuple[int, bytes]
"""A kb_id as backlogs order them: the shorter ones first."""


def owner_of(kb_id: str) -> Owner:
    encoded = kb_id.encode()
    return len(encoded), encoded


class Backlog:
    """The tasks behind those in line."""

    def __init__(self) -> None:
        self.tasks: dict[Owner, dict[int, tuple[str, str]]] = {}
        """(task id, kb_id) by age, of each owner that has any."""
        self.turn: Owner | None = None
        """Who moved up last."""

    def __len__(self) -> int:
        return sum(map(len, self.tasks.values()))

    def put(self, task_id: str, kb_id: str, age: int) -> None:
        self.tasks.setdefault(owner_of(kb_id), {})[age] = (task_id, kb_id)

    def remove(self, kb_id: str, age: int) -> None:
        owner = owner_of(kb_id)
        del self.tasks[owner][age]
        if not self.tasks[owner]:
            del self.tasks[owner]

    def in_turn(self) -> list[Owner]:
        """The owners in the order in which they move up."""
        owners, turn = sorted(self.tasks), self.turn
        if turn is None:
            return owners
        return [o for o in owners if o > turn] + [o for o in owners if o <= turn]

    def before(self, kb_id: str, age: int) -> int:
        """How many move up before a task of the backlog does."""
        own = owner_of(kb_id)
        ahead = sum(1 for other in self.tasks[own] if other < age)
        owners = self.in_turn()
        earlier = owners[: owners.index(own)]
        return ahead + sum(
            min(len(self.tasks[owner]), ahead + (owner in earlier))
            for owner in owners
            if owner != own
        )


class WaitingLine:
    """One queue: those in line, and those behind them."""

    def __init__(self) -> None:
        self.ready: dict[str, ReadyEntry] = {}
        self.backlog = Backlog()

    def __len__(self) -> int:
        return len(self.ready) + len(self.backlog)

    @property
    def untaken(self) -> int:
        return sum(entry.delivered_at is None for entry in self.ready.values())


class Standing(msgspec.Struct, frozen=True):
    """Where a waiting task stands: an entry of those in line, or an age in the backlog."""

    entry: str = ""
    age: int = 0


class WaitingLines:
    """All queues of a partition."""

    def __init__(self, next_entry: Callable[[], str], staged_max: int = STAGED_MAX) -> None:
        self.lines: dict[Queue, WaitingLine] = {}
        self.admitted: Counter[str] = Counter()
        """`type:<type>` and `kb:<kb_id>`: how many stand in line or run."""
        self.limits: dict[str, int] = {}
        self._next_entry = next_entry
        self._staged_max = staged_max
        self._standing: dict[str, Standing] = {}
        self._held = FIRST_AGE

    def line(self, queue: Queue) -> WaitingLine:
        line = self.lines.get(queue)
        if line is None:
            line = self.lines[queue] = WaitingLine()
        return line

    def admit(self, task_type: str, kb_id: str, by: int) -> None:
        """A task began (1) or ceased (-1) to stand in line or to run."""
        for name in (f"type:{task_type}", f"kb:{kb_id}"):
            self.admitted[name] += by
            if self.admitted[name] <= 0:
                del self.admitted[name]

    def _has_room(self, name: str) -> bool:
        limit = self.limits.get(name)
        return limit is None or self.admitted[name] < limit

    def enter(self, queue: Queue, task: Task) -> None:
        kb_id, line = task.submission.kb_id, self.line(queue)
        # Behind others that wait, unless those are at their limits: what could move up has done so.
        is_next = not line.backlog or (self.limits and owner_of(kb_id) not in line.backlog.tasks)
        if (
            is_next
            and line.untaken < self._staged_max
            and self._has_room(f"type:{queue.task_type}")
            and self._has_room(f"kb:{kb_id}")
        ):
            self._stage(queue, task.id, kb_id)
            return
        self._held += 1
        line.backlog.put(task.id, kb_id, self._held)
        self._standing[task.id] = Standing(age=self._held)

    def leave(self, queue: Queue, task: Task, *, to_run: bool) -> None:
        """The task waits no longer, `to_run` or for another reason."""
        line, standing = self.line(queue), self._standing.pop(task.id, None)
        if standing is None:
            return  # its entry was dropped
        if standing.age:
            line.backlog.remove(task.submission.kb_id, standing.age)
            return
        line.ready.pop(standing.entry, None)
        self.admit(queue.task_type, task.submission.kb_id, -1)
        if not to_run:
            self.loosen(queue.task_type)

    def loosen(self, task_type: str) -> None:
        """There may be room: the next of this type move up, the most urgent first."""
        for priority in Priority:
            self._top_up(Queue(task_type, priority))

    def end_run(self, queue: Queue, kb_id: str) -> None:
        """A task of a queue runs no longer; who waits for its place moves up."""
        self.admit(queue.task_type, kb_id, -1)
        if self.limits:
            if f"kb:{kb_id}" in self.limits:
                self._offer_place(queue, kb_id)
            self.loosen(queue.task_type)

    def change_limits(self, limits: dict[str, int]) -> None:
        """What is more than they let, and nobody has taken, goes back; what they let moves up."""
        self.limits = limits
        self._keep_limits()

    def recount(self, running: Sequence[tuple[str, str]]) -> int:
        """Count anew who is admitted; `running`: (type, kb_id). Returns how many counts change."""
        counted = [(queue.task_type, e.kb_id) for queue, e in self._in_line()] + list(running)
        found = Counter(f"type:{kind}" for kind, _ in counted)
        found.update(f"kb:{kb_id}" for _, kb_id in counted)
        names = found.keys() | self.admitted.keys()
        changed = sum(found[name] != self.admitted[name] for name in names)
        if changed:
            self.admitted = found
            self._keep_limits()
        return changed

    def _in_line(self) -> Iterable[tuple[Queue, ReadyEntry]]:
        return ((queue, e) for queue, line in self.lines.items() for e in line.ready.values())

    def _keep_limits(self) -> None:
        for queue, name in self._idle(self.lines):
            of_type, of_kb = f"type:{queue.task_type}", f"kb:{self.line(queue).ready[name].kb_id}"
            if max(self._excess(of_type), self._excess(of_kb)) > 1:
                self._take_back(queue, name)
        for queue in reversed(_least_urgent_first(self.lines)):
            self._top_up(queue)

    def _idle(self, queues: Iterable[Queue]) -> list[tuple[Queue, str]]:
        """What nobody has taken: of the least urgent queue first, the youngest first."""
        in_order = _least_urgent_first(queues)
        return [(queue, name) for queue in in_order for name in reversed(self._untaken(queue))]

    def _offer_place(self, freed_by: Queue, kb_id: str) -> None:
        """The most urgent task of a kb_id moves up, task types taking turns from `freed_by` on."""
        owner, order, freed = owner_of(kb_id), list(Priority), _name(freed_by)
        waiting = [q for q, line in self.lines.items() if owner in line.backlog.tasks]
        waiting.sort(key=lambda q: (order.index(q.priority), _name(q) <= freed, _name(q)))
        for queue in waiting:
            if (
                self._has_room(f"kb:{kb_id}")
                and self._has_room(f"type:{queue.task_type}")
                and self.line(queue).untaken < self._staged_max
            ):
                self._move_up(queue, owner)

    def drop(self, queue: Queue, entry: str) -> None:
        dropped = self.line(queue).ready.pop(entry, None)
        if dropped is not None:
            if self._standing.get(dropped.task_id) == Standing(entry=entry):
                del self._standing[dropped.task_id]
            self.admit(queue.task_type, dropped.kb_id, -1)
            self._top_up(queue)

    def take(
        self, queues: Sequence[Queue], count: int, now_ms: int, woken: Collection[Queue] = ()
    ) -> list[tuple[Queue, str]]:
        """The next `count`, the first queue's first: queues and entries. Of the queues in `woken`
        one was taken before by `wake`."""
        found: list[tuple[Queue, str]] = []
        for queue in queues:
            if len(found) >= count:
                break
            if queue not in self.lines:
                continue
            # In the second round what is missing is made to stand in line first.
            for of_backlog in (False, True):
                wanted = count - len(found)
                if of_backlog:
                    self._refill(queue, wanted, at_once=True)
                taken = [(queue, name) for name in self._untaken(queue)[: max(wanted, 0)]]
                self._deliver(taken, now_ms)
                found += taken
        touched = {queue for queue, _ in found}.union(woken)
        for queue in queues:
            if queue in touched:
                self._top_up(queue)
        return found

    def wake(self, queues: Sequence[Queue], now_ms: int) -> list[tuple[Queue, str]]:
        """The first in line, as a blocked reader gets it: without a look at who stands behind."""
        for queue in queues:
            if queue not in self.lines:
                continue
            for name in self._untaken(queue)[:1]:
                self.line(queue).ready[name].delivered_at = now_ms
                return [(queue, name)]
        return []

    def stale(
        self, queues: Sequence[Queue], count: int, idle_ms: int, now_ms: int
    ) -> list[tuple[Queue, str]]:
        """Those that were taken so long ago; they are taken again."""
        found = [
            (queue, name)
            for queue in queues
            if queue in self.lines
            for name, entry in self.line(queue).ready.items()
            if entry.delivered_at is not None and entry.delivered_at <= now_ms - idle_ms
        ][:count]
        self._deliver(found, now_ms)
        return found

    def _deliver(self, entries: Sequence[tuple[Queue, str]], now_ms: int) -> None:
        for queue, name in entries:
            line = self.line(queue)
            line.ready[name].delivered_at = now_ms

    def release(self, queue: Queue, entry: str) -> None:
        """What was taken, and not started, goes to the end of those in line, as far as limits let
        it that may have come meanwhile."""
        line = self.line(queue)
        known = line.ready.get(entry)
        if known is None or known.delivered_at is None:
            return
        del line.ready[entry]
        name = self._next_entry()
        line.ready[name] = ReadyEntry(known.task_id, known.kb_id)
        self._standing[known.task_id] = Standing(entry=name)
        if self.limits:
            self._keep_limits()

    def is_held(self, task: Task) -> bool:
        """Whether a task stands in a backlog."""
        standing = self._standing.get(task.id)
        return standing is not None and standing.age > 0

    def is_behind_limit(self, task: Task) -> bool:
        """Whether a task stands in a backlog that its limits do not let it leave."""
        submission = task.submission
        names = (f"type:{submission.task_type}", f"kb:{submission.kb_id}")
        return self.is_held(task) and not all(map(self._has_room, names))

    def position(self, task: Task, queue: Queue) -> int:
        standing = self._standing.get(task.id)
        if standing is None:
            return 0
        untaken = self._untaken(queue)
        if standing.age:
            backlog = self.line(queue).backlog
            own = len(untaken) + backlog.before(task.submission.kb_id, standing.age) + 1
        elif standing.entry in untaken:
            own = untaken.index(standing.entry) + 1
        else:
            return 0
        order = list(Priority)
        more_urgent = order[: order.index(queue.priority)]
        return own + sum(len(self.line(Queue(queue.task_type, p))) for p in more_urgent)

    def _untaken(self, queue: Queue) -> list[str]:
        return [name for name, e in self.line(queue).ready.items() if e.delivered_at is None]

    def _stage(self, queue: Queue, task_id: str, kb_id: str) -> None:
        line, name = self.line(queue), self._next_entry()
        line.ready[name] = ReadyEntry(task_id, kb_id)
        self._standing[task_id] = Standing(entry=name)
        self.admit(queue.task_type, kb_id, 1)

    def _top_up(self, queue: Queue) -> None:
        self._refill(queue, self._staged_max - self.line(queue).untaken)

    def could_move_up(self, queue: Queue) -> bool:
        """Whether a task of the backlog may stand in line, as far as limits go."""
        return bool(self._movable(queue))

    def _movable(self, queue: Queue, *, at_once: bool = False) -> list[Owner]:
        """The owners of whom one may move up, in turn."""
        owners = self.line(queue).backlog.in_turn()
        return [o for o in owners if self._may_move(queue, o[1].decode(), at_once=at_once)]

    def _may_move(self, queue: Queue, kb_id: str, *, at_once: bool) -> bool:
        if at_once:
            return self._in_the_way(queue, kb_id) is not None
        return self._has_room(f"type:{queue.task_type}") and self._has_room(f"kb:{kb_id}")

    def _refill(self, queue: Queue, wanted: int, *, at_once: bool = False) -> None:
        """Let so many move up; they are taken `at_once`, or will be when somebody has room."""
        backlog = self.line(queue).backlog
        while wanted > 0 and (owners := self._movable(queue, at_once=at_once)):
            backlog.turn = owners[0]
            for idle in self._in_the_way(queue, owners[0][1].decode()) or ():
                self._take_back(*idle)
            self._move_up(queue, owners[0])
            wanted -= 1

    def _move_up(self, queue: Queue, owner: Owner) -> None:
        backlog = self.line(queue).backlog
        age = min(backlog.tasks[owner])
        task_id, kb_id = backlog.tasks[owner][age]
        backlog.remove(kb_id, age)
        self._stage(queue, task_id, kb_id)

    def _excess(self, name: str) -> int:
        """How many places of a type or a kb_id must become free for one more."""
        return self.admitted[name] + 1 - self.limits[name] if name in self.limits else 0

    def _in_the_way(self, queue: Queue, kb_id: str) -> list[tuple[Queue, str]] | None:
        """Tasks that nobody has taken, and whose places one more of `kb_id` in `queue` needs: of
        the same kb_id in other queues, and of the same type in less urgent ones. The least urgent
        queue's first, the youngest first. None when that makes no room."""
        order = list(Priority)
        idle = self._idle(other for other in self.lines if other != queue)
        of_kb = [one for one in idle if self.line(one[0]).ready[one[1]].kb_id == kb_id]
        of_kb = of_kb[: max(self._excess(f"kb:{kb_id}"), 0)]
        freed = sum(other.task_type == queue.task_type for other, _ in of_kb)
        urgency = order.index(queue.priority)
        of_type = [
            one
            for one in idle
            if one not in of_kb
            and one[0].task_type == queue.task_type
            and order.index(one[0].priority) > urgency
        ]
        of_type = of_type[: max(self._excess(f"type:{queue.task_type}") - freed, 0)]
        freed += len(of_type)
        if len(of_kb) < self._excess(f"kb:{kb_id}") or freed < self._excess(
            f"type:{queue.task_type}"
        ):
            return None
        return [*of_kb, *of_type]

    def _take_back(self, queue: Queue, name: str) -> None:
        """To the front of its kb_id's backlog: a worker has a use for its place at once."""
        line = self.line(queue)
        entry = line.ready.pop(name)
        known = line.backlog.tasks.get(owner_of(entry.kb_id))
        if known:
            age = min(known) - 1
        else:
            self._held += 1
            age = self._held
        line.backlog.put(entry.task_id, entry.kb_id, age)
        self._standing[entry.task_id] = Standing(age=age)
        self.admit(queue.task_type, entry.kb_id, -1)
