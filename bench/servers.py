"""The Valkey that a bench runs against: the one of `ledgerq up`, with data of its own."""

import tempfile
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, Literal

from ledger.embedded import EmbeddedServer
from ledger.redis_connection import connect, send
from ledger.redis_store import RedisStore, StoreOptions

Durability = Literal["memory", "everysec", "always"]

TIMEOUT_MS: Final = 30_000


class BenchServer:
    """A running server, emptied between rounds."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.client = connect(url, timeout_ms=TIMEOUT_MS, connections_max=64)

    async def empty(self) -> None:
        await send(self.client, ("FLUSHALL", "SYNC"))

    async def memory_bytes(self) -> int:
        """What the server's data takes, its own buffers included."""
        return int(await self.told("memory", "used_memory"))

    async def told(self, section: str, name: str) -> str:
        """A field of INFO; "" when it is not there."""
        lines: list[str] = (await send(self.client, ("INFO", section))).decode().splitlines()
        return {key: value for key, _, value in (x.partition(":") for x in lines)}.get(name, "")

    async def version(self) -> str:
        lines: list[str] = (await send(self.client, ("INFO", "server"))).decode().splitlines()
        found = {name: value for name, _, value in (x.partition(":") for x in lines)}
        return found.get("valkey_version", found["redis_version"])

    @asynccontextmanager
    async def store(self) -> AsyncGenerator[RedisStore]:
        store = await RedisStore.open(self.url, StoreOptions(timeout_ms=TIMEOUT_MS))
        try:
            yield store
        finally:
            await store.close()


@asynccontextmanager
async def run_server(
    durability: Durability, *, maxmemory_bytes: int | None = None
) -> AsyncGenerator[BenchServer]:
    """A server on a fresh directory below the working directory, so that `always` syncs the disk
    that a user's data would be on (a temporary directory is often no disk at all)."""
    with tempfile.TemporaryDirectory(prefix=".bench-", dir=Path.cwd()) as folder:
        async with EmbeddedServer(
            Path(folder), durability=durability, maxmemory_bytes=maxmemory_bytes
        ) as embedded:
            server = BenchServer(embedded.url)
            try:
                yield server
            finally:
                await server.client.aclose()
