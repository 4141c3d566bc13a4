"""The floors: the least that the same work can cost on this machine, in plain loops."""

import asyncio
import time
from typing import Final

from redis.asyncio import Redis

from bench.servers import BenchServer
from bench.workload import KB_ID, PAYLOAD, TASK_TYPE, new_id
from ledger.events import Priority
from ledger.keys import PartitionKeys, queue_name
from ledger.placement import STAGED_MAX, Queue
from ledger.redis_connection import Argument, send
from ledger.redis_store import APPEND
from ledger.script_format import PRIORITIES

BATCH_APPENDS: Final = 128

APPEND_FLOOR: Final = "bare loop of the append script, batches of 128, memory only"
SINGLE_FLOOR: Final = "bare loop of the append script, one by one, memory only"
WAKE_FLOOR: Final = "XADD, blocked XREAD, XADD, at the same pace"

Call = tuple[Argument, ...]


async def appends_per_s(server: BenchServer, count: int, batch: int) -> float:
    """Appends of submissions per second: the store's own script, sent batch after batch.

    All arguments are ready before the clock starts, so that the server and the bytes on their way
    to it are all that is measured.
    """
    await server.empty()
    await send(server.client, ("SCRIPT", "LOAD", APPEND.text))
    calls = [_append_call(batch) for _ in range(count // batch)]
    began = time.perf_counter()
    for call in calls:
        await send(server.client, call)
    took_s = time.perf_counter() - began
    entries = await send(server.client, ("XLEN", PartitionKeys(0).events))
    assert entries == len(calls) * batch, f"the floor's script wrote {entries} events"
    return entries / took_s


def _append_call(batch: int) -> Call:
    """One script call, with what the store would send for a batch of submissions."""
    names, queue = PartitionKeys(0), Queue(TASK_TYPE, Priority.NORMAL)
    at = time.time_ns() // 1_000_000
    data = b'{"task_type":"%s","kb_id":"%s","payload":%s}'
    submission = data % (TASK_TYPE.encode(), KB_ID.encode(), PAYLOAD)
    state = b'{"status":"queued","created_at":%d,"updated_at":%d}' % (at, at)
    keys: list[Argument] = [*names.queues, names.events, names.due, names.leases]
    arguments: list[Argument] = [STAGED_MAX, PRIORITIES]
    for number in range(batch):
        task_id, commit = new_id(), f"0123456789abcdef-{number:x}"
        meta = b'{"commit":"%s"}' % commit.encode()
        keys.append(names.task(task_id))
        arguments += (task_id, 0, commit, at, meta, queue_name(queue), KB_ID, "=", state)
        arguments += ("ready", 0, "", 1, "TaskSubmitted", submission)
    return ("EVALSHA", APPEND.sha, len(keys), *keys, *arguments)


async def wakes_ms(server: BenchServer, count: int, per_second: float) -> list[float]:
    """Milliseconds from before a write until its blocked reader has been woken and has written too:
    what submit and start come to, without a word of ours."""
    await server.empty()
    taken: list[float] = []
    reading = asyncio.create_task(_read_and_write(server.client, count, taken))
    for _ in range(count):
        await asyncio.sleep(1 / per_second)
        sent = b"%d" % time.monotonic_ns()
        await send(server.client, ("XADD", "asked", "*", "sent_ns", sent, "payload", PAYLOAD))
    await reading
    return taken


async def _read_and_write(client: Redis, count: int, taken: list[float]) -> None:
    last: Argument = "0-0"
    for _ in range(count):
        reply = await send(client, ("XREAD", "BLOCK", 10_000, "STREAMS", "asked", last))
        [[_, [[last, fields]]]] = reply
        await send(client, ("XADD", "started", "*", "of", last))
        taken.append((time.monotonic_ns() - int(fields[1])) / 1e6)
