"""Every Redis key, built in one place.

All keys of partition `p` share the hash tag `{ledgerq:p}`, so that a script may touch any of them
on Redis Cluster too.

    {ledgerq:p}:events                    stream   the ledger: every event of the partition
    {ledgerq:p}:task:<id>                 hash     snapshot: version, submission, state, place,
                                                   commit, last
    {ledgerq:p}:ready:<type>:<priority>   stream   tasks to be taken next; consumer group `workers`
    {ledgerq:p}:backlog:<type>:<priority> zset     tasks behind those, by kb_id and age
    {ledgerq:p}:due                       zset     <id> by the time (ms) it is released at
    {ledgerq:p}:leases                    zset     <id>:<attempt> by the time (ms) it expires at
    {ledgerq:p}:callbacks                 zset     <host> by the time (ms) a callback to it is due
    {ledgerq:p}:callbacks:<host>          zset     <id> by the time (ms) its callback is due
    {ledgerq:p}:callback-bell             list     one element: somebody should come and look
    {ledgerq:p}:counters                  hash     used:<type>:<priority>: there is such a queue;
                                                   turn:…, held: whose turn it is in its backlog;
                                                   recounts: how often `admitted` was put right
    {ledgerq:p}:admitted                  hash     type:<type>, kb:<kb_id>: how many are in a ready
                                                   stream or running
    {ledgerq:p}:limits                    hash     the same fields: how many may be; and version
    {ledgerq:p}:erased                    zset     <entry> of events taken out of the stream because
                                                   they were erased, by its time (ms)
    {ledgerq:p}:set-aside                 stream   ready entries that could not be served, and why
    {ledgerq:p}:checkpoints               hash     of each subscription, <group>/<id>: `:at` how far
                                                   it is, `:lease` who reads for it, `:lasts` (ms)
                                                   for how long, `:halted` why it does not
                                                   go on
    {ledgerq:p}:projections               hash     <node>: how far its read model is, and when it
                                                   said so
    {ledgerq:p}:archive                   hash     owner, until, generation: who seals; size, entry,
                                                   digest, passed: of what was sealed last; halted:
                                                   why it does not go on; accepted: where it goes on
                                                   all the same, until more is sealed; trimmed:
                                                   what stood before it may be gone; evicted: up to
                                                   where finished tasks were let go of, and looked:
                                                   how many leaves that are
    {ledgerq:p}:restored                  zset     <id> <version> <entry> of evicted tasks that were
                                                   put back, by the time (ms) of that
    {ledgerq:0}:task:system               hash     the service as a whole, as if it were a task
    {ledgerq:0}:ledger                    hash     format, partitions, epoch, secret
    {ledgerq:0}:workers                   hash     <worker id>: what it last said of itself
    {ledgerq:0}:heartbeats                zset     <worker id> by the time (ms) it was last heard
    {ledgerq:0}:subscriptions             hash     <group>: what it wants, and where it began
    {ledgerq:0}:members:<group>           zset     <member id> by the time (ms) its lease ends
"""

from ledger.placement import Queue, queue_of
from ledger.task import Task

GROUP = "workers"
"""The consumer group of every ready stream."""

CONSUMER = "worker"
"""One name for all workers: leases, not the group's pending lists, say who holds a task."""

LEDGER = "{ledgerq:0}:ledger"
WORKERS = "{ledgerq:0}:workers"
HEARTBEATS = "{ledgerq:0}:heartbeats"
SUBSCRIPTIONS = "{ledgerq:0}:subscriptions"
MEMBERS_PREFIX = "{ledgerq:0}:members:"


class PartitionKeys:
    """The keys of one partition."""

    def __init__(self, partition: int) -> None:
        tag = f"{{ledgerq:{partition}}}:"
        self.partition = partition
        self.prefix = tag
        self.events = f"{tag}events"
        self.due = f"{tag}due"
        self.leases = f"{tag}leases"
        self.callbacks = f"{tag}callbacks"
        self.callback_bell = f"{tag}callback-bell"
        self.counters = f"{tag}counters"
        self.admitted = f"{tag}admitted"
        self.limits = f"{tag}limits"
        self.queues = (self.prefix, self.counters, self.admitted, self.limits)
        """What every script is given that has to do with queues; see queues.lua."""
        self.erased = f"{tag}erased"
        self.set_aside = f"{tag}set-aside"
        self.checkpoints = f"{tag}checkpoints"
        self.projections = f"{tag}projections"
        self.archive = f"{tag}archive"
        self.restored = f"{tag}restored"
        self.task_prefix = f"{tag}task:"
        self._ready_prefix = f"{tag}ready:"
        self._ready: dict[Queue, str] = {}

    def task(self, task_id: str) -> str:
        return self.task_prefix + task_id

    def callback_line(self, host: str) -> str:
        return f"{self.callbacks}:{host}"

    def of_task(self, task: Task) -> tuple[str, str, str]:
        """Those that hold a task and its queue."""
        queue = queue_of(task)
        return self.task(task.id), self.ready(queue), self.backlog(queue)

    def ready(self, queue: Queue) -> str:
        known = self._ready.get(queue)
        if known is None:
            known = self._ready[queue] = self._ready_prefix + queue_name(queue)
        return known

    def backlog(self, queue: Queue) -> str:
        return f"{self.prefix}backlog:{queue_name(queue)}"


def members(group: str) -> str:
    """Who reads for a subscription."""
    return MEMBERS_PREFIX + group


def queue_name(queue: Queue) -> str:
    """`<type>:<priority>`, as it stands in keys and counters."""
    return f"{queue.task_type}:{queue.priority}"
