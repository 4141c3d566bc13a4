"""The file with the archive's keys: what signs its checkpoints, and what salts its leaves.

    salts <secret, base64>
    key <seed of an Ed25519 key, base64>

The last key is the one that signs; older ones tell that what they signed is ours. One key signs for
all logs of a ledger, each time under the log's name.
"""

import base64
import binascii
import contextlib
import fcntl
import os
import stat
from collections.abc import Generator
from pathlib import Path
from typing import Final, Self

import msgspec

from ledger.archive.notes import NoteSigner, Verifier
from ledger.objects.syncing import sync_path
from ledger.settings_sources import SettingsError

KEY_FILE: Final = "archive.key"
"""What it is called in a data directory."""

SECRET_BYTES: Final = 32
KEYS_MAX: Final = 64
MODE: Final = 0o600

_HEADER: Final = (
    "# Whoever has this file can sign for the archive. Keep it secret, and keep a copy of it:\n"
    "# without it, nothing more can be added to the archive.\n"
)


class BadKeyFile(SettingsError):
    """A file that has no keys, or that cannot be read or written; says which, and why."""

    def __init__(self, problem: str) -> None:
        super().__init__([problem])


class ArchiveKeys(msgspec.Struct, frozen=True):
    """What the file holds."""

    salts: bytes
    seeds: tuple[bytes, ...]
    """Oldest first."""

    def signers(self, origin: str) -> list[NoteSigner]:
        """Who signs, or signed, for a log; the newest last."""
        return [NoteSigner(origin, seed) for seed in self.seeds]

    def verifiers(self, origin: str) -> list[Verifier]:
        """Their public keys."""
        return [signer.verifier for signer in self.signers(origin)]

    @property
    def text(self) -> str:
        """As it is written."""
        lines = [f"salts {_text(self.salts)}", *(f"key {_text(seed)}" for seed in self.seeds)]
        return _HEADER + "".join(f"{line}\n" for line in lines)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises ValueError, which tells nothing of what it read."""
        salts, seeds = list[bytes](), list[bytes]()
        for number, line in enumerate(text.splitlines(), 1):
            if not line.strip() or line.startswith("#"):
                continue
            kind, _, encoded = line.strip().partition(" ")
            if kind not in ("salts", "key"):
                raise ValueError(f"line {number} begins with neither `salts` nor `key`")
            (salts if kind == "salts" else seeds).append(_secret(encoded, number))
        if len(salts) != 1 or not 0 < len(seeds) <= KEYS_MAX:
            raise ValueError(f"expected one line `salts`, and 1 to {KEYS_MAX} lines `key`")
        return cls(salts[0], tuple(seeds))

    @classmethod
    def new(cls) -> Self:
        """By chance."""
        return cls(os.urandom(SECRET_BYTES), (os.urandom(SECRET_BYTES),))


class KeyFile:
    """The keys as they lie on the disk. Every method may raise BadKeyFile."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._read: tuple[tuple[int, int, int], ArchiveKeys] | None = None

    def keys(self) -> ArchiveKeys:
        """What it holds now: somebody may have added a key."""
        try:
            stat = self.path.stat()
            seen = (stat.st_ino, stat.st_mtime_ns, stat.st_size)
            if self._read is None or self._read[0] != seen:
                self._read = seen, ArchiveKeys.parse(self.path.read_text())
        except OSError as error:
            raise BadKeyFile(f"{self.path}: {error.strerror}") from error
        except ValueError as error:
            raise BadKeyFile(f"{self.path}: {error}; put back the copy of it") from error
        return self._read[1]

    def make(self) -> bool:
        """Make the keys, unless they are there; whether they were made."""
        if self.path.exists():
            return False
        with self._beside(ArchiveKeys.new()) as written:
            try:
                os.link(written, self.path)
            except FileExistsError:
                return False  # another process was faster
        return True

    def exposed(self) -> str | None:
        """What is wrong with its mode, and how that is mended; None when it is its owner's alone.
        That is no error: secrets mounted into a container are often root's, and 0444."""
        try:
            mode = stat.S_IMODE(self.path.stat().st_mode)
        except OSError as error:
            raise BadKeyFile(f"{self.path}: {error.strerror}") from error
        if not mode & 0o077:
            return None
        return f"others may use it (mode {mode:04o}), and sign for the archive: chmod 600"

    def rotate(self) -> ArchiveKeys:
        """Add a key, which signs from now on. Who rotates at the same time adds his after it."""
        with self._alone():
            keys = self.keys()
            if len(keys.seeds) == KEYS_MAX:
                raise BadKeyFile(
                    f"{self.path}: it has {KEYS_MAX} keys, which is the most there may be"
                )
            rotated = ArchiveKeys(keys.salts, (*keys.seeds, os.urandom(SECRET_BYTES)))
            with self._beside(rotated) as written:
                os.replace(written, self.path)
        return rotated

    @contextlib.contextmanager
    def _alone(self) -> Generator[None]:
        """Nobody else changes it within. The folder is locked, since the file is replaced."""
        try:
            descriptor = os.open(self.path.absolute().parent, os.O_RDONLY)
        except OSError as error:
            raise BadKeyFile(f"{self.path}: {error.strerror}") from error
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            except OSError as error:
                raise BadKeyFile(f"{self.path}: its folder: {error.strerror}") from error
            yield
        finally:
            os.close(descriptor)

    @contextlib.contextmanager
    def _beside(self, keys: ArchiveKeys) -> Generator[Path]:
        """These keys in a file beside, which is put in this one's place within."""
        folder = self.path.absolute().parent
        written = folder / f".{self.path.name}.{os.urandom(4).hex()}"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with open(os.open(written, os.O_WRONLY | os.O_CREAT | os.O_EXCL, MODE), "w") as file:
                file.write(keys.text)
                file.flush()
                os.fsync(file.fileno())
            yield written
            sync_path(folder)
        except OSError as error:
            raise BadKeyFile(f"{self.path}: {error.strerror}") from error
        finally:
            with contextlib.suppress(OSError):
                written.unlink(missing_ok=True)


def _text(secret: bytes) -> str:
    return base64.b64encode(secret).decode()


def _secret(encoded: str, line: int) -> bytes:
    try:
        found = base64.b64decode(encoded.strip(), validate=True)
    except (binascii.Error, ValueError):
        found = b""
    if len(found) != SECRET_BYTES:
        raise ValueError(f"line {line} has no secret of {SECRET_BYTES} bytes in base64")
    return found
