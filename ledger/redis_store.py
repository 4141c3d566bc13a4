"""The ledger on Redis 7.0+ or Valkey 8+: every step is one call of a script beside this file."""

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, Self

import msgspec
import structlog
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from ledger import keys
from ledger.batching import Coalescer
from ledger.codec import Undecodable, decode_meta, encode
from ledger.events import Priority
from ledger.foreign import ForeignEntries
from ledger.identity import SYSTEM, partition_of
from ledger.keys import PartitionKeys, queue_name
from ledger.placement import STAGED_MAX, Queue, queue_of
from ledger.redis_clock import ServerClock
from ledger.redis_connection import Caller, Script, connect, connections_made
from ledger.script_format import (
    PRIORITIES,
    Argument,
    EncodedAppend,
    changed_limit_fields,
    encode_append,
    encode_system_append,
    limit_fields,
    read_claimed,
    read_delivery,
    read_events,
    read_lease,
    read_limits,
    read_outcome,
    read_recorded,
    read_report,
    read_system,
    read_task,
)
from ledger.store import (
    Append,
    Claimed,
    Conflict,
    Delivery,
    Entry,
    Extent,
    Outcome,
    Overdue,
    Position,
    Recorded,
    SystemAppend,
    Waiting,
    Written,
    waiting_elsewhere,
)
from ledger.system.events import LimitScope
from ledger.system.state import System
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
LAST_EVENT_CHUNK: Final = 100
"""Entries looked at together for the last event, where the last entry is none."""

SET_ASIDE_MAX: Final = 1_000


class StoreOptions(msgspec.Struct, frozen=True):
    """Bounds of one process's use of the ledger. Times in ms, sizes in bytes."""

    partitions: int = 1
    """Of a new ledger; one that exists already must have as many."""
    timeout_ms: int = 5_000
    """A call that is not answered in this time fails with SERVICE_UNAVAILABLE."""
    batch_items_max: int = 128
    batch_bytes_max: int = 1 << 20
    queue_items_max: int = 10_000
    in_flight_max: int = 2
    staged_max: int = STAGED_MAX
    """Tasks of a queue that wait in its ready stream; the others are in its backlog."""

    @property
    def connections_max(self) -> int:
        """Each partition keeps one in a blocking read, and may have its batches in flight."""
        return 64 + 4 * self.partitions


class ForeignKey(Exception):
    """A key of the ledger holds something that ledgerq did not write; nothing was changed."""

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__(
            f"one of the keys {', '.join(names)} holds something that is not ledgerq's: "
            "look at it (TYPE, OBJECT HELP), and rename or delete it"
        )


class LedgerMismatch(Exception):
    """The server holds a ledger of another format or partition count."""


APPEND = Script("append", after="queues")
CLAIM = Script("claim", after="queues")
DROP = Script("drop", after="queues")
LENGTHS = Script("lengths", after="queues")
POSITION = Script("position", after="queues")
LOAD = Script("load")
HISTORY = Script("history")
RENEW = Script("renew")
DUE = Script("due")
ANNOUNCE = Script("announce")
WORKERS = Script("workers")
RELEASE = Script("release")
LIMITS = Script("limits")

WORKER_KEYS: Final = (keys.WORKERS, keys.HEARTBEATS)


class RedisStore:
    """The Store on a server. Made with `open`, ended with `close`. Over a client that is there
    already, make it with the constructor, then `prepare` it."""

    def __init__(self, client: Redis, options: StoreOptions) -> None:
        self._client = client
        self._caller = Caller(client, options.timeout_ms)
        self._clock = ServerClock(self._caller)
        self._options = options
        self._keys = [PartitionKeys(p) for p in range(options.partitions)]
        self._appends = [self._coalescer_of(p, self._send_appends) for p in self._keys]
        self._loads = [self._coalescer_of(p, self._send_loads) for p in self._keys]
        self._positions = [self._coalescer_of(p, self._send_positions) for p in self._keys]
        self._waiting = self._coalescer(self._send_waiting)
        self._commit_prefix = os.urandom(8).hex()
        self._commits = 0
        self.foreign = ForeignEntries()
        self.on_append: Callable[[int, float], None] | None = None
        """Told of every append that was answered: how many steps it had, and its seconds."""
        self._cursors: dict[str, str] = {}
        self._surplus: dict[int, list[Delivery]] = {}

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
    def partitions(self) -> int:
        return self._options.partitions

    @property
    def connections_made(self) -> int:
        return connections_made(self._client)

    def report_outages(self, told: Callable[[str | None], None]) -> None:
        """`told` the reason when the server is found out of reach or takes no writes, and None when
        all goes well again; each once."""
        self._caller.on_outage = told

    def partition_of(self, task_id: str) -> int:
        partitions = self._options.partitions
        return 0 if partitions == 1 else partition_of(task_id, partitions)

    def now_ms(self) -> int:
        """The server's clock as this process knows it, so that hosts' clocks need not agree."""
        return self._clock.now_ms()

    # -- appends ------------------------------------------------------------------------------

    async def append(self, step: Append) -> Outcome:
        partition = self.partition_of(step.after.id)
        encoded = self._encode(partition, step)
        outcome = await self._appends[partition].submit(encoded, encoded.size_bytes)
        if outcome is None:
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
                    outcomes[i] = outcome
        return outcomes

    async def append_system(self, step: SystemAppend) -> Written | Conflict:
        encoded = encode_system_append(self._keys[0], step, self._next_commit())
        outcome = await self._appends[0].submit(encoded, encoded.size_bytes)
        if not isinstance(outcome, Written | Conflict):
            raise ForeignKey([encoded.key])
        return outcome

    def _encode(self, partition: int, step: Append) -> EncodedAppend:
        return encode_append(self._keys[partition], step, self._next_commit())

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
    ) -> list[Outcome | None]:
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
        for recorded in await self.history(item.subject):
            if (
                recorded.version == item.version
                and decode_meta(recorded.meta).commit == item.commit
            ):
                return Written(recorded.position)
        return conflict

    # -- reads --------------------------------------------------------------------------------

    async def load(self, task_id: str) -> Task | None:
        partition = self.partition_of(task_id)
        reply = await self._loads[partition].submit(task_id, 0)
        return read_task(task_id, reply)

    async def _send_loads(
        self, partition: PartitionKeys, batch: list[str]
    ) -> list[tuple[bytes | None, bytes, bytes]]:
        flat = await self._call(LOAD, [partition.task(task_id) for task_id in batch], ())
        return [(flat[i], flat[i + 1], flat[i + 2]) for i in range(0, len(flat), 3)]

    async def history(self, task_id: str) -> list[Recorded]:
        partition = self._partition(task_id)
        found: list[Recorded] = []
        start = b""
        while True:
            entries, following = await self._call(
                HISTORY, (partition.events, partition.task(task_id)), (start, HISTORY_CHUNK)
            )
            found += (read_recorded(partition.partition, entry) for entry in entries)
            if not entries or not following:
                found.reverse()
                return found
            start = following

    async def load_system(self) -> System:
        key = self._keys[0].task(SYSTEM)
        asking = self._caller.command("HMGET", key, "version", "state")
        version, state = await _of_ours((key,), asking)
        return read_system(version, state)

    async def system_version(self) -> int:
        key = self._keys[0].task(SYSTEM)
        version = await _of_ours((key,), self._caller.command("HGET", key, "version"))
        return int(version or 0)

    async def is_held(self, task: Task) -> bool:
        key = self._partition(task.id).task(task.id)
        place: bytes | None = await self._caller.command("HGET", key, "place")
        return place is not None and place.startswith(b"backlog:")

    async def queue_position(self, task: Task) -> int:
        position = await self._positions[self.partition_of(task.id)].submit(task, 0)
        if position and self.partitions > 1:
            position += await self._waiting_elsewhere(task)
        return position

    async def waiting(self, task_type: str) -> Waiting:
        return await self._waiting.submit(task_type, 0)

    async def _waiting_elsewhere(self, task: Task) -> int:
        waiting = await self.waiting(task.submission.task_type)
        return waiting_elsewhere(waiting, self.partition_of(task.id), task.submission.priority)

    async def _send_waiting(self, batch: list[str]) -> list[Waiting]:
        """Every partition is asked once, for all types that the batch names."""
        types = list(dict.fromkeys(batch))
        queues = [Queue(task_type, priority) for task_type in types for priority in Priority]
        lengths = await asyncio.gather(
            *(self._call_queues(LENGTHS, p, map(queue_name, queues)) for p in self._keys)
        )
        by_queue = dict(zip(queues, zip(*lengths, strict=True), strict=True))
        return [{p: by_queue[Queue(task_type, p)] for p in Priority} for task_type in batch]

    async def _send_positions(self, partition: PartitionKeys, batch: list[Task]) -> list[int]:
        queues = (queue_name(queue_of(task)) for task in batch)
        hashes = (partition.task(task.id) for task in batch)
        return await self._call_queues(POSITION, partition, (PRIORITIES, *queues), hashes)

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
        return Extent(first if told[b"length"] else last, last, added)

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
        return events[0] if events else None

    async def secret(self) -> bytes:
        """What this ledger's processes sign with; as old as the ledger, and told to nobody."""
        return await self._caller.command("HGET", keys.LEDGER, "secret")

    async def epoch(self) -> str:
        return (await self._caller.command("HGET", keys.LEDGER, "epoch")).decode()

    # -- dispatch -----------------------------------------------------------------------------

    async def claim(
        self,
        partition: int,
        queues: Sequence[Queue],
        count: int,
        delivered: Sequence[Delivery] = (),
    ) -> list[Claimed]:
        surplus = self._take_surplus(partition, queues, count - len(delivered))
        return await self._claim(partition, queues, count, 0, (*delivered, *surplus))

    async def claim_stale(
        self, partition: int, queues: Sequence[Queue], count: int, idle_ms: int
    ) -> list[Claimed]:
        return await self._claim(partition, queues, count, max(idle_ms, 1), ())

    async def _claim(
        self,
        partition: int,
        queues: Sequence[Queue],
        count: int,
        idle_ms: int,
        delivered: Sequence[Delivery],
    ) -> list[Claimed]:
        names = self._keys[partition]
        queue_names = [queue_name(queue) for queue in queues]
        arguments: list[Argument] = [PRIORITIES, count, idle_ms, len(queues), *queue_names]
        if idle_ms:
            arguments += (self._cursors.get(names.ready(queue), "0-0") for queue in queues)
        for item in delivered:
            arguments += (queues.index(item.queue) + 1, item.entry, item.task_id)
        cursors, taken = await self._call_queues(CLAIM, names, arguments)
        for queue, cursor in zip(queues, cursors, strict=False):
            self._cursors[names.ready(queue)] = cursor.decode()
        return [read_claimed(partition, queues, taken[i : i + 6]) for i in range(0, len(taken), 6)]

    async def wait_ready(
        self, partition: int, queues: Sequence[Queue], timeout_ms: int
    ) -> list[Delivery]:
        surplus = self._take_surplus(partition, queues, 1)
        if surplus:
            return surplus
        streams = [self._keys[partition].ready(queue) for queue in queues]
        try:
            reply = await self._caller.command(
                "XREADGROUP", "GROUP", keys.GROUP, keys.CONSUMER, "COUNT", 1,
                "BLOCK", self._block_ms(timeout_ms), "STREAMS", *streams, *(">" for _ in streams),
            )  # fmt: skip
        except ResponseError as error:
            if str(error).startswith(("NOGROUP", "UNBLOCKED")):
                return []  # a stream is not there, or was deleted; the next claim makes it
            if str(error).startswith("WRONGTYPE"):
                log.error("ready_key_is_no_stream", keys=streams, reason=str(error))
                await asyncio.sleep(timeout_ms / 1000)
                return []  # claims still serve the other queues, only less promptly
            raise
        by_stream = dict(zip(streams, queues, strict=True))
        deliveries = [
            read_delivery(partition, by_stream[stream.decode()], entry)
            for stream, entries in reply or ()
            for entry in entries
        ]
        # One read gives an entry of each stream that has some, but the caller has room for one: the
        # others are next in line here, or go to whoever asks for stale claims first.
        self._surplus.setdefault(partition, []).extend(deliveries[1:])
        return deliveries[:1]

    def _take_surplus(self, partition: int, queues: Sequence[Queue], count: int) -> list[Delivery]:
        kept = self._surplus.get(partition)
        if not kept or count < 1:
            return []
        taken = [delivery for delivery in kept if delivery.queue in queues][:count]
        self._surplus[partition] = [delivery for delivery in kept if delivery not in taken]
        return taken

    async def release(self, partition: int, deliveries: Sequence[Delivery]) -> None:
        names = self._keys[partition]
        by_queue: dict[Queue, list[str]] = {}
        for delivery in (*deliveries, *self._surplus.pop(partition, [])):
            by_queue.setdefault(delivery.queue, []).append(delivery.entry)
        for queue, entries in by_queue.items():
            script_keys = (names.ready(queue), names.counters, names.task_prefix)
            await self._call(RELEASE, script_keys, (queue_name(queue), *entries))

    async def set_aside(self, delivery: Delivery, reason: str) -> None:
        names = self._keys[delivery.partition]
        kept = ("queue", queue_name(delivery.queue), "entry", delivery.entry)
        await self._caller.command(
            "XADD", names.set_aside, "MAXLEN", "~", SET_ASIDE_MAX, "*",
            *kept, "task", delivery.task_id, "reason", reason,
        )  # fmt: skip
        await self.drop(delivery)

    async def drop(self, delivery: Delivery) -> None:
        arguments = (queue_name(delivery.queue), delivery.entry)
        await self._call_queues(DROP, self._keys[delivery.partition], arguments)

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
                known.append(seen(read_report(stored), int(heartbeat), now))
            except Undecodable as error:
                log.warning("worker_unreadable", reason=str(error))
        return in_order(known)

    async def _of_workers(self, call: Awaitable[Any]) -> Any:
        return await _of_ours(WORKER_KEYS, call)

    async def spread_limits(self, system: System, before: System | None = None) -> None:
        # One field, mostly, where all of them may be ten thousand.
        step = None
        if before is not None:
            changes = changed_limit_fields(before, system, self.partitions)
            step = (before.state.limits_version, changes)
        await asyncio.gather(*(self._spread_limits(p, system, step) for p in self._keys))

    async def _spread_limits(
        self,
        names: PartitionKeys,
        system: System,
        step: tuple[int, Mapping[str, int | str]] | None,
    ) -> None:
        asking = self._caller.command("HGET", names.limits, "version")
        held = int(await _of_ours((names.limits,), asking) or 0)
        if held >= system.state.limits_version:
            return
        if step is not None and step[0] == held:
            if await self._send_limits(names, system, str(held), step[1]) >= 0:
                return
        await self._send_limits(names, system, "", limit_fields(system, self.partitions))

    async def _send_limits(
        self, names: PartitionKeys, system: System, changes: str, fields: Mapping[str, int | str]
    ) -> int:
        flat = (part for pair in fields.items() for part in pair)
        arguments = (system.state.limits_version, changes, *flat)
        return await self._call(LIMITS, (names.limits,), arguments)

    async def limits_held(self, partition: int) -> dict[tuple[LimitScope, str], int]:
        return read_limits(await self._caller.command("HGETALL", self._keys[partition].limits))

    async def admitted(self, scope: LimitScope, names: Sequence[str]) -> list[int]:
        if not names:
            return []
        fields = [f"{scope.value}:{name}" for name in names]
        counts = await asyncio.gather(
            *(self._caller.command("HMGET", p.admitted, *fields) for p in self._keys)
        )
        return [sum(max(0, int(n or 0)) for n in counted) for counted in zip(*counts, strict=True)]

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

    def _partition(self, task_id: str) -> PartitionKeys:
        return self._keys[self.partition_of(task_id)]

    def _coalescer_of(
        self,
        partition: PartitionKeys,
        send: Callable[[PartitionKeys, list[Any]], Awaitable[list[Any]]],
    ) -> Coalescer[Any, Any]:
        return self._coalescer(lambda batch: send(partition, batch))

    def _coalescer(self, send: Callable[[list[Any]], Awaitable[list[Any]]]) -> Coalescer[Any, Any]:
        return Coalescer(
            send,
            items_max=self._options.batch_items_max,
            bytes_max=self._options.batch_bytes_max,
            queue_items_max=self._options.queue_items_max,
            in_flight_max=self._options.in_flight_max,
        )

    def _block_ms(self, wait_ms: int) -> int:
        """A wait that ends before its call would count as unanswered; 0 would mean for ever."""
        return max(1, min(wait_ms, self._options.timeout_ms // 2))

    async def _call(
        self, script: Script, script_keys: Sequence[str], arguments: Sequence[Argument]
    ) -> Any:
        reply, _ = await self._caller.script(script, script_keys, arguments)
        return reply

    async def _call_queues(
        self,
        script: Script,
        partition: PartitionKeys,
        arguments: Iterable[Argument],
        more_keys: Iterable[str] = (),
    ) -> Any:
        """Call a script that builds on queues.lua."""
        script_keys = (*partition.queues, *more_keys)
        return await self._call(script, script_keys, (self._options.staged_max, *arguments))

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


async def _of_ours(names: Sequence[str], call: Awaitable[Any]) -> Any:
    """What a call answers that is about these keys. Raises ForeignKey."""
    try:
        return await call
    except ResponseError as error:
        if str(error).startswith("WRONGTYPE"):
            raise ForeignKey(names) from error
        raise
