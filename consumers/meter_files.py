"""The measurements of a node's processes, each in a file of its own, for whoever adds them up.

<name>.json    what a process measured, replaced whole about once a second
<name>.lock    locked for as long as that process lives
ended.json     what processes measured that have ended
gather.lock    held while files are added up

A number once told never becomes smaller: before adding up, a process writes its own file.
(prometheus-client has a mode for several processes. It keeps every observation in a mapped file,
at two microseconds each, keeps the files of dead processes for ever, and has one folder for a whole
interpreter, chosen before it is imported.)
"""

import asyncio
import contextlib
import fcntl
import os
import threading
from collections.abc import Generator
from pathlib import Path
from typing import Final

import msgspec
import structlog

from consumers.meters import BATCH_BOUNDS, DURATION_BOUNDS_S, Meter, Meters, add

log = structlog.get_logger("metrics")

FLUSH_S: Final = 1.0
"""What a killed process measured since is lost."""

ENDED: Final = "ended"
GATHER_LOCK: Final = "gather.lock"

_encode = msgspec.json.Encoder().encode


class _Ended(msgspec.Struct):
    """What ended processes measured, and whose files were added and may still be there."""

    meters: Meters
    added: list[str]


_decode = msgspec.json.Decoder(Meters).decode
_decode_ended = msgspec.json.Decoder(_Ended).decode


class MeterFile:
    """Keeps a Meter in a file of `folder`. Without a folder that can be written to, only here."""

    def __init__(self, meter: Meter, folder: Path) -> None:
        self._meter = meter
        self._folder = folder
        self._name = f"{os.getpid()}-{os.urandom(4).hex()}"
        self._lock: int | None = None
        self._flushing: asyncio.Task[None] | None = None
        self._writing = threading.Lock()
        meter.keep = self.flush
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with _held(folder / GATHER_LOCK):
                self._lock = _locked(folder / f"{self._name}.lock")
                # Where nobody ever asks, the files of ended processes would pile up.
                _add_up(folder, self._name)
        except OSError as error:
            log.warning("metrics_not_shared", folder=str(folder), reason=str(error))

    def start(self) -> None:
        """Write now and then, while the event loop runs."""
        self._flushing = asyncio.get_running_loop().create_task(self._flush_always())

    async def close(self) -> None:
        """Write for the last time."""
        if self._flushing is not None:
            self._flushing.cancel()
            await asyncio.wait([self._flushing])
        self._meter.meters.stream_clients = 0
        self._meter.meters.websocket_clients = 0
        self._meter.meters.threads_abandoned = 0
        self._meter.meters.uploads_running = 0
        self._meter.changed = True
        self.flush()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def flush(self) -> None:
        """Write what was measured since the last time."""
        if self._meter.changed and self._lock is not None:
            self._meter.changed = False
            with self._writing, contextlib.suppress(OSError):
                _replace(self._folder / f"{self._name}.json", _encode(self._meter.meters))

    async def gather(self) -> Meters:
        """What all processes of the node measured since the folder was made."""
        self.flush()
        if self._lock is None:
            return self._meter.meters
        try:
            return await asyncio.to_thread(_gathered, self._folder, self._name)
        except OSError as error:
            log.warning("metrics_not_gathered", folder=str(self._folder), reason=str(error))
            return self._meter.meters

    async def _flush_always(self) -> None:
        while True:
            await asyncio.sleep(FLUSH_S)
            self.flush()


def _gathered(folder: Path, own_name: str) -> Meters:
    with _held(folder / GATHER_LOCK):
        return _add_up(folder, own_name)


def _add_up(folder: Path, own_name: str) -> Meters:
    """Of all processes; the files of those that have ended become one. The lock must be held."""
    ended, living = _read_ended(folder), Meters()
    for name in sorted(path.stem for path in folder.glob("*-*.lock")):
        if name != own_name and _has_ended(folder, name):
            _bury(folder, ended, name)
        elif (meters := _read(folder / f"{name}.json")) is not None:
            add(living, meters, ended=False)
    if ended.added:
        # All of their files are gone.
        ended.added = []
        _replace(folder / f"{ENDED}.json", _encode(ended))
    add(living, ended.meters, ended=True)
    return living


def _bury(folder: Path, ended: _Ended, name: str) -> None:
    """Add the file of an ended process, once, whenever this one ends; then remove it."""
    if name not in ended.added:
        meters = _read(folder / f"{name}.json")
        if meters is not None:
            add(ended.meters, meters, ended=True)
        ended.added.append(name)
        _replace(folder / f"{ENDED}.json", _encode(ended))
    for suffix in ("json", "lock"):
        (folder / f"{name}.{suffix}").unlink(missing_ok=True)


def _read(path: Path) -> Meters | None:
    try:
        meters = _decode(path.read_bytes())
    except (FileNotFoundError, msgspec.MsgspecError, UnicodeDecodeError):
        return None
    return meters if _fits(meters) else None


def _read_ended(folder: Path) -> _Ended:
    try:
        ended = _decode_ended((folder / f"{ENDED}.json").read_bytes())
    except (FileNotFoundError, msgspec.MsgspecError, UnicodeDecodeError):
        return _Ended(Meters(), [])
    return ended if _fits(ended.meters) else _Ended(Meters(), [])


def _fits(meters: Meters) -> bool:
    """Whether it was measured by the same bounds: another version may have others."""
    durations = (meters.append_seconds, *meters.requests.values())
    return len(meters.append_items.counts) == len(BATCH_BOUNDS) and all(
        len(histogram.counts) == len(DURATION_BOUNDS_S) for histogram in durations
    )


def _has_ended(folder: Path, name: str) -> bool:
    try:
        os.close(_locked(folder / f"{name}.lock"))
    except BlockingIOError:
        return False
    return True


def _locked(path: Path) -> int:
    """A descriptor that holds the lock of a file. Raises BlockingIOError when another one does."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


@contextlib.contextmanager
def _held(path: Path) -> Generator[None]:
    """Wait for a lock, which nobody holds for long."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _replace(path: Path, content: bytes) -> None:
    draft = path.with_suffix(".new")
    draft.write_bytes(content)
    draft.replace(path)
