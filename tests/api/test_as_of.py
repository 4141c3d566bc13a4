"""Statistics and queues as they were."""

import asyncio
import os
import threading
from pathlib import Path
from typing import Any

import httpx2
import pytest

from api import past
from api.app import App
from ledger.moments import moment_text
from ledger.redis_store import RedisStore
from ledger.settings import Settings
from tests.api.reading import Projection
from tests.api.requests import complete, fail, start, submitted

STATS = "/api/v1/stats/tasks"
QUEUES = "/api/v1/queues/info"


@pytest.fixture
def settings(tmp_path: Path, ledger_url: str) -> Settings:
    return Settings(data_dir=str(tmp_path), redis_url=ledger_url)


async def got(api: httpx2.AsyncClient, path: str, **query: str) -> dict[str, Any]:
    answer = await api.get(path, params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def moment(store: RedisStore) -> str:
    """The present one, once it has passed."""
    ms = max([(await store.last_position(p)).order[0] for p in range(store.partitions)])
    await asyncio.sleep(max(0, ms + 1 - store.now_ms()) / 1000)
    return moment_text(ms)


async def test_statistics_and_queues_are_those_of_a_time(
    api: httpx2.AsyncClient, store: RedisStore, projection: Projection
) -> None:
    ids = [(await submitted(api, priority=p))["id"] for p in ("low", "high", "high", "normal")]
    await api.post("/api/v1/queues/document_processing/pause", json={"reason": "a test"})
    await complete(store, ids[0])
    await start(store, ids[1])
    await projection.catch_up()
    then = await moment(store)
    expected = await got(api, STATS), await got(api, QUEUES)
    position = (await api.get(STATS)).headers["ledger-position"]

    await fail(store, ids[2])
    await api.delete(f"/api/v1/tasks/{ids[3]}")
    await api.post("/api/v1/queues/document_processing/resume")
    answer = await api.get(STATS, params={"as_of": then})
    queues = await got(api, QUEUES, as_of=then)

    assert answer.json() == expected[0]
    assert answer.json()["completed_tasks"] == 1
    assert answer.headers["ledger-position"] == position
    assert [row["paused"] for row in queues["queues"]] == [
        row["paused"] for row in expected[1]["queues"]
    ]
    for found in (queues, *queues["queues"], expected[1], *expected[1]["queues"]):
        found.pop("oldest_age_seconds")
    assert queues == expected[1]
    high = await got(api, STATS, as_of=then, priority="high")
    assert (high["total_tasks"], high["processing_tasks"]) == (2, 1)
    assert (await got(api, QUEUES, as_of=then, priority="high"))["queue_size"] == 1
    recent = await got(api, STATS, as_of=then, created_after="1h")
    assert recent["total_tasks"] == 4, "an age counts back from that time"


async def test_before_there_was_anything_there_was_nothing(
    api: httpx2.AsyncClient, store: RedisStore
) -> None:
    await submitted(api)

    assert (await got(api, STATS, as_of="1d"))["total_tasks"] == 0
    queues = await got(api, QUEUES, as_of="1971-01-01T00:00:00Z")
    assert queues["queue_size"] == 0
    assert queues["oldest_age_seconds"] is None


@pytest.mark.parametrize("path", [STATS, QUEUES])
async def test_a_time_that_is_none_is_refused(api: httpx2.AsyncClient, path: str) -> None:
    answer = await api.get(path, params={"as_of": "yesterday"})

    assert answer.status_code == 400
    assert answer.json()["details"]["field"] == "as_of"


async def test_what_takes_longer_is_asked_for_again(
    api: httpx2.AsyncClient, app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    await submitted(api)
    with monkeypatch.context() as patch:
        patch.setattr(past, "ANSWER_WAIT_S", 0.0)
        early = await api.get(STATS, params={"as_of": "2020-01-01T00:00:00Z"})
        other = await api.get(STATS, params={"as_of": "2021-01-01T00:00:00Z"})

    late = await api.get(STATS, params=early.json()["details"])

    assert [answer.status_code for answer in (early, other, late)] == [503, 503, 200]
    assert early.json()["details"] == {"as_of": "2020-01-01T00:00:00.000Z"}
    assert "ask again with as_of=2020-01-01T00:00:00.000Z" in early.json()["message"]
    assert "another moment is being looked up" in other.json()["message"]
    assert early.headers["retry-after"]


async def test_only_the_last_moments_are_kept_and_no_file_stays(
    api: httpx2.AsyncClient, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(past, "KEPT_MAX", 1)

    for year in (2020, 2021, 2020):
        assert (await got(api, STATS, as_of=f"{year}-01-01T00:00:00Z"))["total_tasks"] == 0

    assert list((settings.read_model_folder / "past").iterdir()) == []


async def test_no_moment_is_kept_for_long(
    api: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has what tasks were about that are erased meanwhile."""
    monkeypatch.setattr(past, "KEPT_S", 0.5)
    closed, close = threading.Event(), past.Moment.close

    def told(moment: past.Moment) -> None:
        close(moment)
        closed.set()

    monkeypatch.setattr(past.Moment, "close", told)

    await got(api, STATS, as_of="2020-01-01T00:00:00Z")

    assert await asyncio.to_thread(closed.wait, 10)
    assert (await got(api, STATS, as_of="2020-01-01T00:00:00Z"))["total_tasks"] == 0


async def test_what_a_killed_process_left_is_gone_at_the_next_start(
    app: App, settings: Settings
) -> None:
    folder = settings.read_model_folder / "past"
    folder.mkdir(parents=True)
    for pid in (os.getpid(), os.getppid(), 999_999_999):
        (folder / f"{pid}-5.sqlite3").write_bytes(b"somebody's diagnosis")

    app.past.start()

    assert [each.name for each in folder.iterdir()] == [f"{os.getppid()}-5.sqlite3"]


async def test_a_fold_that_fails_is_told(
    api: httpx2.AsyncClient, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.read_model_folder.mkdir(parents=True)
    (settings.read_model_folder / "past").write_text("no folder")

    answer = await api.get(STATS, params={"as_of": "1d"})

    assert answer.status_code == 503
    assert "the ledger cannot be folded up to that time" in answer.json()["message"]


async def test_a_stopping_process_ends_a_fold(
    api: httpx2.AsyncClient, app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(past, "ANSWER_WAIT_S", 0.0)
        await api.get(STATS, params={"as_of": "2020-01-01T00:00:00Z"})
    asked = asyncio.ensure_future(api.get(STATS, params={"as_of": "2020-01-01T00:00:00Z"}))
    await asyncio.sleep(0)

    await app.stop_waiting()

    answer = await asked
    assert answer.status_code == 503
    assert "this process is stopping" in answer.json()["message"]
