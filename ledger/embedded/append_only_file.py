"""Tells a cut-off end of an append-only file from damage inside it. Pure: bytes in, verdict out.

The incremental files of Redis and Valkey are the commands that were executed, as RESP arrays of
bulk strings, in order; what one script did is framed by MULTI and EXEC. There are no checksums.
(https://redis.io/docs/latest/operate/oss_and_stack/management/persistence/, the loader is
`loadSingleAppendOnlyFile` in `aof.c`.)

A crash or a loss of power leaves a *prefix* of what was written, or a prefix and then zero bytes
where the file system had recorded the new size but not yet the data. Either way, what follows the
last whole transaction is one that was never finished, and reaches the end of the file. Anything
else cannot come from a crash: whole commands behind a bad spot would be thrown away by cutting
there, and that is for a person to decide.

A byte changed inside a value leaves the framing intact, and nothing here can see it.
"""

import re
from dataclasses import dataclass
from mmap import mmap

_COMMAND_NAME = re.compile(rb"[A-Za-z][A-Za-z.|_-]{1,39}|#")
_EMBEDDED_COMMAND = re.compile(rb"\r\n(?=\*[1-9]\d{0,6}\r\n\$\d{1,9}\r\n)")

_NUMBER_BYTES_MAX = 24
"""A marker, a 64-bit number and CRLF fit in."""

_ANNOTATION_BYTES_MAX = 1024  # AOF_ANNOTATION_LINE_MAX_LEN in aof.c

_BULK_BYTES_MAX = 512 * 1024 * 1024
"""No client can send a longer one (`proto-max-bulk-len`): a longer length is damage."""

_ZERO_BLOCK_BYTES = 64 * 1024


@dataclass(frozen=True)
class Whole:
    """Every command and transaction reads back."""


@dataclass(frozen=True)
class Torn:
    """The bytes from `offset` on are one unfinished transaction, zero bytes, or both."""

    offset: int


@dataclass(frozen=True)
class Damaged:
    """Something is wrong at `at`, and it is no cut-off end; whole up to `offset`."""

    offset: int
    at: int


Verdict = Whole | Torn | Damaged


class _Malformed(Exception):
    def __init__(self, at: int) -> None:
        self.at = at


class _CutShort(Exception):
    """The end came before the command's."""


def examine(data: bytes | mmap, start: int = 0, refused: bytes | None = None) -> Verdict:
    """Read an incremental file from `start`, where a command begins outside any transaction.

    `refused` is the name of a command that the server would not take: where it stands is damage,
    however well it is framed.
    """
    end = _without_zeros_behind(data, start)
    offset = at = command_at = start
    in_transaction = False
    try:
        while at < end:
            command_at = at
            name, at = _entry(data, at, end)
            match name.upper():
                case b"MULTI" if not in_transaction:
                    in_transaction = True
                case b"EXEC" if in_transaction:
                    in_transaction = False
                case b"MULTI" | b"EXEC":
                    return Damaged(offset, command_at)
                case _ if name == refused or not _COMMAND_NAME.fullmatch(name):
                    return Damaged(offset, command_at)
                case _:
                    pass
            if not in_transaction:
                offset = at
    except _Malformed as error:
        return Damaged(offset, error.at)
    except _CutShort:
        # A wrong length swallows what follows it, and looks like a cut.
        swallowed = _holds_whole_command(data, command_at, end)
        return Damaged(offset, command_at) if swallowed else Torn(offset)
    return Whole() if offset == len(data) else Torn(offset)


def _without_zeros_behind(data: bytes | mmap, start: int) -> int:
    end = len(data)
    while end > start:
        block_start = max(start, end - _ZERO_BLOCK_BYTES)
        kept = len(data[block_start:end].rstrip(b"\0"))
        if kept:
            return block_start + kept
        end = block_start
    return end


def _entry(data: bytes | mmap, at: int, end: int) -> tuple[bytes, int]:
    """The name of the command at `at` (`#` for an annotation), and where the next one begins."""
    if data[at] == ord("#"):
        stop = data.find(b"\r\n", at, min(end, at + _ANNOTATION_BYTES_MAX))
        if stop >= 0:
            return b"#", stop + 2
        raise _CutShort if end - at < _ANNOTATION_BYTES_MAX else _Malformed(at)
    count, at = _number(data, b"*", at, end)
    if count == 0:
        raise _Malformed(at)
    name = b""
    for index in range(count):
        length, at = _number(data, b"$", at, end)
        stop = at + length
        if length > _BULK_BYTES_MAX or not b"\r\n".startswith(data[stop : min(end, stop + 2)]):
            raise _Malformed(at)
        if stop + 2 > end:
            raise _CutShort
        if index == 0:
            name = data[at:stop]
        at = stop + 2
    return name, at


def _number(data: bytes | mmap, marker: bytes, at: int, end: int) -> tuple[int, int]:
    """The number in a line such as `*3` or `$12`, and where the next line begins."""
    line = data[at : min(end, at + _NUMBER_BYTES_MAX)]
    stop = line.find(b"\r\n")
    if stop < 0:
        begun = re.fullmatch(rb"(?:%b\d*\r?)?" % re.escape(marker), line)
        raise _CutShort if begun and at + _NUMBER_BYTES_MAX > end else _Malformed(at)
    if line[:1] != marker or not line[1:stop].isdigit():
        raise _Malformed(at)
    return int(line[1:stop]), at + stop + 2


def _holds_whole_command(data: bytes | mmap, start: int, end: int) -> bool:
    for found in _EMBEDDED_COMMAND.finditer(data, start, end):
        try:
            name, _ = _entry(data, found.end(), end)
        except (_Malformed, _CutShort):
            continue
        if _COMMAND_NAME.fullmatch(name):
            return True
    return False
