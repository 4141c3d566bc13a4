"""Whether an archive is what it was when it was sealed: everything recomputed from its bytes."""
