"""Given events, when a command, then events: the words in which the rules are tested.

    given(SUBMITTED, STARTED).when(CancelTask()).then(TaskCanceled())
    given(SUBMITTED).when(CompleteTask(1, RESULT)).then(rejected(Code.TASK_NOT_PROCESSING))

Times are milliseconds; the events of `given` happen one second apart, from T0 on.
"""

from typing import Final

import msgspec

from ledger.commands import Command
from ledger.decide import decide
from ledger.events import Event, TaskSubmitted
from ledger.evolve import fold
from ledger.rejections import Rejection, RejectionCode
from ledger.task import Task
from ledger.transact import apply

T0: Final = 1_760_000_000_000
TASK_ID: Final = "01996abc-2400-7000-8000-0000000000a7"
TRACE: Final = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
OTHER_TRACE: Final = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


class Rejected(msgspec.Struct, frozen=True):
    """What `then` is given when the command is to be refused."""

    code: RejectionCode


def rejected(code: RejectionCode) -> Rejected:
    return Rejected(code)


class Given:
    """A task (or none) at a time."""

    def __init__(self, task: Task | None, now: int) -> None:
        self.task = task
        self.now = now

    def when(self, command: Command, *, at: int | None = None) -> "When":
        """Decide `command` at time `at` (ms), or one second after what was given."""
        now = self.now + 1_000 if at is None else at
        try:
            return When(self.task, decide(command, self.task, now), now)
        except Rejection as rejection:
            return When(self.task, Rejected(rejection.code), now)


class When:
    """What a command made happen."""

    def __init__(self, task: Task | None, outcome: tuple[Event, ...] | Rejected, now: int) -> None:
        self._task = task
        self._outcome = outcome
        self._now = now

    def then(self, *expected: Event | Rejected) -> Given:
        """Check it, and go on from there."""
        if isinstance(self._outcome, Rejected):
            assert (self._outcome,) == expected
            return Given(self._task, self._now)
        assert self._outcome == expected
        if not self._outcome:
            return Given(self._task, self._now)
        task_id = TASK_ID if self._task is None else self._task.id
        return Given(apply(task_id, self._task, self._outcome, self._now), self._now)


def given(*events: Event) -> Given:
    """The task that `events` make; none of no events."""
    history = [(event, T0 + 1_000 * i) for i, event in enumerate(events)]
    return Given(fold(TASK_ID, history), T0 + 1_000 * max(len(events) - 1, 0))


def a_submission(
    *,
    task_type: str = "document_processing",
    kb_id: str = "kb",
    payload: bytes = b"{}",
    **others: object,
) -> TaskSubmitted:
    """A submission in which only what a test is about has to be named."""
    fields = {"task_type": task_type, "kb_id": kb_id, "payload": msgspec.Raw(payload), **others}
    return TaskSubmitted(**fields)  # pyright: ignore[reportArgumentType] # names are checked at run time
