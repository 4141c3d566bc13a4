"""The servers of a run: one of ledgerq's own on a data directory, or a primary and its replica."""

import asyncio
import contextlib
import os
import signal
import subprocess
from collections.abc import AsyncGenerator, Generator
from pathlib import Path
from typing import Literal

from ledger.embedded import DamagedAppendOnlyFile, EmbeddedServer
from ledger.embedded.data_dir import APPEND_DIR_NAME
from ledger.redis_connection import connect, send
from tests.faults.replicas import Pair, replicated
from tests.servers import Server

SMALL_DISK_BYTES = 24 << 20
END_TIMEOUT_S = 40
POSTPONED_S = 2.2
"""With `everysec`, what was acknowledged may be held back so long before the kernel is given it,
while a sync runs in the background; a tenth or two of it until the server looks at its clock."""
TORN = b"*1\r\n$5\r\nMULTI\r\n*4\r\n$4\r\nHSET\r\n$30\r\n{ledgerq:0}:task"
"""How a transaction begins that was never finished."""


class OneLedger:
    """The Valkey of `ledgerq up`, killed, stopped and started again."""

    def __init__(self, folder: Path, durability: Literal["always", "everysec"]) -> None:
        self._server = EmbeddedServer(folder, durability=durability, on_lost_tail=lambda _: None)
        self._folder = folder
        self.forgets_s = POSTPONED_S if durability == "everysec" else 0.0
        """What was acknowledged so shortly before a kill may be gone after it."""

    @property
    def url(self) -> str:
        return self._server.url

    def signal(self, number: signal.Signals) -> None:
        os.kill(self._server.pid, number)

    async def start(self) -> None:
        await self._server.start()

    async def kill(self) -> None:
        """SIGKILL, and wait."""
        with contextlib.suppress(ProcessLookupError):
            self.signal(signal.SIGKILL)
        await self.tidy_up()

    async def tidy_up(self) -> None:
        """After its end, whatever ended it."""
        async with asyncio.timeout(END_TIMEOUT_S):
            await self._server.wait()
            await self._server.stop()

    async def has_ended(self, within_s: float) -> bool:
        """Whether the server ends by itself."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self._server.wait()
                return True
        return False

    async def stop(self) -> None:
        await self._server.stop()

    async def forget_scripts(self) -> None:
        client = connect(self.url, timeout_ms=5_000, connections_max=1)
        await send(client, ("SCRIPT", "FLUSH"))
        await client.aclose()

    # -- its file -----------------------------------------------------------------------------

    async def start_with_torn_file(self) -> str:
        """Start on a file that ends in the middle of a write; what was wrong with that, if
        anything."""
        with self._newest_file().open("ab") as file:
            file.write(TORN)
        await self.start()
        tail = self._server.lost_tail
        if tail is None or tail.size != len(TORN):
            return f"a torn end of {len(TORN)} bytes was reported as {tail}"
        return ""

    async def start_with_corrupt_file(self) -> str:
        """Damage the middle of the file, see the start refused, put it back, and start; what was
        wrong with that, if anything."""
        file = self._newest_file()
        whole = file.read_bytes()
        spot = whole.find(b"\r\n*", len(whole) // 2) + 2
        if spot < 2:
            await self.start()
            return "there was too little in the file to damage it"
        damaged = whole[:spot] + b"!" + whole[spot + 1 :]
        file.write_bytes(damaged)
        try:
            await self.start()
        except DamagedAppendOnlyFile:
            wrong = "" if file.read_bytes() == damaged else "a refused file was changed"
        else:
            await self.kill()
            wrong = f"a file that is damaged at byte {spot} was read past"
        file.write_bytes(whole)
        await self.start()
        return wrong

    def _newest_file(self) -> Path:
        files = (self._folder / APPEND_DIR_NAME).glob("*.incr.aof")
        return max(files, key=lambda path: path.stat().st_mtime)

    # -- its disk -----------------------------------------------------------------------------

    def fill_disk(self) -> Path:
        """Leave no room on the small disk; the file that took it."""
        ballast = self._folder / "ballast"
        with ballast.open("wb") as file:
            for size in (1 << 16, 1 << 12, 1 << 8, 1):
                with contextlib.suppress(OSError):
                    while os.write(file.fileno(), b"\0" * size) == size:
                        pass
        return ballast


@contextlib.asynccontextmanager
async def two_ledgers() -> AsyncGenerator[Pair]:
    """A primary with its replica."""
    async with replicated() as pair:
        yield pair


@contextlib.contextmanager
def small_disk(folder: Path) -> Generator[None]:
    """A file system of SMALL_DISK_BYTES at `folder`. Raises OSError where none may be mounted."""
    if os.geteuid() != 0 or not Path("/bin/mount").exists():
        raise OSError("mounting a small file system needs root")
    folder.mkdir()
    options = f"size={SMALL_DISK_BYTES}"
    command = ["/bin/mount", "-t", "tmpfs", "-o", options, "ledgerq-faults", str(folder)]
    mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    if mounted.returncode:
        raise OSError(mounted.stderr.strip())
    try:
        yield
    finally:
        subprocess.run(["/bin/umount", "--lazy", str(folder)], check=True)


__all__ = ["OneLedger", "Pair", "Server", "small_disk", "two_ledgers"]
