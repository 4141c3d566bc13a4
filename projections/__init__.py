"""Read models: functions from the ledger's events to rows that answer lists and statistics."""
