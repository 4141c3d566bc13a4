"""The faces of ledgerq: REST and the command line."""
