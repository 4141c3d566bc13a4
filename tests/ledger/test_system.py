"""The rules of the service's own subject: pauses, limits, and lost workers."""

import msgspec
import pytest
from hypothesis import given as for_all
from hypothesis import strategies as st

from ledger.codec import decode_system, decode_system_event, encode
from ledger.rejections import Rejection, RejectionCode
from ledger.system import decide as rules
from ledger.system.commands import (
    PauseQueue,
    RecordWorkerLost,
    RemoveLimit,
    ResumeQueue,
    SetLimit,
    SystemCommand,
)
from ledger.system.decide import LOSSES_MAX, decide
from ledger.system.events import (
    LimitRemoved,
    LimitScope,
    LimitSet,
    QueuePaused,
    QueueResumed,
    SystemEvent,
    WorkerLost,
)
from ledger.system.evolve import evolve, fold
from ledger.system.state import INITIAL, Pause, System, SystemState
from ledger.workers import LOST_KEPT_MS
from tests.given import T0

TYPE, KB = LimitScope.TYPE, LimitScope.KB
LOST = RecordWorkerLost("w1", "h1", 7, T0 - 20_000, 3)

names = st.sampled_from(["a", "b", "ü:c"])
commands: st.SearchStrategy[SystemCommand] = st.one_of(
    st.builds(PauseQueue, names, st.text(max_size=9)),
    st.builds(ResumeQueue, names),
    st.builds(SetLimit, st.sampled_from(LimitScope), names, st.integers(1, 3)),
    st.builds(RemoveLimit, st.sampled_from(LimitScope), names),
    st.builds(
        RecordWorkerLost, names, st.just("h"), st.just(1), st.integers(T0, T0 + 3), st.just(0)
    ),
)


def after(*events: SystemEvent) -> System:
    return fold((event, T0 + n, "ann") for n, event in enumerate(events))


def decided(command: SystemCommand, *events: SystemEvent) -> tuple[SystemEvent, ...]:
    return decide(command, after(*events), T0 + 1_000)


def test_a_queue_is_paused_and_resumed():
    paused = QueuePaused("mail", "the server is full")

    assert decided(PauseQueue("mail", "the server is full")) == (paused,)
    assert decided(ResumeQueue("mail"), paused) == (QueueResumed("mail"),)
    assert after(paused).state.paused == {"mail": Pause(T0, "the server is full", "ann")}
    assert after(paused, QueueResumed("mail")).state.paused == {}


def test_who_paused_a_queue_first_stands():
    assert decided(PauseQueue("mail", "another reason"), QueuePaused("mail")) == ()


def test_a_queue_that_is_not_paused_is_not_resumed():
    assert decided(ResumeQueue("mail"), QueuePaused("other")) == ()


def test_limits_are_set_changed_and_removed():
    one, two = LimitSet(TYPE, "mail", 1), LimitSet(TYPE, "mail", 2)

    assert decided(SetLimit(TYPE, "mail", 1)) == (one,)
    assert decided(SetLimit(TYPE, "mail", 1), one) == ()
    assert decided(SetLimit(TYPE, "mail", 2), one) == (two,)
    assert decided(RemoveLimit(TYPE, "mail"), one) == (LimitRemoved(TYPE, "mail"),)
    assert decided(RemoveLimit(KB, "mail"), one) == ()


def test_the_limits_of_types_and_of_knowledge_bases_are_apart():
    system = after(LimitSet(TYPE, "a", 1), LimitSet(KB, "a", 2), QueuePaused("a"))

    assert (system.state.type_limits, system.state.kb_limits) == ({"a": 1}, {"a": 2})
    assert (system.version, system.state.limits_version) == (3, 2)


def test_there_is_a_bound_on_limits(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(rules, "LIMITS_MAX", 2)
    full = (LimitSet(KB, "a", 1), LimitSet(KB, "b", 1))

    with pytest.raises(Rejection) as raised:
        decided(SetLimit(KB, "c", 1), *full)

    assert raised.value.code is RejectionCode.TOO_MANY_LIMITS
    assert decided(SetLimit(KB, "b", 2), *full) == (LimitSet(KB, "b", 2),)
    assert decided(SetLimit(TYPE, "c", 1), *full) == (LimitSet(TYPE, "c", 1),)


def test_a_loss_is_recorded_once():
    lost = WorkerLost("w1", "h1", 7, T0 - 20_000, 3)

    assert decided(LOST) == (lost,)
    assert decided(LOST, lost) == ()


def test_a_worker_that_came_back_can_be_lost_again():
    again = msgspec.structs.replace(LOST, last_heartbeat=T0)

    assert decided(again, WorkerLost("w1", "h1", 7, T0 - 20_000, 3)) == (
        WorkerLost("w1", "h1", 7, T0, 3),
    )


def test_losses_of_workers_that_nobody_shows_any_more_are_forgotten():
    system = evolve(after(WorkerLost("w1", "h", 1, T0, 0)), QueuePaused("a"), T0, "ann")

    later = evolve(system, WorkerLost("w2", "h", 2, T0, 0), T0 + LOST_KEPT_MS, "ann")

    assert later.state.lost == {"w2": T0}


def test_no_more_losses_are_recorded_than_are_remembered():
    many = [WorkerLost(f"w{n}", "h", n, T0 + n, 0) for n in range(LOSSES_MAX)]
    system = fold((event, T0 + LOSSES_MAX, "ann") for event in many)
    command = msgspec.structs.replace(LOST, worker_id="one more", last_heartbeat=T0 + 5_000)

    assert decide(command, system, T0 + LOSSES_MAX) == ()
    assert decide(command, system, T0 + LOST_KEPT_MS) != ()


@for_all(st.lists(commands, max_size=12))
def test_whatever_happens_a_second_time_nothing_comes_of_it(chosen: list[SystemCommand]):
    system, now = INITIAL, T0
    for command in chosen:
        now += 1
        for event in decide(command, system, now):
            assert decode_system_event(type(event).__name__, encode(event)) == event
            system = evolve(system, event, now, "ann")
        assert decide(command, system, now) == ()
    assert decode_system(system.version, encode(system.state)) == system


def test_the_first_state_takes_no_room():
    assert encode(SystemState()) == b"{}"
