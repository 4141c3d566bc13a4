"""A read model keeps a bounded number of tasks and names at hand, however many it has taken in."""

import asyncio
from pathlib import Path

import pytest

from ledger.redis_store import RedisStore
from projections import fold, names
from tests.contracts.store import submit
from tests.read_models import bring_level, read_model
from tests.remains import BYTES_A_ROUND_MAX, bytes_a_round

AT_HAND = 50


async def test_a_read_model_does_not_grow_with_what_it_takes_in(
    store: RedisStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(fold, "REMEMBERED_MAX", AT_HAND)
    monkeypatch.setattr(names, "REMEMBERED_MAX", AT_HAND)
    model = await read_model(store, tmp_path)
    seen = 0

    async def take_in(count: int) -> None:
        """Tasks that stay unfinished, each of a knowledge base of its own."""
        nonlocal seen
        for _ in range(count // AT_HAND):
            kb_ids = [f"kb-{n}" for n in range(seen, seen + AT_HAND)]
            seen += AT_HAND
            await asyncio.gather(*(submit(store, kb_id=kb_id) for kb_id in kb_ids))
            await bring_level(model, store)

    grown = await bytes_a_round(take_in, warm_up=4 * AT_HAND, rounds=12 * AT_HAND)

    model.db.close()
    assert grown < BYTES_A_ROUND_MAX
