"""What `ledgerq doctor` looks at: the machine, the server, and the ledger on it."""
