"""Reads one document from a file and gives its text: plain text, Markdown, HTML or Python."""

import errno
import hashlib
import io
import re
import stat
import tokenize
from codecs import BOM_UTF8, BOM_UTF16_BE, BOM_UTF16_LE
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path, PurePath

from .html_text import text_of_html
from .markdown_text import text_of_markdown

BYTES_MAX = 16 * 1024 * 1024
"""Larger files are refused: a document is held in memory while it is split."""


class DocumentError(ValueError):
    """The file is not a document that can be read, and trying again will not change that."""


class Format(StrEnum):
    TEXT = "text"
    MARKDOWN = "markdown"
    HTML = "html"
    PYTHON = "python"


@dataclass(frozen=True, slots=True)
class Document:
    """The text of a file.

    `sha256` is that of the file's bytes, in hex. `note` says what the reader had to guess, and is
    empty when nothing. Lines end in "\\n" whatever the file uses.
    """

    text: str
    format: Format
    encoding: str
    sha256: str
    note: str


_FORMATS = {
    ".txt": Format.TEXT,
    ".text": Format.TEXT,
    ".log": Format.TEXT,
    ".rst": Format.TEXT,
    ".md": Format.MARKDOWN,
    ".markdown": Format.MARKDOWN,
    ".html": Format.HTML,
    ".htm": Format.HTML,
    ".xhtml": Format.HTML,
    ".py": Format.PYTHON,
    ".pyi": Format.PYTHON,
    ".pyw": Format.PYTHON,
}

# What open() reports of a path that is wrong, as against a disk or a network that has trouble.
_WRONG_PATH = {
    errno.ENOENT: "there is no such file",
    errno.ENOTDIR: "there is no such file",
    errno.EACCES: "the file may not be read",
    errno.EPERM: "the file may not be read",
    errno.ENAMETOOLONG: "the path is too long",
    errno.ELOOP: "the path is a loop of links",
}

# Control characters that no text in a one-byte encoding holds (form feeds and escapes it may).
_CONTROLS = re.compile(rb"[\x00-\x07\x0e-\x1a\x1c-\x1f]")


def read_document(file_path: str, name: str = "") -> Document:
    """Read the file at `file_path`; `name` (default: the path) tells its format by its extension.

    A name without extension is judged by what the file holds. Raises `DocumentError` for a path
    that is no readable regular file, a file over `BYTES_MAX`, an extension that is not known and
    a file that is not text; `OSError` when the disk has trouble.
    """
    raw = _read(file_path)
    kind = _format(PurePath(name or file_path), raw)
    text, encoding, note = _decode(raw, kind, file_path)
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    match kind:
        case Format.HTML:
            text = text_of_html(text)
        case Format.MARKDOWN:
            text = text_of_markdown(text)
        case Format.TEXT | Format.PYTHON:
            pass
    return Document(text, kind, encoding, hashlib.sha256(raw).hexdigest(), note)


def _read(file_path: str) -> bytes:
    try:
        # Asked before it is opened: opening a pipe waits for a writer.
        if not stat.S_ISREG(Path(file_path).stat().st_mode):
            raise DocumentError(f"{file_path}: not a regular file")
        with open(file_path, "rb") as file:
            raw = file.read(BYTES_MAX + 1)
    except OSError as error:
        if error.errno in _WRONG_PATH:
            raise DocumentError(f"{file_path}: {_WRONG_PATH[error.errno]}") from error
        raise
    except ValueError as error:  # a NUL or a lone surrogate in the path
        if isinstance(error, DocumentError):
            raise
        raise DocumentError(f"{file_path!r}: not a path: {error}") from error
    if len(raw) > BYTES_MAX:
        raise DocumentError(f"{file_path}: larger than {BYTES_MAX} bytes")
    return raw


def _format(name: PurePath, raw: bytes) -> Format:
    extension = name.suffix.lower()
    if extension in _FORMATS:
        return _FORMATS[extension]
    if extension:
        known = " ".join(_FORMATS)
        raise DocumentError(f"{name}: {extension} is not a supported type ({known})")
    opening = raw[:1024].removeprefix(BOM_UTF8).lstrip().lower()
    if opening.startswith((b"<!doctype html", b"<html")):
        return Format.HTML
    if opening.startswith(b"#!") and b"python" in opening.split(b"\n", 1)[0]:
        return Format.PYTHON
    return Format.TEXT


def _decode(raw: bytes, kind: Format, file_path: str) -> tuple[str, str, str]:
    """Text, the name of its encoding, and a note if that had to be guessed."""
    if raw.startswith((BOM_UTF16_LE, BOM_UTF16_BE)):
        try:
            return raw.decode("utf-16"), "utf-16", ""
        except UnicodeError as error:
            raise DocumentError(f"{file_path}: not text: {error}") from error
    if b"\0" in raw:
        raise DocumentError(f"{file_path}: not text but binary: it holds NUL bytes")
    try:
        encoding = "utf-8-sig" if raw.startswith(BOM_UTF8) else "utf-8"
        if kind is Format.PYTHON:
            encoding, _ = tokenize.detect_encoding(io.BytesIO(raw).readline)
        return raw.decode(encoding), encoding, ""
    # SyntaxError: a PEP 263 line naming no codec. LookupError: one naming a codec not for text.
    except (UnicodeError, SyntaxError, LookupError) as error:
        if _CONTROLS.search(raw):
            raise DocumentError(f"{file_path}: neither text nor UTF-8: {error}") from error
        return raw.decode("latin-1"), "latin-1", f"read as latin-1: {error}"
