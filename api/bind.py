"""Sockets for the API; whoever makes them need not load the rest of it."""

import socket
from typing import Final

BACKLOG: Final = 2_048


def bind(host: str, port: int) -> socket.socket:
    """A listening socket. Raises OSError, naming the address, when it cannot be had."""
    try:
        return socket.create_server((host, port), family=_family(host), backlog=BACKLOG)
    except OSError as error:
        raise _named(error, host, port) from error


def hold(host: str, port: int) -> socket.socket:
    """A socket that has an address and does not listen on it, so that a process may which reuses
    addresses, as gRPC does. Raises OSError, naming the address, when somebody listens there."""
    holder = socket.socket(_family(host), socket.SOCK_STREAM)
    try:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind((host, port))
    except OSError as error:
        holder.close()
        raise _named(error, host, port) from error
    return holder


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def _named(error: OSError, host: str, port: int) -> OSError:
    reason = error.strerror or str(error)
    return OSError(error.errno, f"cannot listen on {host}:{port}: {reason}")
