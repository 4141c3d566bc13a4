"""A primary and its replica, and what a fail-over does to them."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncGenerator
from typing import Any

from ledger.redis_connection import connect, send
from tests.servers import PERSISTENT, Server, make_server, valkey_binary

REACT_TIMEOUT_S = 20


class Pair:
    """Two servers; the replica follows the primary until it `takes_over`."""

    def __init__(self, primary: Server, replica: Server, ports: tuple[int, int]) -> None:
        self.primary = primary
        self.replica = replica
        self.leading = primary
        """The one whose word counts."""
        self._ports = ports

    async def until_level(self) -> None:
        """Return when the replica has all that the primary has now."""
        async with asyncio.timeout(REACT_TIMEOUT_S):
            wanted = int((await info(self.primary, "replication"))["master_repl_offset"])
            while True:
                told = await info(self.replica, "replication")
                is_up = told.get("master_link_status") == "up"
                if is_up and int(told["master_repl_offset"]) >= wanted:
                    return
                await asyncio.sleep(0.02)

    async def take_over(self) -> None:
        """The replica follows no longer: what the primary is told from now on, it does not have."""
        await command(self.replica, "REPLICAOF", "NO", "ONE")

    async def demote(self) -> None:
        """The old primary follows the new one, and loses what that does not have."""
        await command(self.primary, "REPLICAOF", "127.0.0.1", self._ports[1])


async def command(server: Server, *arguments: str | int) -> Any:
    """One command to a server, past any proxy."""
    client = connect(server.url, timeout_ms=5_000, connections_max=1)
    try:
        return await send(client, arguments)
    finally:
        await client.aclose()


async def info(server: Server, section: str) -> dict[str, str]:
    lines: list[str] = (await command(server, "INFO", section)).decode().splitlines()
    return {name: value for name, _, value in (line.partition(":") for line in lines)}


@contextlib.asynccontextmanager
async def replicated() -> AsyncGenerator[Pair]:
    """A pair whose replica has caught up."""
    ports = free_port(), free_port()
    quick = (*PERSISTENT, "--bind", "127.0.0.1", "--repl-diskless-sync-delay", "0")
    with (
        make_server(valkey_binary(), *quick, "--port", str(ports[0])) as primary,
        make_server(
            valkey_binary(), *quick, "--port", str(ports[1]), "--replicaof", f"127.0.0.1 {ports[0]}"
        ) as replica,
    ):
        pair = Pair(primary, replica, ports)
        await pair.until_level()
        yield pair


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
