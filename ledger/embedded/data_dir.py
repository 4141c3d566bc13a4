"""The folder of the embedded Valkey: what lies where in it, and which process owns it (I/O).

    ledgerq.lock     held by the owner (`ledgerq up`) for its whole life; says who that is
    valkey.lock      held by the server process itself, its pid inside (see exec_tied.py)
    valkey.conf      written at each start; editing it changes nothing
    valkey.sock      where the server listens, unless the path is too long for a socket
    valkey.log       the server's log; valkey.log.1 is the one before
    appendonlydir/   the ledger: manifest, base file and incremental files of the append-only file
    lost-tails/      what could not be read back after a crash, kept

Locks are flock(2) locks: the kernel drops them when their holder ends, however it ends, so there is
nothing stale to clean up. Lock files are never removed, since a lock on an unlinked file is seen by
nobody.
"""

import contextlib
import fcntl
import os
from dataclasses import dataclass
from pathlib import Path

import msgspec

APPEND_DIR_NAME = "appendonlydir"
APPEND_FILE_NAME = "appendonly.aof"
CONF_NAME = "valkey.conf"
LOG_NAME = "valkey.log"
LOST_TAILS_NAME = "lost-tails"
OWNER_LOCK_NAME = "ledgerq.lock"
SERVER_LOCK_NAME = "valkey.lock"
SOCKET_NAME = "valkey.sock"

_RECORD_BYTES_MAX = 16 * 1024


class EmbeddedServerError(RuntimeError):
    """The embedded Valkey cannot be started or used; the message says why and what to do."""


class DataDirInUse(EmbeddedServerError):
    """Another process owns the data directory. `pid` is None while that one is still starting."""

    def __init__(self, data_dir: Path, owner: "Owner | None") -> None:
        who = (
            f"ledgerq process {owner.pid} (since {owner.started_at})"
            if owner
            else "another ledgerq"
        )
        super().__init__(
            f"data directory {data_dir} is in use by {who}: stop that one first,"
            " or choose another with --data-dir"
        )
        self.data_dir = data_dir
        self.pid = owner.pid if owner else None


class Owner(msgspec.Struct, frozen=True):
    """What the owner writes into its lock file, as one line of JSON."""

    pid: int
    started_at: str
    """RFC 3339, UTC."""
    url: str | None = None
    """Where its server answers; None while it is starting."""
    socket_dir: str | None = None
    """A temporary folder made for the socket alone."""


@dataclass
class OwnerLock:
    """The ownership of a data directory, from `take` to `release`."""

    descriptor: int
    previous: Owner | None
    """What the last owner left, if it did not get round to `release`."""

    @classmethod
    def take(cls, data_dir: Path) -> "OwnerLock | None":
        """The lock of an existing directory, or None when another one (or a look) holds it."""
        # Python opens descriptors close-on-exec: no child keeps this lock alive.
        descriptor = os.open(data_dir / OWNER_LOCK_NAME, os.O_RDWR | os.O_CREAT, 0o600)
        if not _lock(descriptor, fcntl.LOCK_EX):
            os.close(descriptor)
            return None
        lock = cls(descriptor, _read(descriptor))
        os.ftruncate(descriptor, 0)
        return lock

    def record(self, owner: Owner) -> None:
        """Tell who the owner is. A reader meanwhile sees the old line or the new one, whole."""
        line = msgspec.json.encode(owner) + b"\n"
        os.pwrite(self.descriptor, line, 0)
        os.ftruncate(self.descriptor, len(line))

    def release(self) -> None:
        os.ftruncate(self.descriptor, 0)
        os.close(self.descriptor)


def owner_of(data_dir: Path) -> Owner | None:
    """The process that owns `data_dir` now; None when there is none, or it is just starting."""
    try:
        descriptor = os.open(data_dir / OWNER_LOCK_NAME, os.O_RDONLY)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        # Held first, read second: what a dead owner left must not pass for a living one's.
        return None if _lock(descriptor, fcntl.LOCK_SH) else _read(descriptor)
    finally:
        os.close(descriptor)


def running_server(data_dir: Path) -> str | None:
    """The URL of the Valkey that a running `ledgerq up` has on `data_dir`, None when none runs."""
    owner = owner_of(data_dir)
    return owner.url if owner else None


def server_holding(data_dir: Path) -> int | None:
    """The pid of a server process that still holds `data_dir`; 0 when it has not said which.

    Only for the owner: the look takes the server's lock for a moment.
    """
    try:
        descriptor = os.open(data_dir / SERVER_LOCK_NAME, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        if _lock(descriptor, fcntl.LOCK_EX):
            return None
        pid = os.pread(descriptor, 32, 0).strip()
        return int(pid) if pid.isdigit() else 0
    finally:
        os.close(descriptor)


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable; a file's own fsync does not."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _lock(descriptor: int, kind: int) -> bool:
    with contextlib.suppress(BlockingIOError):
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
        return True
    return False


def _read(descriptor: int) -> Owner | None:
    line, _, _ = os.pread(descriptor, _RECORD_BYTES_MAX, 0).partition(b"\n")
    try:
        return msgspec.json.decode(line, type=Owner)
    except msgspec.MsgspecError:
        return None
