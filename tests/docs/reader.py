"""Somebody who follows a page, in a folder and a home directory of their own.

The pages name fixed ports, and so do the files that they have their readers write. Here free ones
are in their place, by what every program offers for that, so that all is run as it is written.
"""

import asyncio
import contextlib
import os
import re
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from importlib.metadata import entry_points
from pathlib import Path
from typing import Final

from tests.browsers import CHROMIUM, new_page
from tests.docs.page import Commands, File, Glance, Step, Visit, is_shown
from tests.faults.replicas import free_port
from tests.servers import tied

PATIENCE_S: Final = 30
SCRIPT_PATIENCE_S: Final = 60
"""Several commands take longer."""

AGAIN_S: Final = 0.1

BASH: Final = shutil.which("bash")
CURL: Final = shutil.which("curl")

LEDGERQ: Final = "127.0.0.1:8084"
SERVICE: Final = "127.0.0.1:8000"
"""Where the pages say that they are."""

STAY: Final = ("ledgerq up", "uvicorn ")
"""What has a terminal of its own."""

COPIED: Final = {
    "ID": re.compile(r"\b([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})\b"),
    "WORKER": re.compile(r"\w-(\d+)-[0-9a-f]{4}\b"),
}
"""What readers copy from the last thing that they saw, where a page says `ID=...`."""

_COPY: Final = re.compile(r"^(\w+)=\.\.\.", re.MULTILINE)
_CONTROLS: Final = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\r")


class Reader:
    """Follows steps. Fails where something else is seen than the page shows."""

    def __init__(self, folder: Path, **env: str) -> None:
        self.seen: list[str] = []
        """What each of the commands and pages showed."""
        self._folder = folder / "project"
        self._folder.mkdir()
        self._home = folder / "home"
        self._home.mkdir()
        self._at = {place: f"127.0.0.1:{free_port()}" for place in (LEDGERQ, SERVICE)}
        moves = (f"connect-to = {place}:{there}\n" for place, there in self._at.items())
        (self._home / ".curlrc").write_text("".join(moves))
        self._env = _inherited() | {
            "HOME": str(self._home),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "LOGNAME": "ann",
            "TERM": "xterm",
            "COLUMNS": "160",
            "no_proxy": "*",
            "LEDGERQ_PORT": self._port(LEDGERQ),
            "LEDGERQ_GRPC_PORT": "0",
            "LEDGERQ_URL": f"http://{self._at[LEDGERQ]}",
            "LEDGERQ_LOG_FORMAT": "text",
            "PYTEST_ADDOPTS": _without_plugins(),
            "UVICORN_PORT": self._port(SERVICE),
            "MY_URL": f"http://{self._at[SERVICE]}",
            **env,
        }
        self._running = contextlib.ExitStack()
        self._logs: list[Path] = []

    def __enter__(self) -> "Reader":
        return self

    def __exit__(self, *_: object) -> None:
        self._running.close()

    def follow(self, step: Step) -> None:
        """Do what the page says, and see what it shows."""
        match step:
            case File(name, text):
                (self._folder / name).write_text(text)
            case Commands(script) if "pip install" in script:
                pass  # it is here already
            case Commands(script, shown) if script.startswith(STAY):
                self._running.enter_context(self._start(script, shown))
            case Commands(script, shown):
                self._type(script, shown)
            case Glance(shown):
                _until(self._logs[0].read_text, shown)
            case Visit() if CHROMIUM is None:
                pass
            case Visit():
                asyncio.run(self._visit(step))

    def _type(self, script: str, shown: str) -> None:
        for name in _COPY.findall(script):
            copied = COPIED[name].search(self.seen[-1])
            assert copied, f"no {name} in {self.seen[-1]}"
            self._env[name] = copied[1]
        script = _COPY.sub("#", script)
        said = self._run(script)
        if not is_shown(shown, said):
            # The last command is given again, as by somebody who waits for what it is to show.
            *_, last = script.replace("\\\n", " ").splitlines()
            said = _until(lambda: self._run(last), shown)
        self.seen.append(said)

    def _run(self, script: str) -> str:
        """What a terminal shows of it."""
        variables = self._home / "variables"
        ours, theirs = os.openpty()
        with subprocess.Popen(
            [str(BASH), "-c", f"set -a\n{script}\nenv -0 > {variables}"],
            cwd=self._folder,
            env=self._env,
            stdin=subprocess.DEVNULL,
            stdout=theirs,
            stderr=theirs,
        ) as process:
            os.close(theirs)
            try:
                said = _read(ours)
            finally:
                os.close(ours)
                process.kill()  # it has closed its terminal already, unless time is up
        left = dict(entry.split("=", 1) for entry in variables.read_text().split("\0") if entry)
        self._env |= {name: left[name] for name in COPIED if name in left}
        return _CONTROLS.sub("", said)

    @contextlib.contextmanager
    def _start(self, script: str, shown: str) -> Generator[None]:
        log = self._home / f"{script.split()[0]}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                tied([str(BASH), "-c", f"exec {script}"]),
                cwd=self._folder,
                env=self._env,
                stdout=output,
                stderr=output,
            )
        self._logs.append(log)

        def said() -> str:
            assert process.poll() is None, log.read_text()
            return log.read_text()

        try:
            _until(said, shown)
            yield
        finally:
            process.terminate()
            try:
                process.wait(PATIENCE_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                raise

    async def _visit(self, visit: Visit) -> None:
        moves = ", ".join(f"MAP {place} {there}" for place, there in self._at.items())
        async with new_page(PATIENCE_S * 1000, f"--host-resolver-rules={moves}") as page:
            await page.goto(visit.url)
            await page.set_input_files("input", [self._folder / name for name in visit.files])
            said = ""
            for _ in range(round(PATIENCE_S / AGAIN_S)):
                said = await page.inner_text("body")
                if is_shown(visit.shown, said):
                    break
                await asyncio.sleep(AGAIN_S)
        assert is_shown(visit.shown, said), f"to be shown:\n{visit.shown}\nsaid:\n{said}"
        self.seen.append(said)

    def _port(self, place: str) -> str:
        return self._at[place].rpartition(":")[2]


def _inherited() -> dict[str, str]:
    """The environment without what would speak to the programs that a page is about."""
    others = ("LEDGERQ_", "PYTEST_", "UVICORN_")
    return {name: value for name, value in os.environ.items() if not name.startswith(others)}


def _without_plugins() -> str:
    """Readers have no plugins of pytest but ours: more than these tests need may be here."""
    names = {plugin.name for plugin in entry_points(group="pytest11")} - {"ledgerq"}
    return " ".join(f"-p no:{name}" for name in sorted(names))


def _until(said: Callable[[], str], shown: str) -> str:
    """What is said once it is what the page shows."""
    deadline = time.monotonic() + PATIENCE_S
    while not is_shown(shown, now := said()):
        assert time.monotonic() < deadline, f"to be shown:\n{shown}\nsaid:\n{now}"
        time.sleep(AGAIN_S)
    return now


def _read(terminal: int) -> str:
    """All that is written there until nobody has it open any more."""
    said = b""
    deadline = time.monotonic() + SCRIPT_PATIENCE_S
    while True:
        left_s = max(0, deadline - time.monotonic())
        readable, _, _ = select.select([terminal], [], [], left_s)
        assert readable, f"no end after {SCRIPT_PATIENCE_S} s: {said.decode(errors='replace')}"
        try:
            piece = os.read(terminal, 65536)
        except OSError:  # so Linux says that it is closed
            piece = b""
        if not piece:
            return said.decode(errors="replace")
        said += piece
