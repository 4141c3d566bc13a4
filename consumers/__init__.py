"""What a worker's author imports: handlers, their context, and the roles that consume the ledger."""
