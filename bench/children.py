"""The bench's side of the processes in `roles`: start them, give the word, take their outcome."""

import asyncio
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Final

import msgspec

from bench.roles import Message, Options, Ready, Worked

ANSWER_TIMEOUT_S: Final = 120
END_TIMEOUT_S: Final = 20

_decode = msgspec.json.Decoder(Message).decode


class Child:
    """A running role."""

    def __init__(self, name: str, process: asyncio.subprocess.Process) -> None:
        self._name = name
        self._process = process
        self.pid = process.pid
        self.url = ""
        """Where it serves, if it does."""

    async def ready(self) -> None:
        message = await self._message()
        assert isinstance(message, Ready)
        self.url = message.url

    def begin(self) -> None:
        """Give the word."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"\n")

    async def worked(self, timeout_s: float = ANSWER_TIMEOUT_S) -> Worked:
        message = await self._message(timeout_s)
        assert isinstance(message, Worked)
        return message

    async def end(self) -> None:
        """Let it end by itself; kill it when it does not."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            await asyncio.wait_for(self._process.wait(), END_TIMEOUT_S)
        except TimeoutError:
            self._process.kill()
            await self._process.wait()

    async def _message(self, timeout_s: float = ANSWER_TIMEOUT_S) -> Message:
        assert self._process.stdout is not None
        line = await asyncio.wait_for(self._process.stdout.readline(), timeout_s)
        if not line:
            code = await self._process.wait()
            raise RuntimeError(f"the bench's {self._name} ended with {code}; it says why above")
        return _decode(line)


@asynccontextmanager
async def child(name: str, options: Options) -> AsyncGenerator[Child]:
    """A role in a process of its own, ready to begin."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.roles", name, msgspec.json.encode(options).decode()),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=1 << 22,
    )
    started = Child(name, process)
    try:
        await started.ready()
        yield started
    finally:
        await started.end()
