"""Checks of the ledger on a server: its format, and what waits, runs or was set aside in it."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, cast

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from api.cli.checkup.finding import Finding, fail, ok, warn
from api.cli.checkup.server import ask
from api.cli.output import counted
from consumers.archive_status import archive_status
from consumers.retention_status import retention_status, terms_of
from consumers.subscription_status import followers
from ledger import keys
from ledger.codec import Undecodable
from ledger.events import Priority
from ledger.keys import PartitionKeys
from ledger.placement import Queue
from ledger.redis_archive import RedisArchive
from ledger.redis_calls import ForeignKey, StoreOptions
from ledger.redis_retention import RedisRetention
from ledger.redis_store import LEDGER_FORMAT
from ledger.redis_subscriptions import RedisSubscriptions
from ledger.rejections import Rejection
from ledger.settings import Settings

LATE_MS: Final = 10_000
"""So late, a due task or an expired lease means that no scheduler looks."""

UNSEALED_S: Final = 60
"""For so long, events wait to be sealed only where no archiver runs, or it cannot write."""

HELD_MS: Final = 600_000
"""So much later than they could be, events are trimmed only where something is in the way."""

STUCK_MS: Final = 60_000
"""So old, a claim that was not started means that no worker looks; a waiting task, that none for
its type has room."""


async def ledger(client: Redis, settings: Settings) -> list[Finding]:
    """Raises RedisError when the server is out of reach."""
    flat, now = await ask(client, [("HGETALL", keys.LEDGER), ("TIME",)])
    if isinstance(flat, ResponseError):
        return [fail("ledger", f"it cannot be read: {flat}", "check the server and --redis")]
    words = [word.decode(errors="replace") for word in flat]
    facts = dict(zip(words[::2], words[1::2], strict=True))
    if not facts:
        return [ok("ledger", "none yet: the first process makes it")]
    found = list(_format(facts, settings))
    if found:
        return found
    partitions = [PartitionKeys(number) for number in range(settings.partitions)]
    now_ms = int(now[0]) * 1000 + int(now[1]) // 1000
    return [
        ok("ledger", f"format {LEDGER_FORMAT}, {counted(settings.partitions, 'partition')}"),
        *await _queues(client, partitions, now_ms),
        *await _sets(client, partitions, now_ms),
        *await _followers(client, settings),
        *await _archive(client, settings),
        *await _retention(client, settings, now_ms),
    ]


def _format(facts: Mapping[str, str], settings: Settings) -> Iterator[Finding]:
    wanted = {"format": LEDGER_FORMAT, "partitions": str(settings.partitions)}
    for name, value in wanted.items():
        if facts.get(name) != value:
            yield fail(
                "ledger",
                f"its {name} is {facts.get(name)}, the settings ask for {value}",
                f"set {name} to {facts.get(name)}, or use another server",
            )


async def _queues(client: Redis, partitions: Sequence[PartitionKeys], now_ms: int) -> list[Finding]:
    """What waits to be taken, by task type."""
    queues = await _known_queues(client, partitions)
    per_queue = 4
    replies = await ask(
        client,
        [
            command
            for _, stream, backlog in queues
            for command in (
                ("XLEN", stream),
                ("ZCARD", backlog),
                ("XRANGE", stream, "-", "+", "COUNT", 1),
                ("XPENDING", stream, keys.GROUP, "IDLE", STUCK_MS, "-", "+", 100),
            )
        ],
    )
    waiting: dict[str, int] = {}
    oldest_ms: dict[str, int] = {}
    stuck: dict[str, int] = {}
    for at, (kind, _, _) in enumerate(queues):
        staged, held, first, pending = replies[at * per_queue : (at + 1) * per_queue]
        waiting[kind] = waiting.get(kind, 0) + _number(staged) + _number(held)
        for entry, _ in _entries(first):
            age_ms = now_ms - int(entry.partition(b"-")[0])
            oldest_ms[kind] = max(oldest_ms.get(kind, 0), age_ms)
        # Without a group, nothing was ever claimed there: an error reply.
        stuck[kind] = stuck.get(kind, 0) + len(_entries(pending))
    return [*_waiting(waiting, oldest_ms), *_stuck(stuck)]


async def _known_queues(
    client: Redis, partitions: Sequence[PartitionKeys]
) -> list[tuple[str, str, str]]:
    """Task type, ready stream and backlog of every queue that was ever used: the counters
    tell."""
    fields = await ask(client, [("HKEYS", partition.counters) for partition in partitions])
    found: list[tuple[str, str, str]] = []
    for partition, names in zip(partitions, fields, strict=True):
        for name in _entries(names):
            counter, _, queue = name.decode(errors="replace").partition(":")
            kind, _, priority = queue.rpartition(":")
            if counter == "used" and priority in set(Priority):
                known = Queue(kind, Priority(priority))
                found.append((kind, partition.ready(known), partition.backlog(known)))
    return found


def _waiting(waiting: Mapping[str, int], oldest_ms: Mapping[str, int]) -> Iterator[Finding]:
    listed = ", ".join(f"{kind} {count:,}" for kind, count in waiting.items() if count)
    late = [kind for kind, age_ms in oldest_ms.items() if age_ms > STUCK_MS]
    if late:
        yield warn(
            "queues",
            f"waiting: {listed}; for more than a minute: {', '.join(late)}",
            "is there a worker with a handler for it, and with room?",
        )
    else:
        yield ok("queues", f"waiting: {listed}" if listed else "nothing waits")


def _stuck(stuck: Mapping[str, int]) -> Iterator[Finding]:
    listed = ", ".join(f"{kind} {count}" for kind, count in stuck.items() if count)
    if listed:
        yield warn(
            "claims",
            f"claimed more than a minute ago and never started: {listed}",
            "start a worker with a handler for it: it takes them up",
        )
    else:
        yield ok("claims", "none is left behind")


async def _sets(client: Redis, partitions: Sequence[PartitionKeys], now_ms: int) -> list[Finding]:
    """What is scheduled, what runs, and what was set aside."""
    late = now_ms - LATE_MS
    per_partition = 5
    replies = await ask(
        client,
        [
            command
            for partition in partitions
            for command in (
                ("ZCARD", partition.due),
                ("ZCOUNT", partition.due, "-inf", late),
                ("ZCARD", partition.leases),
                ("ZCOUNT", partition.leases, "-inf", late),
                ("XLEN", partition.set_aside),
            )
        ],
    )
    columns = [sum(map(_number, replies[i::per_partition])) for i in range(per_partition)]
    due, due_late, running, lost, aside = columns
    return [
        _scheduler("due", f"{due:,} scheduled or waiting for a retry", due_late),
        _scheduler("leases", f"{running:,} running", lost),
        _set_aside(aside),
    ]


def _scheduler(check: str, text: str, late: int) -> Finding:
    if late:
        return warn(check, f"{text}; {late:,} of them overdue", "start `ledgerq scheduler`")
    return ok(check, text)


def _set_aside(count: int) -> Finding:
    if count:
        return warn(
            "set aside",
            f"{count:,} queue entries could not be served",
            "read them with XRANGE '{ledgerq:0}:set-aside' - + (one stream for each partition)",
        )
    return ok("set aside", "nothing")


async def _followers(client: Redis, settings: Settings) -> list[Finding]:
    """Who follows the ledger from outside."""
    subscriptions = RedisSubscriptions(client, settings.partitions, settings.redis_timeout_ms)
    try:
        found = await followers(subscriptions, settings.subscription_hold_s * 1_000)
    except (Rejection, Undecodable, ForeignKey) as error:
        return [fail("subscriptions", f"they cannot be read: {error}", "check the server")]
    halted = [status.name for status in found.groups if status.halted]
    overdue = [status.name for status in found.groups if status.overdue]
    findings: list[Finding] = []
    if halted:
        advice = "`ledgerq subscriptions` says why; `ledgerq subscriptions seek` where to go on"
        findings.append(fail("subscriptions", f"halted: {', '.join(halted)}", advice))
    if overdue:
        text = f"more than {settings.subscription_hold_s:,} s behind: {', '.join(overdue)}"
        advice = "trimming does not wait for them: let them read on, or remove them"
        findings.append(warn("subscriptions", text, advice))
    return findings or [ok("subscriptions", f"{len(found.groups)} follow the ledger")]


async def _archive(client: Redis, settings: Settings) -> list[Finding]:
    """What is sealed, and what is not."""
    partitions, timeout_ms = settings.partitions, settings.redis_timeout_ms
    fence = RedisArchive(client, partitions, timeout_ms)
    try:
        found = await archive_status(fence, RedisSubscriptions(client, partitions, timeout_ms))
    except (Rejection, Undecodable, ForeignKey) as error:
        return [fail("archive", f"how far it goes cannot be read: {error}", "check the server")]
    halted = [f"partition {each.partition}: {each.halted}" for each in found if each.halted]
    if halted:
        advice = "find out what became of the ledger; then `ledgerq archiver go-on PARTITION`"
        return [fail("archive", f"halted, {halted[0]}", advice)]
    late_s = max(UNSEALED_S, 3 * settings.archive_seal_interval_ms / 1_000)
    worst = max(found, key=lambda each: each.unsealed_s)
    if worst.unsealed_s > late_s:
        text = f"events of partition {worst.partition} wait for {worst.unsealed_s:,.0f} s"
        advice = "start `ledgerq archiver`" if not worst.owner else "see what its log says"
        return [warn("archive", text, advice)]
    sealed = f"{counted(sum(each.sealed.size for each in found), 'event')} sealed"
    waits_s = worst.unsealed_s
    return [ok("archive", f"{sealed}, more wait for {waits_s:,.0f} s" if waits_s else sealed)]


async def _retention(client: Redis, settings: Settings, now_ms: int) -> list[Finding]:
    """Whether what is old enough leaves the streams."""
    timeout_ms = settings.redis_timeout_ms
    options = StoreOptions(partitions=settings.partitions, timeout_ms=timeout_ms)
    subscriptions = RedisSubscriptions(client, settings.partitions, timeout_ms)
    terms = terms_of(settings)
    try:
        store = RedisRetention(client, options)
        found = await retention_status(store, subscriptions, terms, now_ms)
    except (Rejection, Undecodable, ForeignKey) as error:
        return [
            fail("retention", f"what may be trimmed cannot be read: {error}", "check the server")
        ]
    for one in found.partitions:
        names = one.waits_for(now_ms - HELD_MS, terms.events_ms)
        if names:
            age_s = one.held_ms(now_ms) // 1_000
            waits = f"{age_s:,} s old and wait for: {', '.join(names)}"
            text = f"events of partition {one.partition} are {waits}"
            return [warn("retention", text, "`ledgerq retention` says how far each is")]
    if not terms.events_ms and not terms.tasks_ms:
        return [ok("retention", "all events and tasks stay in Redis for ever")]
    entries = sum(one.ends.length for one in found.partitions)
    told = f"{counted(entries, 'event')} in the streams; nothing holds back older ones"
    return [ok("retention", told)]


def _number(reply: Any) -> int:
    return reply if isinstance(reply, int) else 0


def _entries(reply: Any) -> list[Any]:
    return cast("list[Any]", reply) if isinstance(reply, list) else []
