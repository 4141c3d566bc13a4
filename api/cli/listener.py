"""The socket that the API listens on, bound before anything else is begun."""

import contextlib
import errno
import socket
import time
from collections.abc import Generator
from typing import Final

from api.bind import bind
from api.cli.failures import CliError
from ledger.settings import Settings

PATIENCE_S: Final = 1.5
"""How long a port may stay in use: the API of an `up` that was killed takes a moment to end."""

TRY_AGAIN_S: Final = 0.05


@contextlib.contextmanager
def listen(settings: Settings) -> Generator[socket.socket]:
    """The socket, as long as the context lasts. Raises CliError."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            listener = bind(settings.host, settings.port)
            break
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise CliError(f"{error.strerror}: see --host and --port") from error
            if time.monotonic() > deadline:
                raise CliError(
                    f"{settings.host}:{settings.port} is in use by another program: stop that, or"
                    " choose another with --port"
                ) from error
        time.sleep(TRY_AGAIN_S)
    with contextlib.closing(listener):
        yield listener
