"""A read model equals the fold of the ledger, whatever happened, and however it was read."""

import asyncio
import itertools
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.checks import read_all
from tests.projections.ledgers import Clock, Step, carry_out, histories, make_store
from tests.projections.tables import expected_tables, tables_of
from tests.read_models import bring_level, read_model


@pytest.mark.parametrize("partitions", [1, 3])
@given(parts=st.lists(histories, min_size=1, max_size=4))
def test_a_read_model_is_the_fold_of_its_ledger(
    partitions: int, parts: Sequence[Sequence[Step]]
) -> None:
    async def scenario() -> None:
        clock = Clock()
        store = make_store(partitions, clock)
        with tempfile.TemporaryDirectory() as folder:
            model = await read_model(store, Path(folder))
            for part in parts:
                await carry_out(store, clock, part)
                await bring_level(model, store)
            found = tables_of(model.db)
            model.db.close()
        events = [await read_all(store, p) for p in range(partitions)]
        assert found == expected_tables(itertools.chain(*events))

    asyncio.run(scenario())
