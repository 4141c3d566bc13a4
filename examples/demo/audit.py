"""What the history is worth to somebody who trusts nobody: proved, checked, and tampered with."""

import asyncio
import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from .failures import require
from .screen import Screen
from .service import COMMAND, Place

COMMAND_TIMEOUT_S: Final = 60
SEALED_WITHIN_S: Final = 30

TAMPERED: Final = 1
"""The exit code that says so."""


@dataclass(frozen=True, slots=True)
class Ran:
    """A command that has ended, and the lines that it printed."""

    code: int
    lines: list[str]


class Auditor:
    """Somebody with the commands of ledgerq, and a folder of the data."""

    def __init__(self, screen: Screen, place: Place) -> None:
        self._screen = screen
        self._place = place

    async def run(self, *arguments: str, shown: str = "") -> Ran:
        """A command, shown as a person would type it."""
        if shown:
            self._screen.say(f"$ ledgerq {shown}", "bold")
        done = await asyncio.to_thread(
            subprocess.run,
            [*COMMAND, *arguments],
            cwd=self._place.folder,
            env=self._place.environment(),
            capture_output=True,
            text=True,
            timeout=COMMAND_TIMEOUT_S,
            check=False,
        )
        return Ran(done.returncode, (done.stdout + done.stderr).splitlines())

    async def prove(self, task_id: str, events: int) -> None:
        """A task's whole history in a file, checked by somebody who has nothing but a key."""
        file = self._place.folder / "history.proof"
        wait = ("--wait", str(SEALED_WITHIN_S))
        made = await self.run(
            *("prove", task_id, "--output", file.name, *wait),
            shown=f"prove {task_id[:13]}… --output {file.name}",
        )
        require(made.code == 0, f"the proof failed: {made.lines}")
        key = await self._key()
        checked = await self.run(
            *("check-proof", file.name, "--key", key),
            shown=f"check-proof {file.name} --key {key[:24]}…",
        )
        require(checked.code == 0, f"the proof does not hold: {checked.lines}")
        self._screen.say(
            f"A file of {file.stat().st_size / 1000:.1f} kB shows all {events} events of that task,"
            " and that there are no others, to anybody who has the archive's public key: no ledger"
            " is asked."
        )

    async def _key(self) -> str:
        told = await self.run("archiver", "key", "--data-dir", str(self._place.data))
        require(told.code == 0, f"there is no key: {told.lines}")
        return told.lines[-1]

    async def verify(self) -> Ran:
        """The archive, from its bytes."""
        folder = str(self._place.data / "objects")
        return await self.run("verify", "--archive", folder, shown="verify --archive objects")

    async def notice_a_changed_bit(self) -> None:
        """Nothing is wrong; then one bit of one file is, and is named."""
        sound = await self.verify()
        require(sound.code == 0, f"the archive is not as it was sealed: {sound.lines}")
        self._screen.say(sound.lines[-1])
        with _one_bit_changed(self._place.data / "objects" / "archive"):
            self._screen.say("Now somebody changes a single bit of what was archived.")
            found = await self.verify()
        require(found.code == TAMPERED, f"a changed bit was not noticed: {found.lines}")
        faults = [line for line in found.lines if "altered" in line]
        require(faults != [], f"what was changed is not named: {found.lines}")
        for line in (*faults, found.lines[-1]):
            self._screen.say(line)


@contextmanager
def _one_bit_changed(archive: Path) -> Generator[None]:
    """In the middle of the largest bundle of data; as it was, afterwards."""
    bundles = [path for path in archive.glob("*/*/data/**/*") if path.is_file()]
    target = max(bundles, key=lambda path: path.stat().st_size)
    sound = target.read_bytes()
    changed = bytearray(sound)
    changed[len(changed) // 2] ^= 1
    target.write_bytes(changed)
    try:
        yield
    finally:
        target.write_bytes(sound)
