"""The checker of whole ledgers finds what is wrong with one."""

import pytest

from ledger.commands import CancelTask, SubmitTask
from ledger.events import TaskCanceled
from ledger.keys import PartitionKeys
from ledger.redis_connection import send
from ledger.redis_store import RedisStore
from ledger.task import Status
from ledger.transact import transact
from ledger.transitions import IllegalTransition
from tests.checks import check_ledger, read_all
from tests.given import TASK_ID, a_submission

KEYS = PartitionKeys(0)


@pytest.fixture
async def canceled(store: RedisStore) -> RedisStore:
    """A ledger of one canceled task."""
    await transact(store, TASK_ID, SubmitTask(a_submission()))
    await transact(store, TASK_ID, CancelTask())
    return store


async def test_a_ledger_in_order_is_counted(canceled: RedisStore) -> None:
    counts = await check_ledger(canceled)

    assert counts.events == {"TaskSubmitted": 1, "TaskCanceled": 1}
    assert counts.finals == {TASK_ID: 1}
    assert (counts.in_status(Status.CANCELED), counts.commits) == (1, 2)


async def test_an_empty_ledger_is_in_order(store: RedisStore) -> None:
    assert (await check_ledger(store)).tasks == {}


async def test_a_missing_event_is_found(canceled: RedisStore) -> None:
    first, _ = await read_all(canceled, 0)
    await send(canceled.client, ("XDEL", KEYS.events, first.position.entry))

    with pytest.raises(AssertionError, match="TaskCanceled at"):
        await check_ledger(canceled)


async def test_a_snapshot_that_is_not_the_fold_is_found(canceled: RedisStore) -> None:
    state = b'{"status":"queued","created_at":1,"updated_at":1}'
    await send(canceled.client, ("HSET", KEYS.task(TASK_ID), "state", state))

    with pytest.raises(AssertionError, match="is not its fold"):
        await check_ledger(canceled)


async def test_a_second_final_event_is_found(canceled: RedisStore) -> None:
    _, last = await read_all(canceled, 0)
    again = {
        "type": TaskCanceled.__name__,
        "task": TASK_ID,
        "version": 3,
        "at": last.at,
        "data": "{}",
        "meta": "{}",
        "prev": last.position.entry,
    }
    fields = [part for pair in again.items() for part in pair]
    await send(canceled.client, ("XADD", KEYS.events, "*", *fields))

    with pytest.raises(IllegalTransition, match="TaskCanceled cannot happen to a canceled task"):
        await check_ledger(canceled)
