"""The addresses that the API listens on, taken before anything else is begun."""

import contextlib
import errno
import socket
import time
from collections.abc import Callable, Generator
from typing import Final

from api.bind import bind, hold
from api.cli.failures import CliError
from ledger.settings import Settings

PATIENCE_S: Final = 1.5
"""How long a port may stay in use: the API of an `up` that was killed takes a moment to end."""

TRY_AGAIN_S: Final = 0.05


@contextlib.contextmanager
def listen(settings: Settings) -> Generator[socket.socket]:
    """The socket, as long as the context lasts. Raises CliError."""
    with contextlib.closing(
        _patiently(lambda: bind(settings.host, settings.port), settings.port, settings, "--port")
    ) as listener:
        yield listener


@contextlib.contextmanager
def reserve(settings: Settings) -> Generator[int]:
    """The port for gRPC, which is kept free for the process that listens there, even while it is
    started anew. Raises CliError."""
    port = settings.grpc_port_wanted
    with contextlib.closing(
        _patiently(lambda: hold(settings.host, port), port, settings, "--grpc-port")
    ) as holder:
        yield holder.getsockname()[1]


def _patiently(
    make: Callable[[], socket.socket], port: int, settings: Settings, flag: str
) -> socket.socket:
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            return make()
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise CliError(f"{error.strerror}: see --host and {flag}") from error
            if time.monotonic() > deadline:
                raise CliError(
                    f"{settings.host}:{port} is in use by another program: stop that, or choose"
                    f" another with {flag}"
                ) from error
        time.sleep(TRY_AGAIN_S)
