"""Checks of the read model on this machine: whether it is there, whole, and goes on."""

import contextlib
import sqlite3
from collections.abc import Iterator

from api.cli.checkup.finding import Finding, fail, ok, warn
from api.cli.output import counted
from ledger.settings import Settings
from projections.model_files import ModelFiles
from projections.read_model import is_current, read_checkpoints, read_stopped
from projections.sqlite import open_reader

CHECK = "read model"


def read_model(settings: Settings) -> Iterator[Finding]:
    """Of the file that serves. Looks at what it says of itself, not at every row."""
    files = ModelFiles(settings.read_model_folder)
    path = files.current()
    if path is None:
        yield ok(CHECK, f"none in {files.folder}: a projector makes it")
        return
    try:
        with contextlib.closing(open_reader(path)) as db:
            yield from _look(db)
    except sqlite3.Error as error:
        yield fail(CHECK, f"{path}: {error}", "a running projector makes another one")


def _look(db: sqlite3.Connection) -> Iterator[Finding]:
    if not is_current(db):
        yield warn(CHECK, "it was made by another version", "a running projector replaces it")
        return
    stopped = read_stopped(db)
    for name, found in stopped.items():
        advice = "`ledgerq rebuild`, once the cause is gone" if name != "tasks" else ""
        yield fail(CHECK, f"{name} stopped at {found.at}: {found.reason}", advice)
    if not stopped:
        events = sum(checkpoint.events for checkpoint in read_checkpoints(db).values())
        yield ok(CHECK, f"{counted(events, 'event')} read")
