"""The store contract on the reference."""

import asyncio
import time

import pytest

from ledger.memory_store import MemoryStore
from ledger.task import Task
from tests.contracts.callbacks import CallbacksContract
from tests.contracts.store import OpenStore, StoreContract


def wall_clock_ms() -> int:
    return time.time_ns() // 1_000_000


async def no_wait(_timeout_ms: int) -> None:
    await asyncio.sleep(0)


class TestMemoryStore(StoreContract, CallbacksContract):
    @pytest.fixture
    def open_store(self) -> OpenStore:
        async def open_store(partitions: int) -> MemoryStore:
            return MemoryStore(wall_clock_ms, no_wait, partitions)

        return open_store

    async def lose(self, store: MemoryStore, task: Task) -> None:
        del store.contents[0].tasks[task.id]

    async def damage(self, store: MemoryStore, task: Task) -> None:
        store.contents[0].tasks[task.id].state = b'{"status":"lo\xff'
