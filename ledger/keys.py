"""Every Redis key, built in one place.

All keys of partition `p` share the hash tag `{ledgerq:p}`, so that a script may touch any of them
on Redis Cluster too.

    {ledgerq:p}:events                    stream   the ledger: every event of the partition
    {ledgerq:p}:task:<id>                 hash     snapshot: version, submission, state, place,
                                                   commit, last
    {ledgerq:p}:ready:<type>:<priority>   stream   tasks to be taken; consumer group `workers`
    {ledgerq:p}:due                       zset     <id> by the time (ms) it is released at
    {ledgerq:p}:leases                    zset     <id>:<attempt> by the time (ms) it expires at
    {ledgerq:p}:counters                  hash     entered:<type>:<priority>, taken:…, numbers that
                                                   queue positions are told from
    {ledgerq:p}:limits                    hash     type:<type>, kb:<kb_id>: how many may be
                                                   admitted; version: of the system subject
    {ledgerq:p}:admitted                  hash     type:<type>, kb:<kb_id>: how many are
    {ledgerq:p}:set-aside                 stream   ready entries that could not be served, and why
    {ledgerq:0}:task:system               hash     the service as a whole, as if it were a task
    {ledgerq:0}:ledger                    hash     format, partitions, epoch, secret
    {ledgerq:0}:workers                   hash     <worker id>: what it last said of itself
    {ledgerq:0}:heartbeats                zset     <worker id> by the time (ms) it was last heard
"""

from ledger.events import Priority
from ledger.placement import Queue

GROUP = "workers"
"""The consumer group of every ready stream."""

CONSUMER = "worker"
"""One name for all workers: leases, not the group's pending lists, say who holds a task."""

LEDGER = "{ledgerq:0}:ledger"
WORKERS = "{ledgerq:0}:workers"
HEARTBEATS = "{ledgerq:0}:heartbeats"


class PartitionKeys:
    """The keys of one partition."""

    def __init__(self, partition: int) -> None:
        tag = f"{{ledgerq:{partition}}}:"
        self.partition = partition
        self.events = f"{tag}events"
        self.due = f"{tag}due"
        self.leases = f"{tag}leases"
        self.counters = f"{tag}counters"
        self.set_aside = f"{tag}set-aside"
        self.limits = f"{tag}limits"
        self.admitted = f"{tag}admitted"
        self.task_prefix = f"{tag}task:"
        self._ready_prefix = f"{tag}ready:"
        self._ready: dict[Queue, str] = {}
        self._ready_ahead: dict[Queue, list[str]] = {}

    def task(self, task_id: str) -> str:
        return self.task_prefix + task_id

    def ready(self, queue: Queue) -> str:
        known = self._ready.get(queue)
        if known is None:
            known = self._ready[queue] = self._ready_prefix + queue_name(queue)
        return known

    def ready_ahead(self, queue: Queue) -> list[str]:
        """The ready streams of the same type that are more urgent than the queue's own."""
        known = self._ready_ahead.get(queue)
        if known is None:
            order = list(Priority)
            known = [
                self.ready(Queue(queue.task_type, priority))
                for priority in order[: order.index(queue.priority)]
            ]
            self._ready_ahead[queue] = known
        return known


def queue_name(queue: Queue) -> str:
    """`<type>:<priority>`, as it stands in keys and counters."""
    return f"{queue.task_type}:{queue.priority.value}"
