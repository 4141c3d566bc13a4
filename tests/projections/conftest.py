"""A ledger whose time the test owns, and what happens in it."""

import pytest

from ledger.memory_store import MemoryStore
from tests.projections.ledgers import Clock, make_store


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def memory(clock: Clock) -> MemoryStore:
    """An empty ledger of one partition."""
    return make_store(1, clock)
