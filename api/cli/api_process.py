"""The API as a process: what `ledgerq api` is, and `ledgerq up` starts with a socket of its own.

`python -m api.cli.api_process NAME DESCRIPTOR` serves on a listening socket that it inherits: while
the process is started anew, its callers wait instead of being turned away.
"""

import asyncio
import logging
import socket
import sys

import structlog
import uvloop

from api.server import serve
from consumers.pool import end_with_parent
from consumers.roles import run_reported
from consumers.signals import StopSignals
from ledger.settings import Settings

log = structlog.get_logger("api")


def run_api(settings: Settings, listener: socket.socket) -> None:
    """Serve on `listener` until a signal says to stop, then answer what is in work.

    Raises as `consumers.roles.open_store`.
    """
    # That it starts and ends is said by our own records, and a line for whatever bytes come from
    # outside would let callers fill the log.
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
    uvloop.run(_serve(settings, listener))


async def _serve(settings: Settings, listener: socket.socket) -> None:
    signals, stop = StopSignals(), asyncio.Event()
    signals.call(stop.set)
    await serve(
        settings,
        listener=listener,
        stop=stop,
        on_started=lambda host, port: log.info("api_started", host=host, port=port),
    )


def main() -> int:
    """The exit code."""
    _, name, descriptor = sys.argv
    end_with_parent()
    listener = socket.socket(fileno=int(descriptor))
    return run_reported(name, lambda settings: run_api(settings, listener))


if __name__ == "__main__":
    sys.exit(main())
