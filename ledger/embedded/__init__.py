"""The Valkey that `ledgerq up` starts and owns: one per data directory, gone with its owner."""

from ledger.embedded.conf import EmbeddedConfig
from ledger.embedded.data_dir import DataDirInUse, EmbeddedServerError, running_server
from ledger.embedded.lost_tail import DamagedAppendOnlyFile, LostTail, lost_tails
from ledger.embedded.process import valkey_binary
from ledger.embedded.server import EmbeddedServer

__all__ = [
    "DamagedAppendOnlyFile",
    "DataDirInUse",
    "EmbeddedConfig",
    "EmbeddedServer",
    "EmbeddedServerError",
    "LostTail",
    "lost_tails",
    "running_server",
    "valkey_binary",
]
