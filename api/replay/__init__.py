"""The events of a ledger again, from wherever they lie: chosen, in order, and made something of."""
