"""Reads a multipart/form-data body as it arrives: fields into memory, files to wherever they go.

Everything has a bound: which fields there are and how long each may be, how many files and how
large, the heads of the parts, and what may stand before the first of them.
"""

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Final, Protocol, cast

import msgspec
from multipart import (
    MultipartError,
    MultipartSegment,
    ParserLimitReached,
    PushMultipartParser,
    parse_options_header,  # pyright: ignore[reportUnknownVariableType]
)

from api.errors import ApiError, ErrorCode, invalid

FORM: Final = "multipart/form-data"
PREAMBLE_BYTES_MAX: Final = 64 * 1024
"""Before the first part; after so much that is none, the boundary is a wrong one."""

FILENAME_CHARACTERS_MAX: Final = 1_024
CONTENT_TYPE_CHARACTERS_MAX: Final = 255
DEFAULT_CONTENT_TYPE: Final = "application/octet-stream"

_BOUNDARY = re.compile(r"[0-9A-Za-z'()+_,\-./:=? ]{0,69}[0-9A-Za-z'()+_,\-./:=?]")
"""RFC 2046, section 5.1.1."""

_PLAIN_ENCODINGS: Final = ("7bit", "8bit", "binary")


class FileHead(msgspec.Struct, frozen=True):
    """What the part of a file says of it."""

    field: str
    filename: str
    content_type: str


class FileSink(Protocol):
    """Where the bytes of a file go."""

    size: int

    async def write(self, piece: bytes) -> None:
        """Take the next bytes, once there is room for them."""
        ...

    async def end(self) -> None:
        """That were all."""
        ...


OpenFile = Callable[[FileHead, Mapping[str, str]], Awaitable[FileSink]]
"""Called when a file begins, with the fields that came before it."""


def boundary_of(content_type: bytes | None) -> str:
    """What separates the parts. Raises ApiError: 415 for another kind of body, 400."""
    sent = (content_type or b"").decode("latin-1")
    kind, options = cast("tuple[str, dict[str, str]]", parse_options_header(sent))
    if kind != FORM:
        raise ApiError(
            ErrorCode.UNSUPPORTED_MEDIA_TYPE,
            f"send files and fields as {FORM}",
            {"field": "Content-Type", "expected": FORM},
        )
    boundary = options.get("boundary", "")
    if not _BOUNDARY.fullmatch(boundary):
        raise invalid("Content-Type", f"{FORM} with a boundary of 1 to 70 characters")
    return boundary


class FormReader:
    """Reads one body. `fields` says how many bytes each known field may have."""

    def __init__(
        self,
        boundary: str,
        fields: Mapping[str, int],
        open_file: OpenFile,
        *,
        files_max: int,
        file_bytes_max: int,
    ) -> None:
        self._parser = PushMultipartParser(
            boundary, max_segment_count=files_max + len(fields), max_header_count=8
        )
        self._fields_known = fields
        self._open_file = open_file
        self._files_max = files_max
        self._file_bytes_max = file_bytes_max
        self._files = 0
        self._fields: dict[str, str] = {}
        self._part: _Field | _File | _NoFile | None = None
        self._begun = False

    async def read(self, pieces: AsyncIterator[bytes]) -> dict[str, str]:
        """The fields, once the body is at its end and all files were given away.

        Raises ApiError: 413 for what is beyond a bound, 400 for everything else that is wrong.
        """
        size = 0
        try:
            async for piece in pieces:
                for event in self._parser.parse(piece):
                    await self._take(event)
                size += len(piece)
                if not self._begun and size > PREAMBLE_BYTES_MAX:
                    raise _malformed("its first bytes are no part: is it another boundary?")
            self._parser.close()
        except ParserLimitReached as error:
            raise _too_many(str(error), self._files_max) from None
        except MultipartError as error:
            raise _malformed(str(error.args[0])) from None
        return self._fields

    async def _take(self, event: MultipartSegment | bytes | bytearray | None) -> None:
        match event:
            case MultipartSegment():
                self._begun = True
                self._part = await self._begin(event)
            case None:
                assert self._part is not None  # noqa: S101 - the parser pairs them
                await self._part.end()
            case _:
                assert self._part is not None  # noqa: S101 - as above
                await self._part.write(bytes(event))

    async def _begin(self, segment: MultipartSegment) -> "_Field | _File | _NoFile":
        name = (segment.name or "")[:100]
        encoding = _header(segment, "Content-Transfer-Encoding")
        if encoding and encoding.lower() not in _PLAIN_ENCODINGS:
            raise invalid(name, "a part as it is, without Content-Transfer-Encoding")
        if segment.filename is None:
            return self._begin_field(name)
        if name in self._fields_known:
            raise invalid(name, "a field, not a file")
        if not segment.filename:
            return _NoFile(name)
        if len(segment.filename) > FILENAME_CHARACTERS_MAX:
            raise invalid(name, f"a file name of at most {FILENAME_CHARACTERS_MAX} characters")
        self._files += 1
        if self._files > self._files_max:
            raise _too_many(f"more than {self._files_max} files", self._files_max)
        head = FileHead(name, segment.filename, _content_type(segment))
        return _File(head, await self._open_file(head, self._fields), self._file_bytes_max)

    def _begin_field(self, name: str) -> "_Field":
        if name not in self._fields_known:
            known = ", ".join(self._fields_known)
            raise invalid(
                name,
                f"one of the fields {known}, or a file with a file name",
                f"{name}: there is no such field, and a file needs a file name",
            )
        if name in self._fields:
            raise invalid(name, "the field once")
        self._fields[name] = ""
        return _Field(name, self._fields, self._fields_known[name])


class _Field:
    """A field that is being read."""

    def __init__(self, name: str, fields: dict[str, str], bytes_max: int) -> None:
        self._name = name
        self._fields = fields
        self._bytes_max = bytes_max
        self._value = bytearray()

    async def write(self, piece: bytes) -> None:
        self._value += piece
        if len(self._value) > self._bytes_max:
            raise _too_large(self._name, self._bytes_max)

    async def end(self) -> None:
        try:
            self._fields[self._name] = self._value.decode()
        except UnicodeDecodeError as error:
            raise invalid(
                self._name, "UTF-8", f"{self._name}: expected UTF-8, byte {error.start} is not"
            ) from None


class _File:
    """A file that is being read."""

    def __init__(self, head: FileHead, sink: FileSink, bytes_max: int) -> None:
        self._head = head
        self._sink = sink
        self._bytes_max = bytes_max

    async def write(self, piece: bytes) -> None:
        if self._sink.size + len(piece) > self._bytes_max:
            raise _too_large(self._head.field, self._bytes_max, self._head.filename)
        await self._sink.write(piece)

    async def end(self) -> None:
        if not self._sink.size:
            raise invalid(
                self._head.field,
                "a file of at least one byte",
                f"the file {self._head.filename[:100]!r} is empty",
                filename=self._head.filename,
            )
        await self._sink.end()


class _NoFile:
    """What browsers send for a file that nobody chose: no name, and no bytes."""

    def __init__(self, name: str) -> None:
        self._name = name

    async def write(self, piece: bytes) -> None:
        raise invalid(self._name, "a file with a file name")

    async def end(self) -> None:
        pass


def _header(segment: MultipartSegment, name: str) -> str:
    return next((value.strip() for known, value in segment.headerlist if known == name), "")


def _content_type(segment: MultipartSegment) -> str:
    """As it was sent; what is no media type is said to be nothing in particular."""
    sent = _header(segment, "Content-Type")
    if "/" in sent and sent.isprintable() and len(sent) <= CONTENT_TYPE_CHARACTERS_MAX:
        return sent
    return DEFAULT_CONTENT_TYPE


def _malformed(reason: str) -> ApiError:
    return invalid("body", FORM, f"body: expected {FORM}: {reason}")


def _too_large(field: str, bytes_max: int, filename: str = "") -> ApiError:
    expected = f"at most {bytes_max} bytes"
    if not filename:
        details = {"field": field, "expected": expected}
        return ApiError(ErrorCode.PAYLOAD_TOO_LARGE, f"{field}: expected {expected}", details)
    return ApiError(
        ErrorCode.PAYLOAD_TOO_LARGE,
        f"the file {filename[:100]!r} is larger than {bytes_max} bytes",
        {"field": field, "expected": expected, "filename": filename},
    )


def _too_many(reason: str, files_max: int) -> ApiError:
    return ApiError(
        ErrorCode.PAYLOAD_TOO_LARGE,
        f"body: {reason}",
        {"field": "body", "expected": f"at most {files_max} files, and short heads of parts"},
    )
