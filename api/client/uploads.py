"""Files on their way to the service: opened each time that they are sent."""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from io import SEEK_END, SEEK_SET, TextIOBase
from os import PathLike, fspath
from pathlib import Path
from typing import IO, Any, Final

import msgspec

from api.client.json_text import json_of
from api.client.submission import Options

FIELD: Final = "file"

_CHANGES: Final = re.compile(r"[\\\x00-\x09\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]|%(?:22|0A|0D)|^$")
"""What a name must not have, since forms have no sure way of saying it. They say %22, %0A and %0D
for a quote and the ends of lines, which a name can therefore not have of its own."""


class File(msgspec.Struct, frozen=True):
    """A file under a name of its own; `content` is its bytes, a stream of them, or its path."""

    name: str
    content: bytes | IO[bytes] | PathLike[str]
    content_type: str | None = None
    """Guessed from the name unless given."""


Source = str | PathLike[str] | IO[bytes] | File
"""A path, a binary stream, or a File. A stream is sent from its beginning; one that has none to go
back to is sent once, and never again."""


class UploadedFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file that was stored, and the task that was made for it."""

    task_id: str
    file_path: str
    """What handlers open it by."""
    filename: str
    size: int
    sha256: str
    content_type: str = ""


class Uploaded(msgspec.Struct, frozen=True, kw_only=True):
    """The tasks of an upload, one for each file, in the files' order."""

    task_id: str
    """The first one."""
    task_ids: Sequence[str]
    files: Sequence[UploadedFile] = ()
    status: str = ""
    message: str = ""


class Form(msgspec.Struct, frozen=True):
    """A multipart body."""

    fields: Mapping[str, str]
    files: Sequence[File]

    @property
    def is_repeatable(self) -> bool:
        """Whether the same bytes can be sent again."""
        return all(_is_repeatable(file.content) for file in self.files)

    def opened(self, stack: ExitStack) -> list[tuple[str, tuple[str, Any, str | None]]]:
        """The files as httpx2 takes them; those given by path are open until the stack ends.
        Raises OSError."""
        return [
            (FIELD, (file.name, _opened(file.content, stack), file.content_type))
            for file in self.files
        ]


def form_of(
    files: Source | Sequence[Source],
    kb_id: str,
    task_type: str | None,
    payload: Mapping[str, Any] | None,
    options: Options,
) -> Form:
    """The form of an upload. Raises ValueError for no file at all and for a name that would arrive
    as another one, TypeError for what is none,
    and both as `json_of` does."""
    sources = _sources(files)
    if not sources:
        raise ValueError("expected at least one file")
    given = {"kb_id": kb_id, "task_type": task_type, "payload": payload, **options}
    fields = {name: _text(name, value) for name, value in given.items() if value is not None}
    return Form(fields, tuple(map(_file, sources)))


def _sources(given: Source | Sequence[Source]) -> Sequence[Source]:
    if isinstance(given, Sequence) and not isinstance(given, str | bytes):
        return given
    return [given]


def _file(source: Source) -> File:
    if isinstance(source, File):
        _check(source.content, "bytes, a binary stream or a Path as the content of a File")
        return _named(source)
    if isinstance(source, str | PathLike):
        path = Path(fspath(source))
        return _named(File(path.name or str(path), path))  # such as ".", which cannot be opened
    _check(source, "a path, a binary stream or a File(name, content)", is_bytes_enough=False)
    name = getattr(source, "name", None)
    return _named(File(Path(name).name if isinstance(name, str) else "upload", source))


def _named(file: File) -> File:
    """The file, if its name arrives as it is. Raises ValueError and TypeError."""
    name: Any = file.name
    if not isinstance(name, str):
        raise TypeError(f"expected a text as the name of a File, got {type(name).__name__}")
    if _CHANGES.search(name):
        raise ValueError(
            f"{name[:80]!r}: expected a file name, without backslashes, control characters, %22,"
            " %0A and %0D; File(name, content) gives it another one"
        )
    return file


def _check(content: object, expected: str, *, is_bytes_enough: bool = True) -> None:
    """Raises TypeError for what cannot be sent: a text may be a path, or what is meant itself."""
    is_kind = hasattr(content, "read") or hasattr(content, "__fspath__")
    is_kind = is_kind and not isinstance(content, TextIOBase)
    if not is_kind and not (is_bytes_enough and isinstance(content, bytes)):
        raise TypeError(f"expected {expected}, got {type(content).__name__}")


def _text(name: str, value: Any) -> str:
    """A field: texts and numbers as they are, times and objects as JSON has them."""
    encoded = json_of(value, name)
    return value if isinstance(value, str) else encoded.decode().strip('"')


def _is_repeatable(content: bytes | IO[bytes] | PathLike[str]) -> bool:
    return isinstance(content, bytes | PathLike) or content.seekable()


def _opened(content: bytes | IO[bytes] | PathLike[str], stack: ExitStack) -> Any:
    if isinstance(content, bytes):
        return content
    if isinstance(content, PathLike):
        content = stack.enter_context(Path(content).open("rb"))
    size = 0
    if content.seekable():
        with suppress(OSError):  # some in /proc have no end to go to
            content.seek(0, SEEK_END)
            size = content.tell()
        content.seek(0)
    # What says that it has none may have some all the same, as there.
    return _Sized(content, size) if size else _Flow(content)


class _Sized:
    """A file as it was when it was begun: one that grows meanwhile, as logs do, would be longer
    than the request says."""

    def __init__(self, stream: IO[bytes], size: int) -> None:
        self._stream = stream
        self._size = self._left = size

    def tell(self) -> int:
        """Where it stands."""
        return self._size - self._left

    def seek(self, offset: int, whence: int = SEEK_SET) -> int:
        """Go to a place counted from the beginning, or to the end."""
        if whence == SEEK_END:
            offset += self._size
        self._left = self._size - offset
        return self._stream.seek(offset)

    def read(self, size: int) -> bytes:
        """The next bytes. Raises ValueError when there are fewer than there were."""
        found = self._stream.read(min(size, self._left))
        if self._left and not found:
            raise ValueError(f"a file became shorter while it was sent: {self._left} bytes missing")
        self._left -= len(found)
        return found


class _Flow:
    """A stream of unknown length: a pipe's would be taken for 0."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def read(self, size: int) -> bytes:
        """The next bytes."""
        return self._stream.read(size)

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._stream)
