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
from consumers.roles import Role, run_reported, run_role
from ledger.redis_store import RedisStore
from ledger.settings import Settings

log = structlog.get_logger("api")


class ApiRole:
    """Serves until `stop`, then answers what is in work."""

    def __init__(self, settings: Settings, store: RedisStore, listener: socket.socket) -> None:
        self._settings = settings
        self._store = store
        self._listener = listener
        self._stop = asyncio.Event()

    async def run(self) -> None:
        """Serve requests."""
        await serve(
            self._settings,
            self._store,
            listener=self._listener,
            stop=self._stop,
            on_started=lambda host, port: log.info("api_started", host=host, port=port),
        )

    def stop(self) -> None:
        """Take no more requests."""
        self._stop.set()


def run_api(settings: Settings, listener: socket.socket) -> None:
    """Serve on `listener` until a signal says to stop. Raises as `consumers.roles.open_store`."""

    # That it starts and ends is said by our own records.
    logging.getLogger("uvicorn").setLevel(logging.WARNING)

    def make(store: RedisStore) -> Role:
        return ApiRole(settings, store, listener)

    uvloop.run(run_role(settings, make))


def main() -> int:
    """The exit code."""
    _, name, descriptor = sys.argv
    end_with_parent()
    listener = socket.socket(fileno=int(descriptor))
    return run_reported(name, lambda settings: run_api(settings, listener))


if __name__ == "__main__":
    sys.exit(main())
