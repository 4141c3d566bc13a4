"""A listening socket for the API; whoever makes it need not load the rest of it."""

import socket
from typing import Final

BACKLOG: Final = 2_048


def bind(host: str, port: int) -> socket.socket:
    """A listening socket. Raises OSError, naming the address, when it cannot be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        reason = error.strerror or str(error)
        raise OSError(error.errno, f"cannot listen on {host}:{port}: {reason}") from error
