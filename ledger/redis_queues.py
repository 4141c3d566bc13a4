"""The queues on a server: the places of tasks in them, and claims out of them."""

import asyncio
from collections.abc import Sequence
from typing import Any, Final

import structlog
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from ledger import keys
from ledger.events import Priority
from ledger.keys import PartitionKeys, queue_name
from ledger.placement import Queue, queue_of
from ledger.redis_calls import LedgerCalls, StoreOptions
from ledger.redis_connection import Script
from ledger.rejections import Rejection
from ledger.script_format import PRIORITIES, Argument, read_claimed, read_delivery
from ledger.store import Claimed, Delivery, Waiting, waiting_elsewhere
from ledger.task import Task

log = structlog.get_logger("ledger")

SET_ASIDE_MAX: Final = 1_000
CLAIMED_FIELDS: Final = 6
"""Values in the reply of claim.lua for each task."""

CLAIM = Script("claim", after=("queues",))
DROP = Script("drop", after=("queues",))
LENGTHS = Script("lengths", after=("queues", "positions"))
POSITION = Script("position", after=("queues", "positions"))
RELEASE = Script("release", after=("queues",))


class RedisQueues(LedgerCalls):
    """The Store's queues."""

    def __init__(self, client: Redis, options: StoreOptions) -> None:
        super().__init__(client, options)
        self._positions = [self._coalescer_of(p, self._send_positions) for p in self._keys]
        self._waiting = self._coalescer(self._send_waiting)
        self._cursors: dict[str, str] = {}
        """Where a look for stale claims of a ready stream goes on."""
        self._surplus: dict[int, list[Delivery]] = {}
        """Delivered by blocking reads, beyond what their callers had room for."""

    # -- places -------------------------------------------------------------------------------

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

    # -- claims -------------------------------------------------------------------------------

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
        told, taken = await self._call_queues(CLAIM, names, arguments)
        if idle_ms:
            for queue, cursor in zip(queues, told, strict=True):
                self._cursors[names.ready(queue)] = cursor.decode()
        else:
            await self._look_on(names, queue_names, count, told[0], taken)
        return [
            read_claimed(partition, queues, taken[i : i + CLAIMED_FIELDS])
            for i in range(0, len(taken), CLAIMED_FIELDS)
        ]

    async def _look_on(
        self, names: PartitionKeys, queue_names: list[str], count: int, looks: int, taken: list[Any]
    ) -> None:
        """Claim on, into `taken`, where so many kb_ids are at their limits that one look did not
        pass over all of them."""
        for _ in range(looks):
            left = count - len(taken) // CLAIMED_FIELDS
            if left < 1:
                return
            arguments = (PRIORITIES, left, 0, len(queue_names), *queue_names)
            try:
                more, found = await self._call_queues(CLAIM, names, arguments)
            except Rejection:
                return  # what was taken before must not wait until it is stale
            taken += found
            if not more[0]:
                return

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
            await self._call_queues(RELEASE, names, (PRIORITIES, queue_name(queue), *entries))

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
