"""Checks of the Redis or Valkey that holds the ledger: version, durability, memory, clock."""

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, cast

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from api.cli.checkup.finding import Finding, fail, ok, warn
from ledger.redis_connection import Argument
from ledger.settings import Durability, Settings

CLOCK_OFFSET_MS_MAX: Final = 1_000
OLDEST_REDIS: Final = (7, 0)
OLDEST_VALKEY: Final = (8, 0)
OPTIONS: Final = ("appendonly", "appendfsync", "maxmemory-policy")


async def ask(client: Redis, commands: Sequence[Sequence[Argument]]) -> list[Any]:
    """The raw replies to many commands, sent at once; an error reply is a ResponseError."""
    pool = client.connection_pool
    connection = cast("Any", await pool.get_connection())
    replies: list[Any] = []
    try:
        for command in commands:
            await connection.send_command(*command)
        for _ in commands:
            try:
                replies.append(await connection.read_response())
            except ResponseError as error:
                replies.append(error)
    finally:
        await pool.release(connection)
    return replies


async def server(client: Redis, settings: Settings) -> list[Finding]:
    """Raises RedisError when the server is out of reach."""
    options, info_text, now = await ask(
        client, [("CONFIG", "GET", *OPTIONS), ("INFO", "all"), ("TIME",)]
    )
    if isinstance(info_text, ResponseError) or isinstance(now, ResponseError):
        refused = info_text if isinstance(info_text, ResponseError) else now
        return [fail("server", f"it refuses INFO or TIME: {refused}", "allow these commands")]
    ours_ms = time.time_ns() // 1_000_000
    theirs_ms = int(now[0]) * 1000 + int(now[1]) // 1000
    info = _info(info_text)
    return [
        _version(info),
        *_role(info),
        *_durability(info, None if isinstance(options, ResponseError) else options, settings),
        _memory(info, settings),
        _clock(theirs_ms - ours_ms),
    ]


def _info(text: bytes) -> dict[str, str]:
    lines = (line.partition(":") for line in text.decode(errors="replace").splitlines())
    return {name: value for name, colon, value in lines if colon}


def _version(info: Mapping[str, str]) -> Finding:
    valkey = info.get("valkey_version")
    name, version, oldest = (
        ("Valkey", valkey, OLDEST_VALKEY)
        if valkey
        else ("Redis", info.get("redis_version", "0"), OLDEST_REDIS)
    )
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdecimal())
    if numbers < oldest:
        wanted = "Redis 7.0 or later, or Valkey 8 or later"
        return fail("server", f"{name} {version} is too old", f"use {wanted}")
    return ok("server", f"{name} {version}, up {int(info['uptime_in_seconds']):,} s")


def _role(info: Mapping[str, str]) -> Iterator[Finding]:
    if info.get("loading") == "1":
        done = info.get("loading_loaded_perc", "?")
        yield fail("server", f"it is loading its data ({done} %)", "wait until it is done")
    if info.get("role") == "slave":
        yield fail("server", "it is a replica, which takes no writes", "name the primary: --redis")


def _durability(info: Mapping[str, str], raw_options: Any, settings: Settings) -> Iterator[Finding]:
    """Whether the server keeps what the setting `durability` promises."""
    advice = "see the settings `durability` and the server's configuration"
    if info.get("aof_enabled") != "1":
        yield fail(
            "durability",
            f"the server keeps no append-only file, though durability is {settings.durability}",
            "CONFIG SET appendonly yes, and the same in its configuration file",
        )
        return
    if info.get("aof_last_write_status", "ok") != "ok":
        yield fail("durability", "the last write of its file failed", "look at its disk and log")
    if raw_options is None:
        yield warn("durability", "the server does not tell its configuration (CONFIG GET)", advice)
        return
    words = [word.decode() for word in raw_options]
    options = dict(zip(words[::2], words[1::2], strict=True))
    synced, policy = options["appendfsync"], options["maxmemory-policy"]
    promised = {Durability.ALWAYS: {"always"}, Durability.EVERYSEC: {"always", "everysec"}}
    if synced not in promised[settings.durability]:
        yield fail(
            "durability",
            f"appendfsync is {synced}, though durability is {settings.durability}: what was"
            " acknowledged can be lost",
            f"CONFIG SET appendfsync {settings.durability}, and in its configuration file; or"
            f" set durability to what it does",
        )
    else:
        yield ok("durability", f"append-only file, appendfsync {synced}")
    if policy != "noeviction":
        yield fail(
            "eviction",
            f"maxmemory-policy is {policy}: the server may throw tasks away",
            "CONFIG SET maxmemory-policy noeviction, and in its configuration file",
        )
    else:
        yield ok("eviction", "noeviction")


def _memory(info: Mapping[str, str], settings: Settings) -> Finding:
    used, limit = int(info["used_memory"]), int(info.get("maxmemory", "0"))
    text = f"{used / (1 << 20):,.0f} MiB used"
    if not limit:
        return ok("memory", f"{text}, no maxmemory")
    percent = 100 * used / limit
    text += f" of {limit / (1 << 20):,.0f} MiB ({percent:.0f} %)"
    if percent >= settings.memory_high_percent:
        return fail(
            "memory",
            f"{text}: no new task is taken above {settings.memory_high_percent} %",
            "raise maxmemory, or let tasks finish",
        )
    return ok("memory", text)


def _clock(offset_ms: int) -> Finding:
    if abs(offset_ms) > CLOCK_OFFSET_MS_MAX:
        return warn(
            "clock",
            f"the server's clock is {offset_ms / 1000:+.1f} s from this machine's",
            "schedule_for is met by the server's clock: synchronise both (NTP)",
        )
    return ok("clock", f"{offset_ms:+d} ms from the server's")
