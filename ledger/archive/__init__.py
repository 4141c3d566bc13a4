"""The archive: events outside of the ledger, as transparency logs that can be proved."""
