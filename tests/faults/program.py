"""ledgerq's own processes, to be killed and started again."""

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import IO, Self

ROOT = Path(__file__).parents[2]
END_TIMEOUT_S = 30


class Program:
    """One process, `python -m` with arguments; what it writes goes to a file."""

    def __init__(self, log: Path, env: dict[str, str], *arguments: str) -> None:
        self._log = log
        self._env = {**os.environ, **env}
        self._arguments = arguments
        self._process: asyncio.subprocess.Process | None = None

    @classmethod
    async def started(cls, log: Path, env: dict[str, str], *arguments: str) -> Self:
        program = cls(log, env, *arguments)
        await program.start()
        return program

    async def start(self) -> None:
        """Start it, or another one in its place."""
        self._process = await self._spawn(self._log.open("ab"))

    async def _spawn(self, log: IO[bytes]) -> asyncio.subprocess.Process:
        with log:
            return await asyncio.create_subprocess_exec(
                sys.executable, "-m", *self._arguments,
                cwd=ROOT, env=self._env, stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs."""
        assert self._process is not None
        return self._process.returncode

    def send(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    async def kill(self) -> None:
        """SIGKILL, in the middle of whatever it does."""
        await self._end(signal.SIGKILL)

    async def stop(self) -> None:
        """SIGTERM, and wait for the orderly end."""
        await self._end(signal.SIGTERM)

    async def _end(self, number: signal.Signals) -> None:
        assert self._process is not None
        if self._process.returncode is None:
            self._process.send_signal(number)
        async with asyncio.timeout(END_TIMEOUT_S):
            await self._process.wait()
