"""`python -m examples.demo`: exit code 0 if everything that it tells holds, else 1."""

import argparse
import asyncio
import signal
import sys
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from api.client import LedgerqError

from .documents import standard_library
from .failures import DemoError
from .screen import Screen
from .service import last_words
from .story import tell

DOCUMENTS_MIN: Final = 40
"""Fewer could all be done before a worker is killed in the middle."""

INTERRUPTED: Final = 128 + signal.SIGINT


def main() -> int:
    """Tell the story; the exit code."""
    arguments = _arguments()
    screen = Screen()
    try:
        with _folder(arguments.keep) as folder:
            return _told(screen, folder, arguments.documents)
    except KeyboardInterrupt:
        screen.say("Interrupted; everything is stopped.")
        return INTERRUPTED


def _told(screen: Screen, folder: Path, documents: int | None) -> int:
    """The story with its data in `folder`: 0 if it holds."""
    reasons: list[str] = []
    try:
        asyncio.run(_until_signal(screen, folder, documents))
    except* (DemoError, LedgerqError) as failures:
        reasons += map(str, failures.exceptions)
    if reasons:
        screen.fail(reasons[0], last_words(folder))
    return 1 if reasons else 0


async def _until_signal(screen: Screen, folder: Path, documents: int | None) -> None:
    """SIGTERM and SIGHUP end the story as ctrl-C does, with nothing left behind."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, signal.raise_signal, signal.SIGINT)
    await tell(screen, folder, standard_library(documents))


@contextmanager
def _folder(kept: Path | None) -> Generator[Path]:
    """Where everything is written: a folder that is gone afterwards, or one that is kept."""
    if kept is None:
        with tempfile.TemporaryDirectory(prefix="ledgerq-") as folder:
            yield Path(folder)
    else:
        kept.mkdir(parents=True, exist_ok=True)
        yield kept.resolve()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m examples.demo", description=__doc__)
    parser.add_argument("--documents", type=int, metavar="N", help="at most so many documents")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="an empty folder to leave all in")
    arguments = parser.parse_args()
    if arguments.documents is not None and arguments.documents < DOCUMENTS_MIN:
        parser.error(f"--documents: expected at least {DOCUMENTS_MIN}")
    if arguments.keep is not None and arguments.keep.exists():
        if not arguments.keep.is_dir() or any(arguments.keep.iterdir()):
            parser.error(f"--keep: {arguments.keep} is not an empty folder")
    return arguments


if __name__ == "__main__":
    sys.exit(main())
