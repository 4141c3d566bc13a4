"""Kills writers of a log for good, at every step, and lets others go on: `python -m ... FOLDER`.

Each process is a fork of this one, which has neither a loop nor threads: that is fast. Prints how
many steps there were.
"""

import asyncio
import os
import shutil
import signal
import sys
from pathlib import Path
from typing import Final

from ledger.archive.keys import KeyFile
from ledger.objects.local_folder import LocalFolder, Move
from tests.ledger.archive.sealed import key_file, lives, opened, seal

EVENTS: Final = 700
SEALED_BEFORE: Final = 250
CUT: Final = 230
CUT_AFTERWARDS: Final = 400
"""Whoever goes on makes other checkpoints."""


class KillingFolder(LocalFolder):
    """Ends this process with SIGKILL at one of the steps that change something."""

    def __init__(self, folder: Path, step: int) -> None:
        super().__init__(folder)
        self._left = step

    def _count(self) -> None:
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        self._left -= 1

    def _move(self, move: Move) -> None:
        self._count()
        super()._move(move)

    async def delete(self, key: str) -> None:
        self._count()
        await super().delete(key)


async def _seal(folder: Path, keys: KeyFile, step: int, until: int, cut: int) -> None:
    objects = KillingFolder(folder, step) if step >= 0 else LocalFolder(folder)
    writer = await opened(objects, keys)
    await seal(writer, lives(until)[writer.size :], cut)
    await objects.close()


def _forked(folder: Path, keys: KeyFile, step: int, until: int, cut: int) -> int:
    """How it ended: its exit code, or the signal below 0."""
    child = os.fork()
    if child == 0:
        asyncio.run(_seal(folder, keys, step, until, cut))
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def main(root: Path) -> int:
    """Kill and go on, in a folder for each step."""
    keys = key_file(root)
    before = root / "before"
    assert _forked(before, keys, -1, SEALED_BEFORE, SEALED_BEFORE) == 0
    step = 0
    while True:
        folder = root / str(step)
        shutil.copytree(before, folder)
        ended = _forked(folder, keys, step, EVENTS, CUT)
        assert _forked(folder, keys, -1, EVENTS, CUT_AFTERWARDS) == 0
        if ended == 0:
            return step
        assert ended == -signal.SIGKILL
        step += 1


if __name__ == "__main__":
    print(main(Path(sys.argv[1])))  # noqa: T201
