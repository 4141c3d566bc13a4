"""What every store must do about callbacks. As `StoreContract`, which it is mixed into."""

import asyncio

from ledger.commands import (
    CancelTask,
    CompleteTask,
    DeliverCallback,
    FailCallback,
    RetryTask,
)
from ledger.events import CallbackFailed
from ledger.retry_policy import RetryPolicy
from ledger.store import CallbacksWaiting, DueCallback, DueCallbacks, Store
from ledger.task import Task
from ledger.transact import transact
from tests.contracts.store import (
    LONG_MS,
    RESULT,
    SIGNAL_MS,
    AnyStore,
    send,
    start,
    submit,
)
from tests.places import assert_quiescent, place_of, places_of

A, B = "a.test:80", "b.test:443"
URLS = {A: "http://a.test/{task_id}", B: "https://b.test/x"}


async def end(store: Store, host: str = A) -> Task:
    """A task that was canceled, and whose `host` is to hear of it."""
    return await send(store, await submit(store, callback_url=URLS[host]), CancelTask())


async def take(
    store: Store, count: int = 100, host_max: int = 100, lease_ms: int = LONG_MS, **in_hand: int
) -> list[str]:
    """The ids of tasks whose callbacks were handed out. `a` and `b`: how many of these hosts are in
    hand already."""
    held = {{"a": A, "b": B}[name]: n for name, n in in_hand.items()}
    found = await store.take_callbacks(0, count, host_max=host_max, in_hand=held, lease_ms=lease_ms)
    return [callback.task_id for callback in found.callbacks]


async def take_some(store: Store) -> list[str]:
    """As `take`, once there is something."""
    async with asyncio.timeout(SIGNAL_MS / 1000):
        while True:
            found = await take(store)
            if found:
                return found
            await asyncio.sleep(0.001)


async def hear(store: Store) -> None:
    """Listen as an idle notifier does."""
    while True:
        if await store.callbacks_due(0, SIGNAL_MS):
            return
        await asyncio.sleep(0)


def refusal(task: Task, pause_ms: int, *, is_final: bool = False) -> FailCallback:
    policy = RetryPolicy(base_ms=pause_ms, cap_ms=pause_ms, spread=0)
    return FailCallback(task.ending, 1, A, "it answered 503", 503, is_final, policy=policy)


class CallbacksContract:
    async def test_an_end_that_somebody_wants_to_hear_of_is_due_at_once(self, store: AnyStore):
        submitted = await submit(store, callback_url=URLS[A])
        running = await start(store, submitted)
        before = await take(store)

        done = await send(store, running, CompleteTask(1, RESULT))

        assert before == []
        assert await places_of(store) == {done.id: place_of(done)}
        found = await store.take_callbacks(0, 10, host_max=10, in_hand={}, lease_ms=LONG_MS)
        assert found.callbacks == (DueCallback(A, done.id),)

    async def test_the_news_does_not_wait_for_a_clock_that_was_set_back(self, store: AnyStore):
        task = await submit(store, callback_url=URLS[A])

        await transact(store, task.id, CancelTask(), now_ms=store.now_ms() + LONG_MS)

        found = await store.take_callbacks(0, 10, host_max=10, in_hand={}, lease_ms=LONG_MS)
        assert found.next_in_ms is not None
        assert found.next_in_ms <= 1_000

    async def test_an_end_that_nobody_wants_to_hear_of_is_not_due(self, store: AnyStore):
        await send(store, await submit(store), CancelTask())

        assert await take(store) == []
        await assert_quiescent(store)

    async def test_a_callback_is_handed_out_to_one_until_its_lease_ends(self, store: AnyStore):
        task = await end(store)

        first = await take(store, lease_ms=1)
        again = await take_some(store)

        assert (first, again, await take(store)) == ([task.id], [task.id], [])

    async def test_a_delivered_callback_waits_nowhere(self, store: AnyStore):
        task = await end(store)
        await take(store)

        await send(store, task, DeliverCallback(task.ending, A, 200))

        await assert_quiescent(store)
        assert await take(store) == []

    async def test_a_failed_callback_is_due_again_when_its_pause_is_over(self, store: AnyStore):
        task = await end(store)
        await take(store)

        after = await send(store, task, refusal(task, LONG_MS))
        found = await store.take_callbacks(0, 10, host_max=10, in_hand={}, lease_ms=LONG_MS)

        assert await places_of(store) == {task.id: place_of(after)}
        assert found.callbacks == ()
        assert found.next_in_ms is not None
        assert 0 < found.next_in_ms <= LONG_MS

    async def test_a_failed_callback_is_handed_out_again_after_its_pause(self, store: AnyStore):
        task = await end(store)
        await take(store)

        await send(store, task, refusal(task, 1))

        assert await take_some(store) == [task.id]

    async def test_a_callback_that_is_given_up_waits_nowhere(self, store: AnyStore):
        task = await end(store)

        after = await send(store, task, refusal(task, 0, is_final=True))

        last = (await store.history(task.id))[-1].event()
        assert isinstance(last, CallbackFailed)
        assert last.retry_at is None
        assert after.version == task.version + 1
        await assert_quiescent(store)

    async def test_a_task_that_is_retried_has_no_callback_until_its_next_end(self, store: AnyStore):
        task = await end(store)

        again = await send(store, task, RetryTask())
        between = await take(store)
        ended = await send(store, again, CancelTask())

        assert between == []
        assert ended.ending != task.ending
        assert await take(store) == [task.id]

    async def test_no_host_gets_more_than_its_share_and_the_idle_come_first(self, store: AnyStore):
        of_a = [(await end(store, A)).id for _ in range(4)]
        of_b = [(await end(store, B)).id for _ in range(2)]

        first = await take(store, 3, host_max=2, a=1)
        then = await take(store, 10, host_max=2, a=2, b=2)

        # Of b, of which nothing is in hand; then one more of each, which is all that a may have.
        assert first[0] in of_b
        assert len(set(first) & set(of_b)) == 2
        assert then == []
        assert sorted([*first, *await take(store)]) == sorted([*of_a, *of_b])

    async def test_a_host_without_room_does_not_stand_before_others(self, store: AnyStore):
        for _ in range(5):
            await end(store, A)
        late = await end(store, B)

        assert await take(store, 1, host_max=1, a=1) == [late.id]

    async def test_who_waits_hears_of_an_end(self, store: AnyStore):
        async with asyncio.timeout(SIGNAL_MS / 1000):
            before = await store.callbacks_due(0, 1)
            heard = asyncio.ensure_future(hear(store))
            await end(store)
            await heard

        assert not before

    async def test_who_leaves_something_rings_for_others(self, store: AnyStore):
        await end(store)
        await end(store)
        heard = await store.callbacks_due(0, SIGNAL_MS)

        await take(store, 1)
        again = await store.callbacks_due(0, SIGNAL_MS)
        await take(store, 1)
        last = await store.callbacks_due(0, 1)

        assert (heard, again, last) == (True, True, False)

    async def test_what_has_just_become_due_may_be_left_to_settle(self, store: AnyStore):
        await end(store)

        found = await store.take_callbacks(
            0, 10, host_max=10, in_hand={}, lease_ms=1, settle_ms=LONG_MS
        )

        assert found.callbacks == ()
        assert found.next_in_ms is not None
        assert 0 < found.next_in_ms <= LONG_MS

    async def test_what_waits_is_counted(self, store: AnyStore):
        nothing = await store.callbacks_waiting(0)
        await end(store, A)
        await end(store, B)
        failed = await end(store, A)
        await send(store, failed, refusal(failed, LONG_MS))

        counted = await store.callbacks_waiting(0)

        assert nothing == CallbacksWaiting(0, 0, 0)
        assert (counted.waiting, counted.due) == (3, 2)
        assert 0 <= counted.oldest_ms < LONG_MS

    async def test_nothing_due_is_nothing_handed_out(self, store: AnyStore):
        found = await store.take_callbacks(0, 10, host_max=10, in_hand={A: 3}, lease_ms=1)

        assert found == DueCallbacks((), None)
