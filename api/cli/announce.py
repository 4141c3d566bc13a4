"""What `ledgerq up` tells the person who started it."""

import asyncio
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from api.cli.output import on_terminal, print_fields
from consumers.signatures import secret_file
from ledger import __version__
from ledger.embedded import LostTail
from ledger.settings import Durability, Settings
from ledger.settings_sources import masked

TRY_AGAIN_S: Final = 0.1

HEALTHY_TIMEOUT_S: Final = 10.0
"""How long an API that answers may need to be healthy before it is said that it is not: it opens
the ledger first, whose server may be away."""

LOOPBACK: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - where to reach such a socket


async def becomes_healthy(listener: socket.socket) -> bool:
    """Whether /health answers 200, which an API that has just been started may take a while to do.
    It is waited for without a limit until it answers at all, then for HEALTHY_TIMEOUT_S."""
    loop = asyncio.get_running_loop()
    give_up_at: float | None = None
    while give_up_at is None or loop.time() < give_up_at:
        status = await _health_status(listener)
        if status == 200:
            return True
        if status is not None and give_up_at is None:
            give_up_at = loop.time() + HEALTHY_TIMEOUT_S
        await asyncio.sleep(TRY_AGAIN_S)
    return False


async def _health_status(listener: socket.socket) -> int | None:
    """What /health answers; None when the API dies meanwhile. The connection waits in the socket's
    queue until the API takes it."""
    host, port = listener.getsockname()[:2]
    try:
        reader, writer = await asyncio.open_connection(LOOPBACK.get(host, host), port)
        try:
            writer.write(b"GET /health HTTP/1.1\r\nHost: ledgerq\r\nConnection: close\r\n\r\n")
            status_line = await reader.readline()
        finally:
            writer.close()
    except OSError:
        return None
    return int(status_line.split()[1]) if status_line else None


def service_address(settings: Settings) -> str:
    """The URL at which clients on this machine find the API."""
    host = LOOPBACK.get(settings.host, settings.host)
    return f"http://{f'[{host}]' if ':' in host else host}:{settings.port}"


def print_ready(settings: Settings, pids: Mapping[str, Sequence[int]], *, healthy: bool) -> None:
    """One line for a program, a few for a person."""
    url = service_address(settings)
    state = "is ready" if healthy else "is up, but not healthy yet (see `ledgerq doctor`),"
    data = _data(settings)
    if not on_terminal():
        listed = ", ".join(f"{name} {' '.join(map(str, pids[name]))}" for name in pids)
        print(
            f"ledgerq {__version__} {state} on {url}; ledger in {data}; callbacks signed with"
            f" {_keys(settings)}; processes: {listed}",
            flush=True,
        )
        return
    print(f"\nledgerq {__version__} {state} on {url}\n")
    # The usual address is what client commands look for anyway.
    elsewhere = "" if url == "http://127.0.0.1:8084" else f" --url {url}"
    handlers = settings.handlers or "none given: only health_check tasks are done (--handlers)"
    print_fields(
        [
            ("  ledger", data),
            ("  handlers", handlers),
            ("  callbacks", f"signed with {_keys(settings)}"),
            ("  processes", " · ".join(f"{n} {' '.join(map(str, pids[n]))}" for n in pids)),
            ("  to stop", "ctrl-C"),
        ]
    )
    # Not in the table, which would wrap it: it is there to be copied.
    print(f"\n  Try: ledgerq submit health_check --kb demo --payload {{}} --wait{elsewhere}\n")
    sys.stdout.flush()


def print_lost_tail(tail: LostTail) -> None:
    """All that is known of what a crash tore off the ledger's file, whatever the log level is."""
    lines = ["", f"ledgerq: {tail}", f"  found at  {tail.at}", f"  copy      {tail.saved}"]
    lines += [f"  event     {count} {name}" for name, count in tail.event_types.items()]
    lines += [f"  task      {task_id}" for task_id in tail.task_ids]
    print("\n".join(lines), file=sys.stderr, flush=True)


def _keys(settings: Settings) -> str:
    if settings.callback_secrets:
        return f"callback_secrets ({len(settings.callback_secrets)})"
    return f"the key in {secret_file(settings).absolute()}"


def _data(settings: Settings) -> str:
    if settings.redis_url is not None:
        return f"{masked(settings.redis_url)}"
    synced = "before each answer" if settings.durability is Durability.ALWAYS else "once a second"
    return f"{Path(settings.data_dir).absolute()}, synced {synced}"
