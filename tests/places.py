"""Where tasks wait, read off a store from outside, past the methods under test."""

import re
from typing import Any, cast

from redis.asyncio import Redis

from ledger import keys
from ledger.events import Priority
from ledger.identity import SYSTEM, is_task_id
from ledger.keys import PartitionKeys, queue_name
from ledger.memory_store import MemoryStore
from ledger.placement import Callback, Due, Leased, Nowhere, Ready, placement
from ledger.redis_connection import send
from ledger.redis_store import RedisStore
from ledger.subscriptions import is_group_name
from ledger.task import Task

Places = dict[str, list[str]]
"""By task id: `ready:<type>:<priority>`, `due:<ms>`, `lease:<attempt>`, `callback:<host>:<ms>`, and
`pending:…` beside `ready:…` while a claim is not yet started."""


def place_of(task: Task) -> list[str]:
    """The places that the task must be found in, as `Places` writes them."""
    match placement(task):
        case Ready(queue):
            return [f"ready:{queue_name(queue)}"]
        case Due(at_ms):
            return [f"due:{at_ms}"]
        case Leased(attempt):
            return [f"lease:{attempt}"]
        case Callback(at_ms, host):
            return [f"callback:{host}:{at_ms}"]
        case Nowhere():
            return []


async def places_of(store: MemoryStore | RedisStore) -> Places:
    """Every task that waits anywhere, and where."""
    if isinstance(store, MemoryStore):
        return places_in(store)
    return _by_task(await _on_server(store))


def places_in(store: MemoryStore, *, pending: bool = True) -> Places:
    """The same without waiting; claims that are not yet started can be left out."""
    return _by_task(_in_memory(store, pending=pending))


def _by_task(found: list[tuple[str, str]]) -> Places:
    places: Places = {}
    for task_id, place in sorted(found):
        places.setdefault(task_id, []).append(place)
    return places


async def assert_quiescent(store: MemoryStore | RedisStore) -> None:
    """Nothing is ready, pending, due or leased."""
    assert await places_of(store) == {}


def _in_memory(store: MemoryStore, *, pending: bool) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for partition in store.contents:
        for queue, line in partition.queues.lines.items():
            held = [
                task_id for tasks in line.backlog.tasks.values() for task_id, _ in tasks.values()
            ]
            found += [(task_id, f"ready:{queue_name(queue)}") for task_id in held]
            for entry in line.ready.values():
                found.append((entry.task_id, f"ready:{queue_name(queue)}"))
                if pending and entry.delivered_at is not None:
                    found.append((entry.task_id, f"pending:{queue_name(queue)}"))
        found += [(task_id, f"due:{at}") for task_id, at in partition.due.items()]
        found += [(task_id, f"lease:{attempt}") for task_id, attempt in partition.leases]
        for host, line in partition.callbacks.hosts.items():
            found += [(task_id, f"callback:{host}:{at}") for task_id, at in line.items()]
    return found


async def _on_server(store: RedisStore) -> list[tuple[str, str]]:
    client, found = cast("Any", store.client), list[tuple[str, str]]()
    for partition in range(store.partitions):
        names = PartitionKeys(partition)
        prefix, held = f"{names.prefix}ready:", f"{names.prefix}backlog:"
        for key in await server_keys(store.client):
            if key.startswith(names.callback_line("")):
                host = key.removeprefix(names.callback_line(""))
                line = await client.zrange(key, 0, -1, withscores=True)
                found += [(id.decode(), f"callback:{host}:{int(at)}") for id, at in line]
            if key.startswith(held):
                members = await client.zrange(key, 0, -1)
                queue = key.removeprefix(held)
                found += [(member[-36:].decode(), f"ready:{queue}") for member in members]
            if not key.startswith(prefix):
                continue
            queue = key.removeprefix(prefix)
            tasks = {entry: fields[b"task"].decode() for entry, fields in await client.xrange(key)}
            found += [(task_id, f"ready:{queue}") for task_id in tasks.values()]
            pending: list[dict[str, Any]] = []
            if await client.xinfo_groups(key):
                pending = await client.xpending_range(key, keys.GROUP, "-", "+", 10_000)
            found += [(tasks.get(item["message_id"], "?"), f"pending:{queue}") for item in pending]
        due = await client.zrange(names.due, 0, -1, withscores=True)
        found += [(member.decode(), f"due:{int(score)}") for member, score in due]
        for member in await client.zrange(names.leases, 0, -1):
            task_id, _, attempt = member.decode().rpartition(":")
            found.append((task_id, f"lease:{attempt}"))
    return found


async def server_keys(client: Redis) -> list[str]:
    """Every key on the server, sorted."""
    found: list[bytes] = await send(client, ("KEYS", "*"))
    return sorted(key.decode(errors="backslashreplace") for key in found)


async def unknown_keys(client: Redis) -> list[str]:
    """Keys that `ledger.keys` does not make."""
    return [key for key in await server_keys(client) if not _is_known(key)]


def _is_known(key: str) -> bool:
    if key in (keys.LEDGER, keys.WORKERS, keys.HEARTBEATS, keys.SUBSCRIPTIONS):
        return True
    if key.startswith(keys.MEMBERS_PREFIX):
        return is_group_name(key.removeprefix(keys.MEMBERS_PREFIX))
    tagged = re.match(r"\{ledgerq:(\d+)\}:", key)
    if tagged is None:
        return False
    names = PartitionKeys(int(tagged[1]))
    if key in (names.events, names.due, names.leases, names.set_aside, *names.queues[1:]):
        return True
    if key in (names.callbacks, names.callback_bell) or key.startswith(names.callback_line("")):
        return True
    if key in (names.projections, names.archive, names.restored, names.erased):
        return True
    if key in (names.limits, names.admitted, names.checkpoints):
        return True
    if key == PartitionKeys(0).task(SYSTEM):
        return True
    if key.startswith(names.task_prefix):
        return is_task_id(key.removeprefix(names.task_prefix))
    kind, _, queue = key.removeprefix(names.prefix).partition(":")
    task_type, _, priority = queue.partition(":")
    return (
        kind in ("ready", "backlog")
        and re.fullmatch(r"[a-z][a-z0-9_]*", task_type) is not None
        and priority in set(Priority)
    )
