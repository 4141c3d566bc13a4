"""`ledgerq retention` on a ledger whose read model is behind."""

import asyncio
import json
import subprocess
from pathlib import Path

from ledger.retention import Projection
from tests.cli.running import run
from tests.retention.letting_go import LaterStore, LettingGo, completed

ONE, TWO = (f"01996abc-2400-7000-8000-00000000000{n}" for n in (1, 2))


async def behind(ledger: LettingGo, store: LaterStore) -> str:
    """A read model that has not seen what is a week old; its position."""
    await completed(store, ONE)
    await ledger.seal()
    first = (await store.history(ONE))[0].position
    await store.tell_projection(0, "3f9c01d2", Projection(first.entry, store.now_ms(), "node-7"))
    return str(first)


async def command(
    ledger_url: str, folder: Path, *arguments: str
) -> subprocess.CompletedProcess[str]:
    return await asyncio.to_thread(run, "retention", *arguments, "--redis", ledger_url, cwd=folder)


async def test_it_names_what_holds_back(
    ledger: LettingGo, store: LaterStore, ledger_url: str, tmp_path: Path
):
    position = await behind(ledger, store)

    done = await command(ledger_url, tmp_path, "--json")

    told = json.loads(done.stdout)
    [partition] = told["partitions"]
    assert partition["sealed_events"] == 3
    assert partition["stream_entries"] == 3
    assert partition["stream_bytes"] > 0
    assert partition["trim"]["held_by"] == ["age"]
    [model] = partition["read_models"]
    assert (model["node"], model["host"], model["position"]) == ("3f9c01d2", "node-7", position)
    assert done.returncode == 0


async def test_plain_lines_say_the_same(
    ledger: LettingGo, store: LaterStore, ledger_url: str, tmp_path: Path
):
    await behind(ledger, store)

    done = await command(ledger_url, tmp_path)

    assert "3 events sealed" in done.stdout
    assert "read model 3f9c01d2" in done.stdout


async def test_a_node_that_is_gone_can_be_forgotten(
    ledger: LettingGo, store: LaterStore, ledger_url: str, tmp_path: Path
):
    await behind(ledger, store)

    done = await command(ledger_url, tmp_path, "forget", "3f9c01d2")
    again = await command(ledger_url, tmp_path, "forget", "3f9c01d2")

    assert done.returncode == 0
    assert again.returncode == 1
    assert "3f9c01d2" in again.stderr
    assert await store.projections(0) == {}
