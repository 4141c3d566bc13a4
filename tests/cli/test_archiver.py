"""`ledgerq archiver` as a person runs it: once, and for its keys."""

import asyncio
import shutil
from pathlib import Path

import pytest

from consumers.archiver import Archiver, ArchiverOptions
from consumers.same_ledger import LedgerWentBack
from ledger.archive.evicted import EvictedTasks
from ledger.archive.notes import Verifier
from ledger.archive.reader import Archive
from ledger.commands import CancelTask
from ledger.identity import derived_id
from ledger.keys import PartitionKeys
from ledger.objects.local_folder import LocalFolder
from ledger.redis_archive import Hold, RedisArchive
from ledger.redis_connection import send
from ledger.redis_store import RedisStore
from ledger.rejections import Rejection
from ledger.retention import Ended
from ledger.task import Task
from ledger.transact import transact
from tests.cli.running import Call, run
from tests.contracts.store import submit

EVENTS = PartitionKeys(0).events


@pytest.fixture
async def three_events(store: RedisStore) -> RedisStore:
    for _ in range(3):
        await submit(store)
    return store


def test_everything_is_sealed_once(
    three_events: RedisStore, ledger_url: str, ledgerq: Call, tmp_path: Path
):
    where = ("--redis", ledger_url, "--data-dir", str(tmp_path))
    # when what there is is sealed
    ran = run("archiver", "--once", *where, cwd=tmp_path)
    # then that is said, and where the key is
    assert (ran.returncode, ran.stdout) == (0, "3 events are sealed\n")
    assert (tmp_path / "archive.key").stat().st_mode & 0o777 == 0o600
    # and its public key is printed, which the archive's checkpoints are signed with
    key = ledgerq("archiver", "key", *where)
    assert key.code == 0
    [checkpoint] = (tmp_path / "objects").glob("archive/*/0/checkpoint")
    assert Verifier.parse(key.out).name in checkpoint.read_text()


def test_a_key_is_rotated(three_events: RedisStore, ledger_url: str, ledgerq: Call, tmp_path: Path):
    where = ("--redis", ledger_url, "--data-dir", str(tmp_path))
    run("archiver", "--once", *where, cwd=tmp_path)
    [before] = ledgerq("archiver", "key", *where, "--json").json()
    # when the key is rotated
    [after] = ledgerq("archiver", "rotate-key", *where, "--json").json()
    # then there is a new one, which took the place of the old one
    assert after["key"] != before["key"]
    assert after["replaced"] == [before["key"]]


def test_what_cannot_be_sealed_is_one_clear_line(
    three_events: RedisStore, ledger_url: str, tmp_path: Path
):
    where = ("--redis", ledger_url, "--data-dir", str(tmp_path))
    run("archiver", "--once", *where, cwd=tmp_path)
    # given a key file that is gone, and others' in its place
    (tmp_path / "archive.key").write_text("key: none\n")
    # when more is to be sealed
    refused = run("archiver", "--once", *where, cwd=tmp_path)
    # then it says what is wrong, and what to do
    assert refused.returncode == 1
    assert refused.stderr.splitlines()[-1].startswith("ledgerq: ")
    assert "archive.key: line 1 begins with neither `salts` nor `key`" in refused.stderr


def test_a_partition_that_is_not_halted_need_not_go_on(
    three_events: RedisStore, ledger_url: str, tmp_path: Path
):
    where = ("--redis", ledger_url, "--data-dir", str(tmp_path))
    refused = run("archiver", "go-on", "0", *where, cwd=tmp_path)
    assert refused.returncode == 1
    assert refused.stderr == "ledgerq: partition 0 is not halted\n"


async def test_a_halted_partition_goes_on(
    three_events: RedisStore, ledger_url: str, tmp_path: Path
):
    # given a partition that was halted
    where = ("--redis", ledger_url, "--data-dir", str(tmp_path))
    await asyncio.to_thread(run, "archiver", "--once", *where, cwd=tmp_path)
    fence = RedisArchive(three_events.client, 1, 5_000)
    hold = await fence.take(0, "test", 1_000)
    assert isinstance(hold, Hold)
    await fence.halt(0, hold.generation, "it went back")
    await submit(three_events)
    # when it is to be sealed, then the reason is told
    halted = await asyncio.to_thread(run, "archiver", "--once", *where, cwd=tmp_path)
    assert halted.returncode == 1
    assert "partition 0 is not sealed: it went back" in halted.stderr
    # when somebody lets it go on, then it is
    let = await asyncio.to_thread(run, "archiver", "go-on", "0", *where, cwd=tmp_path)
    assert let.returncode == 0, let.stderr
    sealed = await asyncio.to_thread(run, "archiver", "--once", *where, cwd=tmp_path)
    assert sealed.stdout == "4 events are sealed\n"


async def test_what_a_ledger_has_beside_its_archive_is_not_dropped_unasked(
    three_events: RedisStore, ledger_url: str, tmp_path: Path
):
    # given a server that lost its last event, which was sealed, and had another one in its place
    where = ("--redis", ledger_url, "--data-dir", str(tmp_path))
    await asyncio.to_thread(run, "archiver", "--once", *where, cwd=tmp_path)
    events = PartitionKeys(0).events
    *kept, (last, fields) = await send(three_events.client, ("XRANGE", events, "-", "+"))
    other = [*fields[:11], b'{"actor":"another"}', *fields[12:]]
    await send(three_events.client, ("DEL", events))
    for name, own in (*kept, (last, other)):
        await send(three_events.client, ("XADD", events, name, *own))
    fence = RedisArchive(three_events.client, 1, 5_000)
    hold = await fence.take(0, "test", 1_000)
    assert isinstance(hold, Hold)
    await fence.halt(0, hold.generation, "it went back")
    # when somebody lets it go on, then he is told of that one, and nothing is decided
    refused = await asyncio.to_thread(run, "archiver", "go-on", "0", *where, cwd=tmp_path)
    assert refused.returncode == 1
    position = f"0:{last.decode()}"
    assert f"end at {position}: 1, from {position} to {position}." in refused.stderr
    assert (await fence.view(0)).halted
    # when he says that it may go, then it goes on
    let = await asyncio.to_thread(run, "archiver", "go-on", "0", "--drop", *where, cwd=tmp_path)
    assert let.returncode == 0, let.stderr
    assert not (await fence.view(0)).halted


async def test_keys_of_lost_tasks_are_not_free_unasked(
    store: RedisStore, ledger_url: str, tmp_path: Path
):
    # given a task that was begun with a key, sealed, and let go of, as its events were
    go_on = ("archiver", "go-on", "0", "--redis", ledger_url, "--data-dir", str(tmp_path))
    objects = LocalFolder(tmp_path / "objects")
    store.past = EvictedTasks(Archive(objects, "", 1), store.epoch)
    keyed = derived_id("kb", "order 17")
    await submit(store, task_id=keyed)
    task = (await transact(store, keyed, CancelTask())).task
    await seal_all(store, tmp_path)
    await let_go_of(store, task)
    assert await store.load(keyed) == task
    # when the archive is lost, and the key is met again, then nobody begins another one
    await asyncio.to_thread(shutil.rmtree, tmp_path / "objects")
    with pytest.raises(Rejection, match="the archive cannot be read"):
        await submit(store, task_id=keyed)
    # and nothing is sealed until somebody decides, knowing what that means
    with pytest.raises(LedgerWentBack, match="put the archive back that has them"):
        await seal_all(store, tmp_path)
    refused = await asyncio.to_thread(run, *go_on, cwd=tmp_path)
    assert refused.returncode == 1
    assert "their Idempotency-Keys make new tasks" in refused.stderr
    with pytest.raises(Rejection, match="the archive cannot be read"):
        await submit(store, task_id=keyed)
    # when that is decided, of a stream without events, then keys are taken at once, and there is an
    # archive again
    await store.client.xtrim(EVENTS, maxlen=0, approximate=False)
    went = await asyncio.to_thread(run, *go_on, "--forget", cwd=tmp_path)
    assert went.returncode == 0, went.stderr
    assert (await submit(store, task_id=keyed)).version == 1
    assert await seal_all(store, tmp_path) == 1
    # and it was decided this once
    await store.client.xtrim(EVENTS, maxlen=0, approximate=False)
    await asyncio.to_thread(shutil.rmtree, tmp_path / "objects")
    with pytest.raises(LedgerWentBack, match="put the archive back that has them"):
        await seal_all(store, tmp_path)
    await objects.close()


async def test_keys_of_tasks_that_the_stream_still_has_are_not_free(
    store: RedisStore, ledger_url: str, tmp_path: Path
):
    # given two tasks that were begun with keys, sealed, and let go of, one with its events
    where = ("--redis", ledger_url, "--data-dir", str(tmp_path))
    objects = LocalFolder(tmp_path / "objects")
    store.past = EvictedTasks(Archive(objects, "", 1), store.epoch)
    lost, kept = derived_id("kb", "order 17"), derived_id("kb", "order 18")
    ended: list[Ended] = []
    for task_id in (lost, kept):
        await submit(store, task_id=task_id)
        task = (await transact(store, task_id, CancelTask())).task
        ended.append(Ended(task_id, task.version, (await store.last_position(0)).entry))
    await seal_all(store, tmp_path)
    state = await store.archive_state(0)
    assert await store.evict(0, state.generation, state.sealed, state.size, ended) == 2
    first, *_ = await store.history(kept)
    await store.client.xtrim(EVENTS, minid=first.position.entry, approximate=False)
    # and given that the archive is lost, which somebody accepts
    await asyncio.to_thread(shutil.rmtree, tmp_path / "objects")
    with pytest.raises(LedgerWentBack):
        await seal_all(store, tmp_path)
    went = await asyncio.to_thread(run, "archiver", "go-on", "0", "--forget", *where, cwd=tmp_path)
    assert went.returncode == 0, went.stderr
    # when the keys are met before those events are sealed again, then none is taken
    for task_id in (lost, kept):
        with pytest.raises(Rejection, match="the archive cannot be read"):
            await submit(store, task_id=task_id)
    # when they are, then one is that of the task that was there, and the other is free
    assert await seal_all(store, tmp_path) == 3
    assert (await submit(store, task_id=kept)).version == 2
    assert (await submit(store, task_id=lost)).version == 1
    # and the archive is sound
    assert await seal_all(store, tmp_path) == 4
    await objects.close()
    verified = await asyncio.to_thread(run, "verify", *where, cwd=tmp_path)
    assert verified.returncode == 0, verified.stdout


async def seal_all(store: RedisStore, folder: Path) -> int:
    objects = LocalFolder(folder / "objects")
    return await Archiver(store, objects, ArchiverOptions(folder / "archive.key")).seal_once()


async def let_go_of(store: RedisStore, task: Task) -> None:
    """Of a task that is sealed, and of all events."""
    state = await store.archive_state(0)
    ended = Ended(task.id, task.version, state.sealed)
    assert await store.evict(0, state.generation, state.sealed, state.size, [ended]) == 1
    await store.client.xtrim(EVENTS, maxlen=0, approximate=False)
