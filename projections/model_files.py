"""Where read models lie: which file is the live one, and who may write.

current                    names the live file; replaced whole
read-model-<n>.sqlite3     the live one, and one that is being made in its shadow
projector.lock             held by the projector that writes
rebuild.lock               held by whoever makes another file
node                       what the folder is called where several nodes are told apart
damage-met                 names the live file where a reader met damage, until somebody checked it
hindered                   says what keeps the projector from going on, until it does
"""

import contextlib
import fcntl
import os
import re
from collections.abc import Generator
from pathlib import Path
from typing import Final

from projections.sqlite import sync

CURRENT: Final = "current"
PROJECTOR_LOCK: Final = "projector.lock"
REBUILD_LOCK: Final = "rebuild.lock"
NODE: Final = "node"
DAMAGED: Final = ".damaged"
DAMAGE_MET: Final = "damage-met"
HINDERED: Final = "hindered"

_NODE: Final = re.compile(r"[0-9a-f]{8}")
_NAME: Final = re.compile(r"read-model-(\d+)\.sqlite3")
_COMPANIONS: Final = ("", "-wal", "-shm", "-journal")


class ModelFiles:
    """The read models of one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def current(self) -> Path | None:
        """The live file; None when there is none yet, or what names it is damaged."""
        try:
            name = (self.folder / CURRENT).read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError):
            return None
        return self.folder / name if _NAME.fullmatch(name) else None

    def node(self) -> str:
        """What the folder is called among those of other nodes: made by chance with the first
        question, and kept."""
        file = self.folder / NODE
        with contextlib.suppress(OSError, UnicodeDecodeError):
            name = file.read_text(encoding="ascii").strip()
            if _NODE.fullmatch(name):
                return name
        name = os.urandom(4).hex()
        draft = file.with_name(f"{NODE}.new")
        draft.write_text(f"{name}\n", encoding="ascii")
        draft.replace(file)
        return name

    def install(self, path: Path) -> None:
        """Make a whole file the live one, and remove those that it replaces. Raises
        FileNotFoundError, and leaves things as they are, when somebody took the file away."""
        path.stat()
        draft = self.folder / f"{CURRENT}.new"
        with draft.open("w", encoding="ascii") as file:
            file.write(f"{path.name}\n")
            file.flush()
            os.fsync(file.fileno())
        draft.replace(self.folder / CURRENT)
        self.forget_damage()
        sync(self.folder)
        self.remove_others()

    def identity(self) -> tuple[str, int, int]:
        """What tells the live file from any other, even of the same name: its name, device and
        inode; zeros when it is missing, and no name when there is none."""
        path = self.current()
        if path is None:
            return "", 0, 0
        try:
            found = path.stat()
        except OSError:
            return path.name, 0, 0
        return path.name, found.st_dev, found.st_ino

    def set_aside(self, path: Path) -> Path:
        """Keep a damaged file under another name, where it takes the last damaged one's place."""
        for entry in self.folder.glob(f"*{DAMAGED}"):
            entry.unlink(missing_ok=True)
        aside = path.with_name(path.name + DAMAGED)
        with contextlib.suppress(FileNotFoundError):
            path.rename(aside)
        for suffix in _COMPANIONS[1:]:
            path.with_name(path.name + suffix).unlink(missing_ok=True)
        self.forget_damage()
        return aside

    def report_damage(self, reason: str) -> None:
        """Leave word, for the projector and for whoever asks how it is, that the live file seems to
        be damaged."""
        path = self.current()
        if path is not None and self.damage_met() is None:
            # Where even this cannot be written, whoever asks for lists is told.
            with contextlib.suppress(OSError):
                (self.folder / DAMAGE_MET).write_text(f"{path.name}\n{reason}", encoding="utf-8")

    def damage_met(self) -> str | None:
        """What damage of the live file was met and not yet looked into; None when none was."""
        try:
            name, _, reason = (self.folder / DAMAGE_MET).read_text(encoding="utf-8").partition("\n")
        except (OSError, UnicodeDecodeError):
            return None
        path = self.current()
        return reason if path is not None and name == path.name else None

    def forget_damage(self) -> None:
        """It was looked into: the live file is sound, or another one."""
        (self.folder / DAMAGE_MET).unlink(missing_ok=True)

    def report_hindrance(self, reason: str) -> None:
        """Leave word, for whoever asks how it is, of what keeps the projector from going on."""
        # Where even this cannot be written, its log has it.
        with contextlib.suppress(OSError):
            (self.folder / HINDERED).write_text(reason, encoding="utf-8")

    def hindrance(self) -> str | None:
        """What keeps the projector from going on, if there is one; None when nothing does."""
        try:
            return (self.folder / HINDERED).read_text(encoding="utf-8") or None
        except (OSError, UnicodeDecodeError):
            return None

    def forget_hindrance(self) -> None:
        """It goes on."""
        # Where even this cannot be done, the folder cannot be written to, and its log says so.
        with contextlib.suppress(OSError):
            (self.folder / HINDERED).unlink()

    def next_path(self) -> Path:
        """Where another file may be made."""
        self.folder.mkdir(parents=True, exist_ok=True)
        names = [entry.name for entry in self.folder.iterdir()]
        # Also when its file is gone: what is being made must not be taken for the live one.
        if (current := self.current()) is not None:
            names.append(current.name)
        numbers = [int(found[1]) for name in names if (found := _NAME.match(name)) is not None]
        return self.folder / f"read-model-{max(numbers, default=0) + 1}.sqlite3"

    def remove(self, path: Path) -> None:
        """Remove a file, unless it is the live one."""
        if path == self.current():
            return
        for suffix in _COMPANIONS:
            path.with_name(path.name + suffix).unlink(missing_ok=True)

    def remove_others(self) -> None:
        """Remove what neither is the live file nor belongs to it; with the REBUILD_LOCK held,
        since somebody's file in the making is such a thing too."""
        current = self.current()
        for entry in list(self.folder.iterdir()):
            found = _NAME.match(entry.name)
            if found is None or (current is not None and found[0] == current.name):
                continue
            if entry.name[found.end() :] in _COMPANIONS:
                entry.unlink(missing_ok=True)

    @contextlib.contextmanager
    def lock(self, name: str) -> Generator[bool]:
        """Hold a lock for as long as the context lasts; False when somebody else holds it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.folder / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
            else:
                yield True
        finally:
            os.close(descriptor)
