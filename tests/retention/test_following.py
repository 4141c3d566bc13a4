"""Who follows the ledger from before its stream begins is told what the archive has, then the rest,
without gap or double."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import pytest
from msgspec.structs import replace

from api.app import App, create_app
from api.event_filter import EventFilter
from api.task_facts import Occurrence
from consumers import subscribe
from ledger.keys import PartitionKeys
from ledger.settings import Settings
from ledger.store import Position
from ledger.subscriptions import entry_before
from tests.retention.letting_go import DAY_MS, LaterStore, LettingGo, completed

PATIENCE_S = 20

IDS = [f"01996abc-2400-7000-8000-0000000{n:05}" for n in range(200)]


@pytest.fixture
async def app(store: LaterStore, tmp_path: Path) -> AsyncIterator[App]:
    app = create_app(store, Settings(data_dir=str(tmp_path)))
    yield app
    await app.close()


class Heard:
    """Everything, until `end` events were told."""

    wants_states = False

    def __init__(self, end: int) -> None:
        self.positions: list[Position] = []
        self._end = end

    @property
    def wanted(self) -> EventFilter:
        return EventFilter()

    async def room(self) -> None:
        return

    def take(self, occurrence: Occurrence) -> None:
        self.positions.append(occurrence.position)
        if len(self.positions) == self._end:
            raise Enough


class Enough(Exception):
    """All was heard."""


async def mostly_archived(ledger: LettingGo) -> list[Position]:
    """600 events, of which one is left in the stream, and three that are not sealed; all of
    them."""
    for task_id in IDS:
        await completed(ledger.store, task_id)
    everything = await ledger.store.events_after(Position(0, "0-0"), 1_000, 0)
    await ledger.seal()
    ledger.pass_time(2 * DAY_MS)
    await ledger.let_go()
    assert await ledger.store.client.xlen(PartitionKeys(0).events) == 1
    await completed(ledger.store, "01996abc-2400-7000-8000-0000000fffff")
    everything += await ledger.store.events_after(everything[-1].position, 1_000, 0)
    return [event.position for event in everything]


@pytest.mark.parametrize("index", [None, 0, 300, 598, 599, 601])
async def test_a_feed_begins_in_the_archive(app: App, ledger: LettingGo, index: int | None):
    everything = await mostly_archived(ledger)
    after = "beginning" if index is None else str(everything[index])
    wanted = everything if index is None else everything[index + 1 :]

    await assert_told(app, after, wanted)


@pytest.mark.parametrize("index", [None, 300])
async def test_a_feed_begins_in_the_archive_though_the_clock_was_set_back(
    app: App, ledger: LettingGo, index: int | None
):
    """What left the stream is younger than what leaves it now."""
    everything = await mostly_archived(ledger)
    after = "beginning" if index is None else str(everything[index])
    wanted = everything if index is None else everything[index + 1 :]
    ledger.pass_time(-2 * DAY_MS)

    await assert_told(app, after, wanted)


async def assert_told(app: App, after: str, wanted: list[Position]) -> None:
    """A feed that begins there tells just these."""
    [start] = await app.audience.beginning("after", after)
    heard = Heard(len(wanted))
    [follower] = app.audience.followers([start], heard)
    with pytest.raises(Enough):
        async with asyncio.timeout(PATIENCE_S):
            await follower.run()

    assert heard.positions == wanted


@pytest.mark.parametrize("index", [None, 0, 300, 598, 599, 601])
async def test_a_subscription_begins_in_the_archive(
    ledger: LettingGo, tmp_path: Path, index: int | None
):
    everything = await mostly_archived(ledger)

    await assert_given(ledger, tmp_path, everything, index)


@pytest.mark.parametrize("index", [None, 300])
async def test_what_left_is_given_though_all_that_is_left_is_young(
    ledger: LettingGo, tmp_path: Path, index: int | None
):
    """What happens first after a quiet day is sealed, and all before it goes, within seconds."""
    everything = await mostly_archived(ledger)
    ledger.pass_time(-2 * DAY_MS)

    await assert_given(ledger, tmp_path, everything, index)


async def assert_given(
    ledger: LettingGo, folder: Path, everything: list[Position], index: int | None
) -> None:
    """A subscription that begins behind that event, or at the beginning, is given all the rest."""
    start = "beginning" if index is None else everything[index]
    wanted = everything if index is None else everything[index + 1 :]
    met: list[Position] = []

    async with subscribe(
        "billing", start=start, store=ledger.store, data_dir=str(folder)
    ) as subscription:
        if wanted:
            async for event in subscription:
                met.append(event.position)
                await event.ack()
                if event.position == wanted[-1]:
                    break

    assert met == wanted


async def test_a_subscription_knows_of_what_an_evicted_task_was(ledger: LettingGo, tmp_path: Path):
    """It begins behind the event that would have told."""
    task = await completed(ledger.store, IDS[0], kb_id="kb-7")
    submission, _, end = await ledger.store.history(task.id)
    await ledger.seal()
    ledger.pass_time(2 * DAY_MS)
    await ledger.let_go()
    assert not await ledger.is_in_memory(task)

    async with subscribe(
        "billing",
        start=submission.position,
        store=ledger.store,
        data_dir=str(tmp_path),
        kb_ids=["kb-7"],
        types=["TaskCompleted"],
    ) as subscription:
        async for event in subscription:
            assert event.position == end.position
            assert event.kb_id == "kb-7"
            break


async def test_a_member_that_comes_back_late_goes_on_in_the_archive(
    ledger: LettingGo, tmp_path: Path
):
    """Trimming waited for its group for as long as it was to."""
    first, second, third = [await completed(ledger.store, IDS[n]) for n in range(3)]
    met: list[str] = []

    async def follow(count: int) -> None:
        async with subscribe(
            "billing",
            start="beginning",
            types=["TaskCompleted"],
            store=ledger.store,
            data_dir=str(tmp_path),
        ) as subscription:
            async for event in subscription:
                met.append(event.task_id)
                await event.ack()
                if len(met) == count:
                    break

    await follow(1)
    await ledger.seal()
    ledger.pass_time(2 * DAY_MS)
    ledger.terms = replace(ledger.terms, hold_ms=0)
    await ledger.let_go()
    assert await ledger.store.client.xlen(PartitionKeys(0).events) == 1
    await follow(3)

    assert met == [first.id, second.id, third.id]


async def test_a_position_before_what_was_lost_is_refused(app: App, ledger: LettingGo):
    everything = await mostly_archived(ledger)
    # By hand: what was never sealed.
    client, key = ledger.store.client, PartitionKeys(0).events
    await client.xtrim(key, minid=everything[-1].entry, approximate=False)

    transport = httpx2.ASGITransport(app=app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://api") as api:
        answer = await api.get("/api/v1/events", params={"after": str(everything[0])})
        late = await api.get("/api/v1/events", params={"after": str(everything[599])})

    assert late.json()["code"] == "POSITION_GONE"
    assert answer.status_code == 200


async def with_the_beginning_lost(ledger: LettingGo) -> list[Position]:
    """The five events that are left of nine; the others were never sealed."""
    for task_id in IDS[:3]:
        await completed(ledger.store, task_id)
    everything = await ledger.store.events_after(Position(0, "0-0"), 1_000, 0)
    kept = [event.position for event in everything[4:]]
    client, key = ledger.store.client, PartitionKeys(0).events
    await client.xtrim(key, minid=kept[0].entry, approximate=False)
    return kept


@pytest.mark.parametrize("quiet_ms", [0, 2 * DAY_MS])
async def test_the_beginning_is_where_the_stream_begins_if_what_was_before_is_lost(
    app: App, ledger: LettingGo, quiet_ms: int
):
    kept = await with_the_beginning_lost(ledger)
    ledger.pass_time(quiet_ms)

    [start] = await app.audience.beginning("after", "beginning")
    # A client that is told nothing yet comes back with that.
    for after in ("beginning", str(start)):
        await assert_told(app, after, kept)


async def test_a_group_that_begins_where_the_stream_does_lags_by_what_is_there(
    app: App, ledger: LettingGo, tmp_path: Path
):
    """What was lost before is neither told nor counted."""
    kept = await with_the_beginning_lost(ledger)

    start = str(Position(0, entry_before(kept[0].entry)))
    folder = str(tmp_path)
    async with subscribe("billing", start=start, store=ledger.store, data_dir=folder) as billing:
        event = await anext(aiter(billing))
    transport = httpx2.ASGITransport(app=app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://api") as api:
        [group] = (await api.get("/api/v1/subscriptions")).json()["subscriptions"]

    assert event.position == kept[0]
    assert group["lag_events"] == len(kept)
