"""A witness: somebody else who remembers what an archive's log was, and says so."""
