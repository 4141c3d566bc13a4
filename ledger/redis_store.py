"""The ledger on Redis 7.0+ or Valkey 8+: every step is one call of a script beside this file."""

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any, Final, Self

import msgspec
import structlog
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from ledger import keys
from ledger.codec import Undecodable, decode_meta, encode
from ledger.foreign import ForeignEntries
from ledger.identity import is_derived
from ledger.keys import PartitionKeys
from ledger.past import Past
from ledger.redis_callbacks import RedisCallbacks
from ledger.redis_calls import ForeignKey, StoreOptions, of_ours
from ledger.redis_clock import ServerClock
from ledger.redis_connection import Caller, Script, connect, connections_made
from ledger.redis_queues import RedisQueues
from ledger.redis_recount import LOAD, RedisRecount
from ledger.redis_retention import RedisRetention
from ledger.redis_system import RedisSystem
from ledger.rejections import Rejection, RejectionCode
from ledger.retention import BEGINNING, Ended
from ledger.script_format import (
    EVICTED_SINCE,
    PRIORITIES,
    Argument,
    EncodedAppend,
    EvictedSince,
    encode_append,
    encode_system_append,
    read_events,
    read_lease,
    read_outcome,
    read_recorded,
    read_report,
    read_score,
    read_task,
)
from ledger.store import (
    Append,
    Conflict,
    Entry,
    Extent,
    Outcome,
    Overdue,
    Position,
    Recorded,
    SystemAppend,
    Written,
)
from ledger.task import Task
from ledger.workers import (
    FORGOTTEN_AT_ONCE_MAX,
    LOST_KEPT_MS,
    WorkerReport,
    WorkerSeen,
    in_order,
    seen,
)

log = structlog.get_logger("ledger")

LEDGER_FORMAT: Final = "1"
HISTORY_CHUNK: Final = 500
LOOKS_MAX: Final = 4
"""How often it is looked up whether a task was evicted, while others are being evicted."""

LAST_EVENT_CHUNK: Final = 100
"""Entries looked at together for the last event, where the last entry is none."""


class LedgerMismatch(Exception):
    """The server holds a ledger of another format or partition count."""


APPEND = Script("append", after=("queues", "positions", "entries"))
HISTORY = Script("history")
RENEW = Script("renew")
DUE = Script("due")
ANNOUNCE = Script("announce")
WORKERS = Script("workers")

WORKER_KEYS: Final = (keys.WORKERS, keys.HEARTBEATS)


class RedisStore(RedisQueues, RedisCallbacks, RedisSystem, RedisRecount, RedisRetention):
    """The Store on a server. Made with `open`, ended with `close`. Over a client that is there
    already, make it with the constructor, then `prepare` it."""

    past: Past | None = None
    """Asked for what was evicted and trimmed. Without it, such tasks and events are not known."""

    def __init__(self, client: Redis, options: StoreOptions) -> None:
        super().__init__(client, options)
        self._client = client
        self._clock = ServerClock(self._caller)
        self._appends = [self._coalescer_of(p, self._send_appends) for p in self._keys]
        self._loads = [self._coalescer_of(p, self._send_loads) for p in self._keys]
        self._commit_prefix = os.urandom(8).hex()
        self._commits = 0
        self._evicted = [BEGINNING] * options.partitions
        """Of each partition, up to where at least finished tasks were let go of."""
        self.foreign = ForeignEntries()
        self.on_append: Callable[[int, float], None] | None = None
        """Told of every append that was answered: how many steps it had, and its seconds."""

    @classmethod
    async def open(cls, url: str, options: StoreOptions | None = None) -> Self:
        """Connect, and check that the ledger is ours; a new one is made.

        Raises ValueError for a URL of another kind, LedgerMismatch for another ledger,
        Rejection(SERVICE_UNAVAILABLE) when the server cannot be reached in time.
        """
        options = options or StoreOptions()
        client = connect(
            url, timeout_ms=options.timeout_ms, connections_max=options.connections_max
        )
        store = cls(client, options)
        try:
            await store.prepare()
        except BaseException:
            await store.close()
            raise
        return store

    async def prepare(self) -> None:
        """Check that the ledger is ours, or make a new one, and learn the server's time.

        Raises LedgerMismatch, Rejection(SERVICE_UNAVAILABLE).
        """
        await self._check_ledger()
        await self._clock.sync()

    async def close(self) -> None:
        """Answer what is in flight, and close the connections."""
        for coalescer in (*self._appends, *self._loads, *self._positions, self._waiting):
            await coalescer.drain()
        await self._clock.close()
        await self._client.aclose()

    @property
    def client(self) -> Redis:
        """The connection pool, for reading what is not part of the ledger (INFO, CONFIG)."""
        return self._client

    @property
    def connections_made(self) -> int:
        return connections_made(self._client)

    def report_outages(self, told: Callable[[str | None], None]) -> None:
        """`told` the reason when the server is found out of reach or takes no writes, and None when
        all goes well again; each once."""
        self._caller.on_outage = told

    def now_ms(self) -> int:
        """The server's clock as this process knows it, so that hosts' clocks need not agree."""
        return self._clock.now_ms()

    # -- appends ------------------------------------------------------------------------------

    async def append(self, step: Append) -> Outcome:
        partition = self.partition_of(step.after.id)
        if step.before is None and is_derived(step.after.id):
            outcome = await self._append_first(partition, step)
        else:
            outcome = await self._append(partition, step)
            if (
                isinstance(outcome, Conflict)
                and outcome.version == 0
                and step.before is not None
                and await self._restore(partition, step.before)
            ):
                outcome = await self._append(partition, step)
        if outcome is None or outcome is EVICTED_SINCE:
            raise ForeignKey(self._keys[partition].of_task(step.after))
        if self.partitions > 1 and isinstance(outcome, Written) and outcome.queue_position:
            told = outcome.queue_position + await self._waiting_elsewhere(step.after)
            return msgspec.structs.replace(outcome, queue_position=told)
        return outcome

    async def append_all(self, steps: Sequence[Append]) -> list[Outcome | None]:
        homes = [self.partition_of(step.after.id) for step in steps]
        encoded = [self._encode(home, step) for home, step in zip(homes, steps, strict=True)]
        outcomes: list[Outcome | None] = [None] * len(steps)
        for partition in dict.fromkeys(homes):
            mine = [i for i, home in enumerate(homes) if home == partition]
            for batch in self._batches(mine, encoded):
                sent = [encoded[i] for i in batch]
                replies = await self._send_appends(self._keys[partition], sent)
                for i, outcome in zip(batch, replies, strict=True):
                    outcomes[i] = None if outcome is EVICTED_SINCE else outcome
        return outcomes

    async def append_system(self, step: SystemAppend) -> Written | Conflict:
        encoded = encode_system_append(self._keys[0], step, self._next_commit())
        outcome = await self._appends[0].submit(encoded, encoded.size_bytes)
        if not isinstance(outcome, Written | Conflict):
            raise ForeignKey([encoded.key])
        return outcome

    async def _append(
        self, partition: int, step: Append, absent_as_of: str = BEGINNING
    ) -> Outcome | EvictedSince | None:
        encoded = self._encode(partition, step, absent_as_of)
        return await self._appends[partition].submit(
            encoded, encoded.size_bytes, patient=step.patient
        )

    async def _append_first(self, partition: int, step: Append) -> Outcome | None:
        """Of a task whose id is derived from a key: it may have been, and been evicted. Whoever
        says that it was not says up to which event he knows that."""
        for _ in range(LOOKS_MAX):
            evicted = absent_as_of = self._evicted[partition]
            if evicted != BEGINNING:
                if self.past is None:
                    raise _no_past(step.after.id)
                try:
                    kept = await self.past.find(step.after.id, evicted)
                except Rejection:
                    if await self._look_at_evicted(partition) == evicted:
                        raise
                    continue
                if kept.task is not None:
                    return Conflict(kept.task.version)
                absent_as_of = kept.as_of
            outcome = await self._append(partition, step, absent_as_of)
            if outcome is not EVICTED_SINCE:
                return outcome
            await self._look_at_evicted(partition)
        raise Rejection(
            RejectionCode.SERVICE_UNAVAILABLE,
            "finished tasks are being evicted faster than they can be looked up; try again",
        )

    async def _look_at_evicted(self, partition: int) -> str:
        evicted = (await self.archive_state(partition)).evicted
        if evicted != BEGINNING:
            self._evicted[partition] = evicted
        return evicted

    async def _restore(self, partition: int, task: Task) -> bool:
        """Put the snapshot of an evicted task back; False where it cannot have been evicted so."""
        if self.past is None:
            return False
        entry = await self.past.last_entry(task)
        if entry is None:
            return False
        ended = Ended(task.id, task.version, entry)
        submission, state = encode(task.submission), encode(task.state)
        return await self.restore(partition, ended, submission, state) is not None

    def _encode(self, partition: int, step: Append, absent_as_of: str = BEGINNING) -> EncodedAppend:
        return encode_append(self._keys[partition], step, self._next_commit(), absent_as_of)

    def _next_commit(self) -> str:
        self._commits += 1
        return f"{self._commit_prefix}-{self._commits:x}"

    def _batches(
        self, indices: Sequence[int], encoded: Sequence[EncodedAppend]
    ) -> Iterator[Sequence[int]]:
        """As many for one call as its bounds allow, the same that group commits keep."""
        first, size = 0, 0
        for at, index in enumerate(indices):
            size += encoded[index].size_bytes
            is_full = at - first >= self._options.batch_items_max
            if at > first and (is_full or size > self._options.batch_bytes_max):
                yield indices[first:at]
                first, size = at, encoded[index].size_bytes
        if first < len(indices):
            yield indices[first:]

    async def _send_appends(
        self, partition: PartitionKeys, batch: list[EncodedAppend]
    ) -> list[Outcome | EvictedSince | None]:
        script_keys = [*partition.queues, partition.events, partition.due, partition.leases]
        arguments: list[Argument] = [self._options.staged_max, PRIORITIES]
        for item in batch:
            script_keys.append(item.key)
            arguments += item.arguments
        began_s = asyncio.get_running_loop().time()
        replies, sent_again = await self._caller.script(APPEND, script_keys, arguments)
        if self.on_append is not None:
            self.on_append(len(batch), asyncio.get_running_loop().time() - began_s)
        outcomes = [read_outcome(partition.partition, reply) for reply in replies]
        if sent_again:
            for i, (item, outcome) in enumerate(zip(batch, outcomes, strict=True)):
                if isinstance(outcome, Conflict):
                    outcomes[i] = await self._find_commit(item, outcome)
        return outcomes

    async def _find_commit(self, item: EncodedAppend, conflict: Conflict) -> Outcome:
        """Tell a real conflict from our own append whose reply was lost and which was built on."""
        try:
            for recorded in await self.history(item.subject):
                if (
                    recorded.version == item.version
                    and decode_meta(recorded.meta).commit == item.commit
                ):
                    return Written(recorded.position)
        except Undecodable as error:
            # The others of its batch were answered, and must hear of it.
            log.error("history_unreadable", subject=item.subject, reason=str(error))
        return conflict

    # -- reads --------------------------------------------------------------------------------

    async def load(self, task_id: str) -> Task | None:
        partition = self.partition_of(task_id)
        reply = await self._loads[partition].submit(task_id, 0)
        task = read_task(task_id, reply)
        if task is None and self.past is not None:
            evicted = await self._look_at_evicted(partition)
            if evicted != BEGINNING:
                return (await self.past.find(task_id, evicted)).task
        return task

    async def _send_loads(
        self, partition: PartitionKeys, batch: list[str]
    ) -> list[tuple[bytes | None, bytes, bytes]]:
        flat = await self._call(LOAD, [partition.task(task_id) for task_id in batch], ())
        return [(flat[i], flat[i + 1], flat[i + 2]) for i in range(0, len(flat), 3)]

    async def history(self, task_id: str) -> list[Recorded]:
        partition = self.partition_of(task_id)
        found: list[Recorded] = []
        start = None
        while some := await self.history_back(task_id, start, HISTORY_CHUNK):
            found += some
            if not some[-1].prev:
                break
            start = Position(partition, some[-1].prev)
        found.reverse()
        return found

    async def history_back(
        self, task_id: str, start: Position | None, count: int
    ) -> list[Recorded]:
        partition = self._partition(task_id)
        number = partition.partition
        entries, following = await self._call(
            HISTORY,
            (partition.events, partition.task(task_id)),
            ("" if start is None else start.entry, count),
        )
        found = [read_recorded(number, entry) for entry in entries]
        if self.past is None or len(found) == count:
            return found
        evicted = BEGINNING
        if following:
            # Where it goes on, the stream was trimmed.
            start = Position(number, following.decode())
        elif not found:
            evicted = await self._look_at_evicted(number)
        if not following and evicted == BEGINNING:
            return found
        more = await self.past.history_back(task_id, start, count - len(found), evicted)
        return [*found, *more]

    async def last_position(self, partition: int) -> Position:
        end, count = "+", 1
        while True:
            entries = await self._caller.command(
                "XREVRANGE", self._keys[partition].events, end, "-", "COUNT", count
            )
            if not entries:
                return Position(partition, "0-0")
            # Backwards: what is stepped over here is counted by those who read forwards.
            events, _ = read_events(partition, entries)
            if events:
                return events[0].position
            end, count = f"({entries[-1][0].decode()}", LAST_EVENT_CHUNK

    async def extent(self, partition: int) -> Extent:
        nothing = Position(partition, "0-0")
        try:
            flat = await self._caller.command("XINFO", "STREAM", self._keys[partition].events)
        except ResponseError as error:
            if "no such key" in str(error):
                return Extent(nothing, nothing, 0)
            raise
        told = dict(zip(flat[::2], flat[1::2], strict=True))
        last = Position(partition, told[b"last-generated-id"].decode())
        added: int = told[b"entries-added"]
        if added == told[b"length"]:
            return Extent(nothing, last, added)
        first = Position(partition, told[b"recorded-first-entry-id"].decode())
        entry = told.get(b"max-deleted-entry-id", b"0-0").decode()
        deleted = None if entry == "0-0" else Position(partition, entry)
        return Extent(first if told[b"length"] else last, last, added, deleted)

    async def events_after(self, position: Position, count: int, wait_ms: int) -> list[Recorded]:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + wait_ms / 1000
        while True:
            left_ms = round((deadline - loop.time()) * 1000)
            entries = await self.entries_after(position, count, left_ms)
            if not entries:
                return []
            events, foreign = read_events(position.partition, entries)
            for stranger in foreign:
                self.foreign.met(stranger)
            if events:
                return events
            position = Position(position.partition, entries[-1][0].decode())

    async def entries_after(self, position: Position, count: int, wait_ms: int) -> list[Entry]:
        key, block_ms = self._keys[position.partition].events, self._block_ms(wait_ms)
        reply = await self._caller.command(
            "XREAD", "COUNT", count, "BLOCK", block_ms, "STREAMS", key, position.entry
        )
        return reply[0][1] if reply else []

    async def event_at(self, position: Position) -> Recorded | None:
        key = self._keys[position.partition].events
        entries = await self._caller.command("XRANGE", key, position.entry, position.entry)
        events, _ = read_events(position.partition, entries)
        if events or self.past is None:
            return events[0] if events else None
        # What is not there and was not trimmed was lost, whoever else may know it.
        trimmed = (await self.archive_state(position.partition)).trimmed
        if position.order >= Position(position.partition, trimmed).order:
            return None
        return await self.past.event_at(position)

    async def secret(self) -> bytes:
        """What this ledger's processes sign with; as old as the ledger, and told to nobody."""
        return await self._caller.command("HGET", keys.LEDGER, "secret")

    async def epoch(self) -> str:
        epoch: bytes | None = await self._caller.command("HGET", keys.LEDGER, "epoch")
        return "" if epoch is None else epoch.decode()

    # -- leases and workers -------------------------------------------------------------------

    async def renew(
        self, partition: int, leases: Sequence[tuple[str, int]], lease_ms: int
    ) -> list[tuple[str, int]]:
        members = [f"{task_id}:{attempt}" for task_id, attempt in leases]
        gone = await self._call(RENEW, (self._keys[partition].leases,), (lease_ms, *members))
        return [read_lease(member) for member in gone]

    async def lease_until(self, task: Task) -> int | None:
        leases = self._partition(task.id).leases
        member = f"{task.id}:{task.state.attempt}"
        score = await self._caller.command("ZSCORE", leases, member)
        return None if score is None else int(float(score))

    async def announce(self, report: WorkerReport) -> None:
        arguments = (report.id, encode(report), LOST_KEPT_MS, FORGOTTEN_AT_ONCE_MAX)
        await self._of_workers(self._call(ANNOUNCE, WORKER_KEYS, arguments))

    async def retire(self, worker_id: str) -> None:
        # In this order: a heartbeat without a report is passed over, and cleared away in time.
        await self._of_workers(self._caller.command("HDEL", keys.WORKERS, worker_id))
        await self._of_workers(self._caller.command("ZREM", keys.HEARTBEATS, worker_id))

    async def workers(self) -> list[WorkerSeen]:
        now, flat = await self._of_workers(self._call(WORKERS, WORKER_KEYS, (LOST_KEPT_MS,)))
        known: list[WorkerSeen] = []
        for stored, heartbeat in zip(flat[::2], flat[1::2], strict=True):
            try:
                known.append(seen(read_report(stored), read_score(heartbeat), now))
            except Undecodable as error:
                log.warning("worker_unreadable", reason=str(error))
        return in_order(known)

    async def _of_workers(self, call: Awaitable[Any]) -> Any:
        return await of_ours(WORKER_KEYS, call)

    async def overdue(self, partition: int, count: int) -> Overdue:
        names = self._keys[partition]
        now, due, expired, following = await self._call(DUE, (names.due, names.leases), (count,))
        return Overdue(
            int(now),
            tuple(member.decode(errors="replace") for member in due),
            tuple(read_lease(member) for member in expired),
            None if following < 0 else int(following),
        )

    # -- calls --------------------------------------------------------------------------------

    # -- opening ------------------------------------------------------------------------------

    async def _check_ledger(self) -> None:
        wanted = {"format": LEDGER_FORMAT, "partitions": str(self._options.partitions)}
        made = {"epoch": os.urandom(16).hex(), "secret": os.urandom(32).hex()}
        for field, value in (*wanted.items(), *made.items()):
            # Looked at first: a server at its memory limit refuses even a write of what is there.
            if await self._caller.command("HGET", keys.LEDGER, field) is None:
                await self._caller.command("HSETNX", keys.LEDGER, field, value)
        for field, value in wanted.items():
            stored = (await self._caller.command("HGET", keys.LEDGER, field)).decode()
            if stored != value:
                raise LedgerMismatch(
                    f"this ledger has {field} {stored}, the settings ask for {value}; a ledger's "
                    f"{field} cannot be changed: set it to {stored}, or use another server"
                )


def _no_past(task_id: str) -> Rejection:
    return Rejection(
        RejectionCode.SERVICE_UNAVAILABLE,
        f"whether the task {task_id} was there before, and was evicted, is only known where the"
        " archive can be read",
    )


async def ledger_facts(url: str, timeout_ms: int) -> dict[str, str]:
    """Format, partitions and epoch of the ledger at `url`; empty when there is none.

    Raises ValueError for a URL of another kind, Rejection(SERVICE_UNAVAILABLE).
    """
    client = connect(url, timeout_ms=timeout_ms, connections_max=1)
    try:
        flat = await Caller(client, timeout_ms).command("HGETALL", keys.LEDGER)
    finally:
        await client.aclose()
    words = [word.decode(errors="replace") for word in flat]
    return dict(zip(words[::2], words[1::2], strict=True))
