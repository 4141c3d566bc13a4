"""What tests of supervisors share: what children report, and a pool that runs meanwhile."""

import asyncio
import contextlib
import os
from collections.abc import AsyncGenerator, Sequence
from typing import Any

from consumers.pool import Pool

PATIENCE_S = 20


class Reports:
    """What children say, one line at a time; `None` once none of them is left."""

    def __init__(self) -> None:
        self.read_end, self.write_end = os.pipe()
        self._lines: asyncio.Queue[str | None] = asyncio.Queue()
        self._rest = b""
        asyncio.get_running_loop().add_reader(self.read_end, self._read)

    async def next(self) -> str | None:
        return await asyncio.wait_for(self._lines.get(), PATIENCE_S)

    async def take(self, count: int) -> set[str]:
        return {str(await self.next()) for _ in range(count)}

    def close_ours(self) -> None:
        """Leave the pipe to the children, so that its end says that they are gone."""
        if self.write_end >= 0:
            os.close(self.write_end)
            self.write_end = -1

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self.read_end)
        os.close(self.read_end)
        self.close_ours()

    def _read(self) -> None:
        data = os.read(self.read_end, 65_536)
        if not data:
            asyncio.get_running_loop().remove_reader(self.read_end)
            self._lines.put_nowait(None)
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._lines.put_nowait(line.decode())


@contextlib.asynccontextmanager
async def running(pool: Pool) -> AsyncGenerator[None]:
    task = asyncio.create_task(pool.run())
    try:
        yield
        pool.stop()
        await asyncio.wait_for(task, PATIENCE_S)
    finally:
        task.cancel()
        await asyncio.wait([task])


def at_once(_: int) -> float:
    return 0.0


def named(logs: Sequence[Any], event: str) -> list[Any]:
    return [record for record in logs if record["event"] == event]
