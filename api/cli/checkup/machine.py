"""Checks of this machine: Python, the data directory, and what listens where the API should."""

import http.client
import os
import platform
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec

from api.cli.checkup.finding import Finding, fail, ok, warn
from api.cli.output import counted
from ledger import __version__
from ledger.embedded import EmbeddedServerError, lost_tails, valkey_binary
from ledger.embedded.data_dir import LOST_TAILS_NAME, owner_of

FREE_BYTES_MIN: Final = 1 << 30
FREE_PERCENT_MIN: Final = 5
ANSWER_TIMEOUT_S: Final = 3.0
SERVICE: Final = "task-manager"


class _Health(msgspec.Struct, frozen=True):
    status: str
    service: str
    version: str
    details: dict[str, dict[str, Any]] = {}


def python() -> Finding:
    """The interpreter, which pyproject.toml has bounded already."""
    return ok("python", f"{platform.python_version()}, ledgerq {__version__}")


def data_dir(directory: Path) -> Iterator[Finding]:
    """The folder of an embedded Valkey: whose it is, what was lost in it, and room on its disk."""
    try:
        valkey_binary()
    except EmbeddedServerError as error:
        yield fail("data dir", str(error), "")
        return
    owner = owner_of(directory)
    nearest = nearest_of(directory)
    if not os.access(nearest, os.W_OK | os.X_OK):
        yield fail("data dir", f"{nearest} cannot be written", "change its rights, or --data-dir")
    elif owner is None:
        yield ok("data dir", f"{directory} is free")
    else:
        yield ok("data dir", f"{directory} is held by process {owner.pid} since {owner.started_at}")
    yield from _lost(directory)
    yield disk("disk", nearest, "a full disk stops all writes")


def nearest_of(folder: Path) -> Path:
    """A folder, or what is there of the way to it."""
    return next(path for path in (folder, *folder.absolute().parents) if path.exists())


def _lost(directory: Path) -> Iterator[Finding]:
    tails = lost_tails(directory)
    if tails:
        yield warn(
            "lost tail",
            f"torn ends of the append-only file that were cut off: {len(tails)}, the last one at"
            f" {tails[-1].at}: {tails[-1].size} bytes, {counted(len(tails[-1].task_ids), 'task')}"
            " named",
            f"look into {directory / LOST_TAILS_NAME}, then move it away",
        )


def disk(check: str, path: Path, otherwise: str) -> Finding:
    """Room on the disk of a folder; `otherwise`: what becomes of it without."""
    usage = shutil.disk_usage(path)
    free = f"{usage.free / (1 << 30):.1f} GiB free ({100 * usage.free // usage.total} %)"
    if usage.free < FREE_BYTES_MIN or 100 * usage.free < FREE_PERCENT_MIN * usage.total:
        return warn(check, f"only {free}", f"make room: {otherwise}")
    return ok(check, free)


def service(url: str) -> Finding:
    """What answers at the address that clients use."""
    parts = urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.netloc, timeout=ANSWER_TIMEOUT_S)
    try:
        connection.request("GET", f"{parts.path.rstrip('/')}/health")
        answer = connection.getresponse().read(64 * 1024)
        health = msgspec.json.decode(answer, type=_Health)
    except ConnectionRefusedError:
        return ok("api", f"nothing listens at {url} (`ledgerq up` or `ledgerq api` would)")
    except (http.client.HTTPException, msgspec.MsgspecError):
        return _stranger(url)
    except OSError as error:
        return warn("api", f"no answer from {url}: {error}", "check --url, and its process")
    finally:
        connection.close()
    if health.service != SERVICE:
        return _stranger(url)
    if health.status != "healthy":
        bad = [name for name, part in health.details.items() if part.get("status") == "unhealthy"]
        return fail("api", f"{url} is {health.status}: {', '.join(bad)}", "see its log")
    return ok("api", f"ledgerq {health.version} at {url} is healthy")


def _stranger(url: str) -> Finding:
    return warn("api", f"something else answers at {url}", "choose another --port and --url")
