"""What an erased task was about is nowhere any more; that it was there can still be proved."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from structlog.testing import capture_logs

from consumers import erasing as erasing_module
from consumers.archiver import Archiver, ArchiverOptions
from consumers.erase_task import erase_task
from consumers.erasing import Erasing
from consumers.sealed_partition import SealingOptions
from ledger.archive.compression import decompress
from ledger.archive.joined import Joined
from ledger.archive.reader import Archive
from ledger.archive.verify.faults import Faults, Verdict
from ledger.archive.verify.log import LogCheck, Options
from ledger.codec import Meta, decode_meta, encode
from ledger.commands import CancelTask, CompleteTask, FailAttempt, ReportProgress, RetryTask
from ledger.erasure import redacted_data
from ledger.events import ErrorKind, TaskErased
from ledger.keys import PartitionKeys
from ledger.objects import upload_key
from ledger.objects.local_folder import LocalFolder
from ledger.redis_store import RedisStore
from ledger.redis_subscriptions import RedisSubscriptions
from ledger.rejections import Rejection
from ledger.task import Task
from projections.check import check
from tests.contracts.store import new_id, send, start, submit
from tests.ledger.test_golden import EVENTS
from tests.places import assert_quiescent
from tests.projections.watching import projecting, reasons

DIAGNOSIS = "Zoë's diagnosis"
BY = Meta(actor="anna")


class Ledger:
    """A ledger, its archive, and an archiver that runs when it is told to."""

    def __init__(self, store: RedisStore, folder: Path) -> None:
        self.store = store
        self.folder = folder
        self.objects = LocalFolder(folder / "objects")
        self.archive = Archive(self.objects, "", store.partitions)
        self.events = Joined(store, self.archive)

    async def seal(self, **options: int) -> None:
        """All that there is, and carry out what is to be erased."""
        sealing = SealingOptions(hold_ms=3_600_000, **options)
        archiver = Archiver(
            self.store,
            LocalFolder(self.folder / "objects"),
            ArchiverOptions(self.folder / "archive.key", sealing),
        )
        await archiver.seal_once()

    async def erase(self, task: Task, reason: str = "request 4711") -> None:
        await erase_task(self.store, self.events, task.id, reason, BY)

    def mentions(self) -> list[str]:
        """The files of the archive in which the diagnosis stands."""
        return [str(path) for path in self.folder.rglob("*") if path.is_file() and _has(path)]

    async def in_stream(self) -> int:
        """How many entries of the stream the diagnosis stands in."""
        raw: Any = self.store.client
        entries = await raw.xrange(PartitionKeys(0).events)
        return sum(any(DIAGNOSIS.encode() in v for v in fields.values()) for _, fields in entries)


def _has(path: Path) -> bool:
    packed = path.read_bytes()
    try:
        packed = decompress(packed)
    except ValueError:
        pass
    return DIAGNOSIS.encode() in packed


@pytest.fixture
async def ledger(store: RedisStore, tmp_path: Path) -> AsyncIterator[Ledger]:
    ledger = Ledger(store, tmp_path)
    yield ledger
    await ledger.objects.close()


async def a_whole_life(store: RedisStore, **fields: Any) -> Task:
    """In which the diagnosis is said wherever something can be said."""
    payload = msgspec.json.encode({"text": DIAGNOSIS, **fields})
    metadata = msgspec.Raw(msgspec.json.encode({"about": DIAGNOSIS}))
    task = await submit(store, payload=payload, metadata=metadata, max_retries=0)
    task = await start(store, task)
    task = await send(store, task, ReportProgress(5, DIAGNOSIS))
    task = await send(store, task, FailAttempt(1, DIAGNOSIS, ErrorKind.PERMANENT))
    task = await send(store, task, RetryTask())
    task = await send(store, task, CancelTask(DIAGNOSIS))
    task = await start(store, await send(store, task, RetryTask()))
    return await send(store, task, CompleteTask(2, msgspec.Raw(msgspec.json.encode(DIAGNOSIS))))


async def verified(ledger: Ledger) -> tuple[Verdict, int]:
    """What `verify` says, and how many events it found erased."""
    epoch = await ledger.store.epoch()
    check = LogCheck(ledger.objects, epoch, 0, Options((), ()), None, Faults(), lambda _: None)
    report = await check.run()
    return report.verdict, report.erased_events


async def test_nothing_is_left_and_the_log_still_holds(ledger: Ledger):
    task = await a_whole_life(ledger.store)
    await ledger.seal()
    before = await ledger.events.history(task.id)
    assert ledger.mentions()
    assert await ledger.in_stream()

    await ledger.erase(task)
    await ledger.seal()

    assert ledger.mentions() == []
    assert await ledger.in_stream() == 0
    history = await ledger.events.history(task.id)
    assert [(e.position, e.type, e.at, e.meta) for e in history[:-1]] == [
        (e.position, e.type, e.at, e.meta) for e in before
    ]
    assert decode_meta(history[-1].meta).actor == "anna"
    last = history[-1].event()
    assert isinstance(last, TaskErased)
    assert last.reason == "request 4711"
    assert await verified(ledger) == (Verdict.FINE, len(last.redacted))


async def test_the_task_stays_as_it_ended(ledger: Ledger):
    task = await a_whole_life(ledger.store)

    await ledger.erase(task)

    erased = await ledger.store.load(task.id)
    assert erased is not None
    assert (erased.status, erased.version) == (task.status, task.version + 1)
    assert bytes(erased.submission.payload) == b"{}"
    assert (erased.state.result, erased.state.message) == (msgspec.Raw(b""), "")
    assert DIAGNOSIS not in repr(erased)
    with pytest.raises(Rejection, match="was erased"):
        await send(ledger.store, erased, RetryTask())


async def test_once_is_enough_and_twice_changes_nothing(ledger: Ledger):
    task = await a_whole_life(ledger.store)

    first = await erase_task(ledger.store, ledger.events, task.id, "one", BY)
    await ledger.seal()
    second = await erase_task(ledger.store, ledger.events, task.id, "two", BY)
    await ledger.seal()

    assert first.new
    assert not second.new
    assert (second.position, second.events) == (first.position, first.events)
    assert await verified(ledger) == (Verdict.FINE, first.events)


async def test_only_a_finished_task_can_be_erased(ledger: Ledger):
    task = await submit(ledger.store)

    with pytest.raises(Rejection, match="only a finished task"):
        await ledger.erase(task)
    with pytest.raises(Rejection, match="there is no task with the id"):
        await erase_task(ledger.store, ledger.events, new_id(), "x", BY)


async def test_a_callback_that_waits_is_not_posted_any_more(ledger: Ledger):
    task = await submit(ledger.store, callback_url="http://127.0.0.1:9/hook")
    task = await send(ledger.store, task, CancelTask())

    await ledger.erase(task)

    await assert_quiescent(ledger.store)
    assert (await ledger.store.callbacks_waiting(0)).waiting == 0


async def test_the_uploaded_file_goes_too_and_no_other(ledger: Ledger):
    store, day = ledger.store, datetime.now(UTC).date()
    task_id, other_id = new_id(), new_id()
    epoch = await store.epoch()
    mine, others = (upload_key(epoch, day, each, "0" * 8, "a.md") for each in (task_id, other_id))
    for key in (mine, others):
        await ledger.objects.write(key, DIAGNOSIS.encode())
    task = await submit(store, task_id=task_id, payload=msgspec.json.encode({"file_path": mine}))
    thief = await submit(store, payload=msgspec.json.encode({"file_path": others}))
    for each in (task, thief):
        await ledger.erase(await send(store, each, CancelTask()))

    await ledger.seal()

    with pytest.raises(FileNotFoundError):
        await ledger.objects.read(mine)
    assert await ledger.objects.read(others) == DIAGNOSIS.encode()


async def test_large_data_and_data_of_many_bundles_is_removed(ledger: Ledger):
    tasks = [await a_whole_life(ledger.store, pad="x" * 20_000 * (n % 2)) for n in range(70)]
    await ledger.seal(seal_events=64)
    for task in tasks[::2]:
        await submit(ledger.store)
        await ledger.erase(task)
    for task in tasks[1::2]:
        await ledger.erase(task)

    await ledger.seal(seal_events=64)
    await submit(ledger.store)
    await ledger.seal()

    assert ledger.mentions() == []
    verdict, erased = await verified(ledger)
    assert verdict is Verdict.FINE
    assert erased == 70 * 6


@pytest.mark.parametrize("calls", range(6))
async def test_what_was_interrupted_is_finished_by_the_next_archiver(
    ledger: Ledger, calls: int, monkeypatch: pytest.MonkeyPatch
):
    task = await a_whole_life(ledger.store, pad="x" * 20_000)
    await ledger.seal()
    await ledger.erase(task)
    left = calls
    epoch = await ledger.store.epoch()
    prefix = f"archive/{epoch[:8]}/0/data"
    write, delete = LocalFolder.write, LocalFolder.delete

    class Killed(BaseException):
        pass

    def count_down(key: str) -> None:
        nonlocal left
        if key.startswith(prefix):
            if not left:
                raise Killed
            left -= 1

    async def counted_write(self: LocalFolder, key: str, data: bytes) -> None:
        count_down(key)
        await write(self, key, data)

    async def counted_delete(self: LocalFolder, key: str) -> None:
        count_down(key)
        await delete(self, key)

    with monkeypatch.context() as patched:
        patched.setattr(LocalFolder, "write", counted_write)
        patched.setattr(LocalFolder, "delete", counted_delete)
        try:
            await ledger.seal()
        except (Killed, BaseExceptionGroup):
            pass

    raw: Any = ledger.store.client
    await raw.hset(PartitionKeys(0).archive, "until", "0")  # its lease runs out
    await ledger.seal()

    assert ledger.mentions() == []
    assert await ledger.in_stream() == 0
    assert (await verified(ledger))[0] is Verdict.FINE


async def put_off(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> tuple[Task, Task]:
    """A task whose erasure cannot be carried out, and one that is erased after it; both sealed."""
    first, second = [await a_whole_life(ledger.store) for _ in range(2)]

    def others(_: object) -> dict[str, str]:
        return {"1": "0" * 64}

    with monkeypatch.context() as patched:
        patched.setattr("consumers.erase_task.redactions", others)
        await ledger.erase(first)
    await ledger.erase(second)
    return first, second


async def test_what_cannot_be_carried_out_keeps_no_other_waiting(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
):
    first, second = await put_off(ledger, monkeypatch)

    with capture_logs() as logs:
        await ledger.seal()

    told = [line for line in logs if line["log_level"] == "error"]
    assert [line["event"] for line in told] == ["erasure_put_off"]
    assert "ledgerq verify" in told[0]["hint"]
    assert DIAGNOSIS.encode() in (await ledger.events.history(first.id))[0].data
    assert DIAGNOSIS.encode() not in (await ledger.events.history(second.id))[0].data
    # The next archiver tries again: the ledger was not told that it is done.
    with capture_logs() as logs:
        await ledger.seal()
    assert [line["event"] for line in logs if line["log_level"] == "error"] == ["erasure_put_off"]


async def test_what_cannot_be_carried_out_is_not_tried_all_the_time(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
):
    await put_off(ledger, monkeypatch)
    await ledger.seal()
    archive = Archive(ledger.objects, await ledger.store.epoch(), 1)
    subscriptions = RedisSubscriptions(ledger.store.client, 1, 5_000)
    erasing = Erasing(ledger.store, subscriptions, archive, 0, 0)
    generation = (await ledger.store.archive_state(0)).generation
    log = await archive.log(0)

    with capture_logs() as logs:
        changed = [await erasing.step(generation, log) for _ in range(3)]

    assert changed == [True, False, False]
    assert erasing.done
    assert len([line for line in logs if line["log_level"] == "error"]) == 1
    monkeypatch.setattr(erasing_module, "PUT_OFF_S", 0.0)
    erasing.forget()
    with capture_logs() as logs:
        changed = [await erasing.step(generation, log) for _ in range(2)]
    assert changed == [True, True]
    assert len([line for line in logs if line["log_level"] == "error"]) == 2


async def test_read_models_forget_and_are_what_a_rebuild_makes(ledger: Ledger):
    failing = await start(
        ledger.store,
        await submit(ledger.store, payload=b'{"a":"' + DIAGNOSIS.encode() + b'"}', max_retries=0),
    )
    failed = await send(ledger.store, failing, FailAttempt(1, DIAGNOSIS, ErrorKind.PERMANENT))
    whole = await a_whole_life(ledger.store)
    folder = ledger.folder / "model"
    async with projecting(ledger.store, folder, ledger.events) as watched:
        await watched.level()
        for task in (failed, whole):
            await ledger.erase(task)
        await watched.level()
        assert (await check(watched.files, ledger.store)).equal

        await ledger.seal()

        await watched.projector.step()
        with watched.live() as db:
            assert not reasons(db)
        assert (await check(watched.files, ledger.events)).equal
    data = b"".join([path.read_bytes() for path in folder.rglob("*") if path.is_file()])
    assert DIAGNOSIS.encode() not in data
    assert DIAGNOSIS.casefold().encode() not in data


async def test_a_projector_that_stands_on_an_erased_event_goes_on(ledger: Ledger):
    task = await a_whole_life(ledger.store)
    async with projecting(ledger.store, ledger.folder / "model", ledger.events) as watched:
        await watched.level()
        await ledger.erase(task)
        await ledger.seal()

        await watched.level()

        with watched.live() as db:
            assert not reasons(db)


@pytest.mark.parametrize("name", EVENTS)
def test_what_is_left_stays_when_it_is_redacted_again(name: str):
    left = redacted_data(name, encode(EVENTS[name]))

    assert redacted_data(name, left) == left


def test_of_what_cannot_be_read_nothing_is_left():
    assert redacted_data("TaskDreamt", b'{"of":"sheep"}') == b"{}"
    assert redacted_data("TaskFailed", b"\xff") == b"{}"
