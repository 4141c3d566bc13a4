"""What a crash tore off the append-only file: kept, reported, and only then cut off (I/O).

Valkey is told to refuse a file with a broken end (`aof-load-truncated no`), since its own way is to
drop it with a line in a log. Here the broken end is copied aside first and described; damage that a
crash cannot explain is left as it is, for a person to decide.
"""

import contextlib
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from mmap import ACCESS_READ, mmap
from pathlib import Path

import msgspec

from ledger.embedded.append_only_file import Damaged, Torn, Whole, examine
from ledger.embedded.data_dir import (
    APPEND_DIR_NAME,
    APPEND_FILE_NAME,
    LOST_TAILS_NAME,
    EmbeddedServerError,
    sync_directory,
)

SCANNED_BYTES_MAX = 4 * 1024 * 1024
NAMED_TASKS_MAX = 20
CHECK_TIMEOUT_S = 600

_UUID = rb"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
# As a task's key ends, and as the field `task` stands in a stream entry.
_TASK_ID = re.compile(rb"(?::task:|\$4\r\ntask\r\n\$36\r\n)(%b)" % _UUID)
_OK_UP_TO = re.compile(r"^AOF analyzed: .*\bok_up_to=(\d+),", re.MULTILINE)
# Redis 7.0 quotes the name in "Unknown command '…' reading the append only file …", Valkey 9 in
# "Error reading the append only file …, error: unknown command '…', …".
_REFUSED = re.compile(r"append only file.*unknown command '([^']*)'", re.IGNORECASE)
_REFUSED_7 = re.compile(r"unknown command '([^']*)' reading the append only file", re.IGNORECASE)


class LostTail(msgspec.Struct, frozen=True):
    """The end of the append-only file that could not be read back, and was cut off."""

    file: str
    """Path of the incremental file."""
    offset: int
    """Where the lost part began, in bytes."""
    size: int
    """Bytes lost."""
    saved: str
    """Path of the copy."""
    at: str
    """When it was found: RFC 3339, UTC."""
    task_ids: tuple[str, ...] = ()
    """Ids of tasks that stand in it, as far as it can be read; not all when it is long."""
    event_types: dict[str, int] = {}
    """How often the name of each event type stands in it, as far as it can be read."""

    def __str__(self) -> str:
        tasks = ", ".join(self.task_ids[:NAMED_TASKS_MAX])
        if len(self.task_ids) > NAMED_TASKS_MAX:
            tasks += f" and {len(self.task_ids) - NAMED_TASKS_MAX} more"
        events = ", ".join(f"{count} {name}" for name, count in self.event_types.items())
        return (
            f"The append-only file {self.file} ended in the middle of a write, as after a crash or"
            f" a loss of power: its last {self.size} bytes, from offset {self.offset} on, could not"
            f" be read back. They were saved to {self.saved} and cut off, and the ledger goes on"
            " from its last whole transaction. What can be read of the lost part names"
            f" {f'the tasks {tasks}' if tasks else 'no task'} and"
            f" {f'the events {events}' if events else 'no event'}. With durability `always` nothing"
            " of it had been acknowledged; with `everysec` up to a second of acknowledged work may"
            " be missing."
        )


class DamagedAppendOnlyFile(EmbeddedServerError):
    """The append-only file is broken in a way that no crash explains; nothing was changed."""

    def __init__(self, file: Path, offset: int, at: int, why: str) -> None:
        original, kept = shlex.quote(str(file)), shlex.quote(f"{file}.damaged")
        super().__init__(
            f"append-only file {file} is damaged at byte {at}: {why}. Nothing was changed. Restore"
            f" it from a copy; or, to go on with what stands before byte {offset} and lose"
            " everything after it:"
            f" cp -p {original} {kept} && head -c {offset} {kept} > {original}"
        )
        self.file = file
        self.offset = offset
        """The file reads back whole up to here, in bytes."""
        self.at = at


def save_lost_tail(data_dir: Path, binary: Path, log: str) -> LostTail | None:
    """After a refused start: cut off a torn end, its copy kept under `lost-tails/`.

    `log` is what the server logged while refusing. None: the incremental files read back whole, and
    the refusal has another reason. Raises `DamagedAppendOnlyFile` for damage that is no torn end.
    Blocks: it reads the file.
    """
    files = list(_incremental_files(data_dir))
    refused = _refused_command(log)
    for file in files:
        match _examine_file(file, binary, refused):
            case Whole():
                continue
            case Damaged(offset, at):
                raise DamagedAppendOnlyFile(
                    file, offset, at, "what follows is neither whole nor a cut-off end"
                )
            case Torn(offset) if file != files[-1]:
                raise DamagedAppendOnlyFile(
                    file, offset, offset, f"it ends early, but {files[-1].name} goes on after it"
                )
            case Torn(offset):
                tail = _copy_aside(data_dir, file, offset)
                _cut(file, offset)
                return tail
    return None


def lost_tails(data_dir: Path) -> list[LostTail]:
    """Every end that was ever cut off in `data_dir`, oldest first."""
    records = sorted((data_dir / LOST_TAILS_NAME).glob("*.json"))
    return [msgspec.json.decode(record.read_bytes(), type=LostTail) for record in records]


def _incremental_files(data_dir: Path) -> Iterator[Path]:
    """The files that the manifest lists as incremental, in the order in which they are loaded."""
    directory = data_dir / APPEND_DIR_NAME
    with contextlib.suppress(OSError):  # the log of the server says more
        manifest = (directory / f"{APPEND_FILE_NAME}.manifest").read_text(errors="replace")
        for line in manifest.splitlines():
            match line.split():
                case ["file", name, "seq", _, "type", "i", *_] if (directory / name).is_file():
                    yield directory / name
                case _:
                    pass


def _refused_command(log: str) -> bytes | None:
    found = _REFUSED.search(log) or _REFUSED_7.search(log)
    return found[1].encode() if found else None


def _examine_file(file: Path, binary: Path, refused: bytes | None) -> Whole | Torn | Damaged:
    with file.open("rb") as opened:
        if os.fstat(opened.fileno()).st_size == 0:
            return Whole()
        # The check tool stops at the first bad framing; a refused command stands before it.
        start = 0 if refused is not None else _checked_up_to(file, binary)
        with mmap(opened.fileno(), 0, access=ACCESS_READ) as content:
            return examine(content, start, refused)


def _checked_up_to(file: Path, binary: Path) -> int:
    """How much of `file` the server's own check tool finds good; 0 when it does not say.

    The server's binary is that tool when it is called by that name. It is given the incremental
    file alone: of the manifest it would check the base file too, whose header in Valkey 9 it does
    not know (`VALKEY080`) and calls broken.
    """
    name = "valkey-check-aof" if "valkey" in binary.name else "redis-check-aof"
    try:
        result = subprocess.run(  # noqa: S603 - our binary, a file of our own directory
            [name, str(file)],
            executable=binary,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=CHECK_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return 0
    found = _OK_UP_TO.search(result.stdout.decode(errors="replace"))
    return int(found[1]) if found else 0


def _copy_aside(data_dir: Path, file: Path, offset: int) -> LostTail:
    """Copy the end of `file` and its description into `lost-tails/`, durably."""
    directory = data_dir / LOST_TAILS_NAME
    directory.mkdir(mode=0o700, exist_ok=True)
    now = datetime.now(UTC)
    saved = directory / f"{now:%Y%m%dT%H%M%S.%fZ}-{file.name}@{offset}"
    with file.open("rb") as source, saved.open("xb") as copy:
        source.seek(offset)
        shutil.copyfileobj(source, copy)
        size = copy.tell()
        copy.flush()
        os.fsync(copy.fileno())
    with saved.open("rb") as copy:
        task_ids, event_types = _readable(copy.read(SCANNED_BYTES_MAX))
    tail = LostTail(
        file=str(file),
        offset=offset,
        size=size,
        saved=str(saved),
        at=f"{now:%Y-%m-%dT%H:%M:%SZ}",
        task_ids=task_ids,
        event_types=event_types,
    )
    with (directory / f"{saved.name}.json").open("xb") as record:
        record.write(msgspec.json.encode(tail))
        record.flush()
        os.fsync(record.fileno())
    sync_directory(directory)
    sync_directory(data_dir)
    return tail


def _readable(lost: bytes) -> tuple[tuple[str, ...], dict[str, int]]:
    from ledger.events import EVENT_TYPES

    ids = _TASK_ID.findall(lost) or re.findall(_UUID, lost)
    names = "|".join(EVENT_TYPES).encode()
    counts: dict[str, int] = {}
    for name in re.findall(rb"\b(?:%b)\b" % names, lost):
        counts[name.decode()] = counts.get(name.decode(), 0) + 1
    return tuple(dict.fromkeys(found.decode() for found in ids)), counts


def _cut(file: Path, offset: int) -> None:
    with file.open("r+b") as opened:
        opened.truncate(offset)
        os.fsync(opened.fileno())
