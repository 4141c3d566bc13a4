"""A few short runs of the campaign, and proof that its checkers would speak up.

`make faults` runs whole ones.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Collection
from pathlib import Path
from typing import Literal

import msgspec
import pytest
from uuid_utils import uuid7

from consumers import Context
from consumers.scheduler import Scheduler
from consumers.service import Service as Role
from consumers.worker import Worker
from ledger.codec import Meta, encode
from ledger.commands import SubmitTask
from ledger.events import Priority
from ledger.redis_store import RedisStore
from ledger.store import Position, Recorded
from ledger.system.commands import PauseQueue, ResumeQueue, SetLimit
from ledger.system.events import LimitScope
from ledger.system.transact import transact_system
from ledger.transact import transact
from projections.check import check
from tests.checks import read_all
from tests.consumers.working import AT_ONCE, PATIENCE_S, QUICK, handles
from tests.faults.campaign import broken, checkers
from tests.faults.campaign.checkers import CHECKERS, FINALS, judge
from tests.faults.campaign.clients import Clients
from tests.faults.campaign.evidence import (
    Evidence,
    Injected,
    Run,
    Sent,
    Step,
    encode_step,
    read_runs,
)
from tests.faults.campaign.journal import Journal
from tests.faults.campaign.ledgers import OneLedger
from tests.faults.campaign.plan import VALKEY, Fault, Kind, Plan, plan
from tests.faults.campaign.run import Service, run
from tests.given import a_submission
from tests.projections.watching import projecting

SHORT_SEEDS = (1, 2)
META = Meta("operator")


@pytest.fixture(autouse=True)
def _quick_to_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("consumers.claiming.READY_WAIT_MS", 50)


@pytest.mark.timeout(240)
async def test_short_runs_are_in_order(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Side by side: most of a run is waiting, for faults to end and for leases to run out."""
    plans = [plan(seed, seconds=2.0, tasks=60, faults=2) for seed in SHORT_SEEDS]
    folders = [tmp_path_factory.mktemp(f"seed-{seed}-") for seed in SHORT_SEEDS]
    async with asyncio.TaskGroup() as group:
        runs = [group.create_task(run(*each)) for each in zip(plans, folders, strict=True)]

    for folder, done in zip(folders, runs, strict=True):
        evidence = done.result().evidence
        assert judge(evidence) == {}, f"the logs and the data are in {folder}"
        assert len(evidence.acknowledged) == 60


def test_a_seed_always_draws_the_same_plan() -> None:
    assert [plan(seed) for seed in range(50)] == [plan(seed) for seed in range(50)]


def test_twenty_seeds_have_every_kind_of_fault() -> None:
    drawn = [plan(seed) for seed in range(20)]

    assert {fault.kind for each in drawn for fault in each.faults} == set(Kind)
    assert {each.durability for each in drawn} == {"always", "everysec"}


# -- the control: every checker catches the store that breaks what it looks after ----------------

BROKEN = {
    checkers.nothing_lost: broken.Forgetful,
    checkers.as_submitted: broken.Altering,
    checkers.one_final_state: broken.EndsTwice,
    checkers.contiguous_versions: broken.Skipping,
    checkers.legal_transitions: broken.Lawless,
    checkers.snapshots_are_folds: broken.Drifting,
    checkers.results_are_of_runs: broken.Forging,
    checkers.no_overlap: broken.Deaf,
    checkers.limits_hold: broken.Unlimited,
    checkers.pauses_hold: broken.Restless,
    checkers.projections_equal_a_rebuild: broken.Squinting,
    checkers.all_as_planned: broken.Crashing,
}


def test_every_checker_has_a_store_to_catch() -> None:
    assert list(BROKEN) == list(CHECKERS)


@pytest.mark.parametrize(
    ("name", "kind"), [(c.__name__, kind) for c, kind in BROKEN.items()], ids=str
)
async def test_a_broken_store_is_caught(
    name: str, kind: type[RedisStore], ledger_url: str, tmp_path: Path
) -> None:
    assert name in judge(await control_run(kind, ledger_url, tmp_path))


def test_only_what_may_be_lost_is_excused() -> None:
    """With `everysec`, what was acknowledged shortly before the server is killed."""
    acknowledged = {"before": 3.9, "within": 4.0, "late": 6.1}
    evidence = Evidence(
        acknowledged=acknowledged,
        sent={},
        canceled={},
        runs=(),
        events=(),
        snapshots={},
        losable=[(1.0, 2.0), (4.0, 6.0)],
    )

    missing = [wrong.split()[0] for wrong in checkers.nothing_lost(evidence)]

    assert missing == ["before", "late"]


def overlapping(*faults: Injected) -> list[str]:
    """What is said of an attempt that ran on for 9 s beside the next one, which began at 1 s."""
    earlier = Run("a", "task", 1, "worker-1", began=0.0, last=10.0, ended=True)
    later = Run("b", "task", 2, "pool", began=1.0, last=3.0, ended=True)
    evidence = Evidence(
        acknowledged={},
        sent={},
        canceled={},
        runs=(earlier, later),
        events=(),
        snapshots={},
        faults=faults,
        overlap_s=3.0,
    )
    return list(checkers.no_overlap(evidence))


@pytest.mark.parametrize(
    "faults",
    [
        [("worker-1", 0.5, 7.0)],
        [(VALKEY, 3.9, 7.0)],
        [("worker-1", 0.5, 2.0), (VALKEY, 4.9, 7.0)],
        [(VALKEY, 4.9, 7.0), ("worker-1", 0.5, 2.0)],
    ],
    ids=["before", "within the bound", "one after another", "in any order"],
)
def test_an_overlap_is_excused_by_what_kept_its_worker_from_hearing(
    faults: list[tuple[str, float, float]],
) -> None:
    assert overlapping(*(Injected(Kind.STOP, *fault) for fault in faults)) == []


@pytest.mark.parametrize(
    "faults",
    [
        [],
        [(VALKEY, 9.99, 9.995)],
        [("worker-1", 4.1, 10.0)],
        [("worker-1", 0.5, 6.9)],
        [("pool", 0.5, 10.0)],
        [("worker-1", 0.5, 2.0), (VALKEY, 5.1, 10.0)],
    ],
    ids=["none", "at its end", "too late", "over too early", "another worker's", "with a gap"],
)
def test_an_overlap_is_excused_by_nothing_else(faults: list[tuple[str, float, float]]) -> None:
    [wrong] = overlapping(*(Injected(Kind.STOP, *fault) for fault in faults))

    assert wrong == "attempt 1 of task ran on for 9.0 s"


def test_a_task_that_nobody_submitted_is_noticed(a_task: Recorded) -> None:
    sent = {a_task.task_id: Sent("kb", "work", Priority.NORMAL, b"{}")}

    assert [*checkers.as_submitted(of_one(a_task, sent))] == []
    assert len([*checkers.as_submitted(of_one(a_task, {}))]) == 1


@pytest.mark.parametrize(
    "other",
    [
        Sent("kc", "work", Priority.NORMAL, b"{}"),
        Sent("kb", "toil", Priority.NORMAL, b"{}"),
        Sent("kb", "work", Priority.LOW, b"{}"),
        Sent("kb", "work", Priority.NORMAL, b'{"a":1}'),
    ],
    ids=["kb_id", "type", "priority", "payload"],
)
def test_a_task_that_is_not_what_was_submitted_is_noticed(a_task: Recorded, other: Sent) -> None:
    assert len([*checkers.as_submitted(of_one(a_task, {a_task.task_id: other}))]) == 1


@pytest.fixture
def a_task() -> Recorded:
    """The event of a submission."""
    data = encode(a_submission(task_type="work"))
    return Recorded(Position(0, "1-0"), "TaskSubmitted", "task", 1, 1, data, b"{}", "")


def of_one(event: Recorded, sent: dict[str, Sent]) -> Evidence:
    return Evidence(acknowledged={}, sent=sent, canceled={}, runs=(), events=(event,), snapshots={})


def test_a_last_line_that_was_cut_off_is_passed_over(tmp_path: Path) -> None:
    began = encode_step(Step("began", "run", "task", 1, "worker-1", 1.0)) + b"\n"
    ended = encode_step(Step("ended", "run", "task", 1, "worker-1", 2.0)) + b"\n"
    log = tmp_path / "11.log"

    log.write_bytes(began + ended[:-1])
    assert [(run.last, run.ended) for run in read_runs(tmp_path)] == [(1.0, False)]

    log.write_bytes(began + ended)
    assert [(run.last, run.ended) for run in read_runs(tmp_path)] == [(2.0, True)]

    log.write_bytes(began[:-3] + b"\n" + ended)
    with pytest.raises(msgspec.DecodeError):
        read_runs(tmp_path)


@pytest.mark.parametrize(("durability", "windows"), [("always", 0), ("everysec", 1)])
async def test_a_killed_server_may_forget_with_everysec_alone(
    durability: Literal["always", "everysec"], windows: int, tmp_path: Path
) -> None:
    ledger = OneLedger(tmp_path / "data", durability)
    service = Service(tmp_path, ledger)
    await ledger.start()
    try:
        clients = Clients(plan(0), service.url, tmp_path / "acknowledged.jsonl")
        await service.inject(Fault(Kind.KILL, VALKEY, at_s=0, lasts_s=0), clients)
    finally:
        await ledger.stop()

    assert len(service.losable) == windows


async def test_a_sound_store_is_found_in_order(ledger_url: str, tmp_path: Path) -> None:
    assert judge(await control_run(broken.Sound, ledger_url, tmp_path)) == {}


class Submitted:
    """What a store was given, as clients write it down: all of it was acknowledged."""

    def __init__(self, store: RedisStore) -> None:
        self._store = store
        self.sent: dict[str, Sent] = {}

    async def add(self, kind: str, kb_id: str, ticks: int) -> str:
        task_id, payload = str(uuid7()), b'{"ticks":%d}' % ticks
        self.sent[task_id] = Sent(kb_id, kind, Priority.HIGH, payload)
        submission = a_submission(
            task_type=kind, kb_id=kb_id, payload=payload, priority=Priority.HIGH
        )
        await transact(self._store, task_id, SubmitTask(submission))
        return task_id


@contextlib.asynccontextmanager
async def worked_on(
    store: RedisStore, journal: Journal, oddities: list[str]
) -> AsyncGenerator[None]:
    """A worker and a scheduler meanwhile."""

    async def work(context: Context, payload: dict[str, int]) -> str:
        with journal.run(context) as run:
            for _ in range(payload["ticks"]):
                await asyncio.sleep(0.1)  # it is about time: leases run out meanwhile
                run.note("works")
            return run.name

    options = msgspec.structs.replace(QUICK, lease_ms=300)
    handlers = {kind: handles(kind, work) for kind in ("work", "brief", "later")}
    worker = Worker(store, handlers, options, worker_id="w")
    scheduler = Scheduler(store, sweep_interval_ms=20, outage_grace_s=0, retry=AT_ONCE).service
    async with _watched(worker, oddities), _watched(scheduler, oddities):
        yield


async def control_run(kind: type[RedisStore], url: str, folder: Path) -> Evidence:
    """Three tasks on a store of this kind, worked on and projected, beside two that are limited and
    one that is paused; the evidence is gathered through a sound one."""
    sound, store = await RedisStore.open(url), await kind.open(url)
    journal, submitted = Journal(folder), Submitted(store)
    oddities: list[str] = []
    limited = await transact_system(sound, SetLimit(LimitScope.KB, "limited", 1), META)
    await store.spread_limits(limited.system)
    await transact_system(sound, PauseQueue("later"), META)
    for _ in range(2):
        await submitted.add("brief", "limited", 0)
    later = await submitted.add("later", "kb", 0)
    async with worked_on(store, journal, oddities):
        for _ in range(3):
            await submitted.add("work", "kb", 10)
        await _until_ended(sound, {later})
        await transact_system(sound, ResumeQueue("later"), META)
        await _until_ended(sound)
    differences = await _differences(kind, store, sound, folder)
    events = await read_all(sound, 0)
    clock_s = sound.now_ms() / 1000 - time.monotonic()
    ids = {event.task_id for event in events if not event.of_system}
    snapshots = {task_id: await sound.load(task_id) for task_id in ids}
    journal.close()
    await store.close()
    await sound.close()
    return Evidence(
        acknowledged=dict.fromkeys(submitted.sent, 0.0),
        sent=submitted.sent,
        canceled={},
        runs=read_runs(folder),
        events=events,
        snapshots=snapshots,
        overlap_s=0.3,
        learned_s=0.0,
        clock_s=clock_s,
        rebuild_differences=differences,
        oddities=oddities,
    )


@contextlib.asynccontextmanager
async def _watched(role: Worker | Role, oddities: list[str]) -> AsyncGenerator[None]:
    """Run a role meanwhile, and take note when it ends by itself."""
    running = asyncio.create_task(role.run())
    try:
        yield
    finally:
        role.stop()
        async with asyncio.timeout(PATIENCE_S):
            await asyncio.wait([running])
        if running.exception() is not None:
            oddities.append(f"a role ended by itself: {running.exception()}")


async def _until_ended(store: RedisStore, but: Collection[str] = ()) -> None:
    """Until every task that is there has ended, but for some."""
    known, ended = set[str](), set[str]()
    position = Position(0, "0-0")
    async with asyncio.timeout(PATIENCE_S):
        while True:
            events = await store.events_after(position, 1_000, wait_ms=200)
            known |= {event.task_id for event in events if not event.of_system}
            ended |= {event.task_id for event in events if event.type in FINALS}
            if known - ended <= set(but):
                return
            position = events[-1].position if events else position


async def _differences(
    kind: type[RedisStore], store: RedisStore, sound: RedisStore, folder: Path
) -> list[str]:
    """What a check finds of a read model that was made through `store`. A ledger that was meddled
    with has none: the projector stops there."""
    if kind not in (broken.Sound, broken.Squinting):
        return []
    async with projecting(store, folder / "read-model") as watched:
        await watched.level()
        found = await check(watched.files, sound)
    return [
        f"{each.projection}: {each.difference}" for each in found.projections if each.difference
    ]


def test_the_plan_is_what_it_says() -> None:
    drawn = plan(5)

    assert isinstance(drawn, Plan)
    assert (drawn.has_replica, drawn.has_small_disk) == (True, False)
