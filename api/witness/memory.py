"""What a witness remembers, in a folder: its key, and the last checkpoint of each log, cosigned."""

import base64
import binascii
import contextlib
import fcntl
import os
from collections.abc import Generator
from pathlib import Path
from typing import Final

from ledger.archive.notes import COSIGNATURE, BadNote, Note, NoteSigner
from ledger.archive.witness import origin_hash

KEY_FILE: Final = "witness.key"
LOCK_FILE: Final = "lock"
SEED_BYTES: Final = 32


class BadMemory(Exception):
    """A folder that cannot be used, or a file in it that no witness left so; says which."""


class WitnessMemory:
    """Used by one process at a time. Every method may raise BadMemory."""

    def __init__(self, folder: Path, name: str | None) -> None:
        """`name`: what the witness is called; it keeps the name that it began with."""
        self._folder = folder
        self.signer = self._read_signer(name)

    @classmethod
    @contextlib.contextmanager
    def opened(cls, folder: Path, name: str | None) -> Generator["WitnessMemory"]:
        """The folder is made where there is none, and nobody else may use it meanwhile."""
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            with (folder / LOCK_FILE).open("a") as lock:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError as error:
                    raise BadMemory(f"another witness runs in {folder}") from error
                yield cls(folder, name)
        except OSError as error:
            raise BadMemory(f"{folder}: {error.strerror or error}") from error

    def latest(self, origin: str) -> Note | None:
        """The last checkpoint that was cosigned of a log."""
        path = self._path(origin)
        try:
            return Note.parse(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, UnicodeDecodeError, BadNote) as error:
            raise BadMemory(f"{path}: {error}") from error

    def remember(self, origin: str, note: Note) -> None:
        """This one was cosigned; it survives a loss of power when this returns."""
        path = self._path(origin)
        try:
            self._write(path, note.whole, 0o644)
        except OSError as error:
            raise BadMemory(f"{path}: {error.strerror or error}") from error

    def path_of(self, digest: str) -> Path | None:
        """Where the last checkpoint of a log lies whose origin has this hash."""
        path = self._folder / f"{digest}.note"
        return path if path.is_file() else None

    def _path(self, origin: str) -> Path:
        return self._folder / f"{origin_hash(origin)}.note"

    def _read_signer(self, name: str | None) -> NoteSigner:
        path = self._folder / KEY_FILE
        if not path.exists():
            seed = base64.b64encode(os.urandom(SEED_BYTES)).decode()
            self._write(path, f"{name or default_name()} {seed}\n", 0o600)
        known, _, encoded = path.read_text(encoding="utf-8").strip().partition(" ")
        try:
            seed = base64.b64decode(encoded, validate=True)
        except (binascii.Error, ValueError):
            seed = b""
        if len(seed) != SEED_BYTES:
            raise BadMemory(f"{path}: expected a name and a key of {SEED_BYTES} bytes in base64")
        if name not in (None, known):
            raise BadMemory(f"{path}: this witness is called {known}, and not {name}")
        return NoteSigner(known, seed, COSIGNATURE)

    def _write(self, path: Path, text: str, mode: int) -> None:
        written = path.with_name(f".{path.name}.new")
        written.unlink(missing_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        with open(os.open(written, flags, mode), "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        written.replace(path)
        descriptor = os.open(self._folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def default_name() -> str:
    """Of a witness that nobody named."""
    return f"{os.uname().nodename}/witness"
