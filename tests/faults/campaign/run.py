"""Makes a plan happen, with real processes and servers, and gathers the evidence."""

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any, Final

import httpx2
import msgspec

from ledger.identity import SYSTEM
from ledger.keys import PartitionKeys
from ledger.redis_store import RedisStore, StoreOptions
from ledger.store import Position, Recorded
from tests.checks import read_all
from tests.faults.campaign.checkers import FINALS
from tests.faults.campaign.clients import Clients
from tests.faults.campaign.evidence import Evidence, Injected, Span, is_within, read_runs
from tests.faults.campaign.ledgers import OneLedger, small_disk, two_ledgers
from tests.faults.campaign.operators import Operator
from tests.faults.campaign.plan import (
    OF_CHILDREN,
    OF_PROCESSES,
    POOL,
    ROLES,
    VALKEY,
    Fault,
    Kind,
    Plan,
)
from tests.faults.program import ROOT, Program
from tests.faults.proxy import Proxy, run_tcp_proxy
from tests.faults.replicas import Pair, command, free_port, info

POOL_PROCESSES: Final = 2

SETTINGS: Final = {
    "LEDGERQ_HANDLERS": "tests.faults.campaign.handlers",
    "LEDGERQ_LEASE_MS": "2000",
    "LEDGERQ_HEARTBEAT_MS": "200",
    "LEDGERQ_PENDING_IDLE_MS": "300",
    "LEDGERQ_RETRY_BASE_MS": "50",
    "LEDGERQ_RETRY_CAP_MS": "500",
    "LEDGERQ_REDIS_TIMEOUT_MS": "1000",
    "LEDGERQ_CONCURRENCY": "20",
    "LEDGERQ_DRAIN_TIMEOUT_MS": "5000",
    "LEDGERQ_LOG_LEVEL": "info",
    "LEDGERQ_LOG_FORMAT": "json",
}
PATIENT: Final = StoreOptions(timeout_ms=15_000)
DONE_TIMEOUT_S: Final = 60.0
START_TIMEOUT_S: Final = 60.0
LAG_S: Final = 1.0
"""A replica may be so far behind when its primary is lost, and an acknowledgement so long on its
way to the client's log."""


class Outcome(msgspec.Struct, frozen=True):
    """Of a run: the evidence, and figures for people."""

    evidence: Evidence
    refused: int
    seconds: float


class Skipped(Exception):
    """This plan cannot be carried out here; says why."""


class Service:
    """The roles of a service, each behind a line of its own to the ledger."""

    def __init__(self, folder: Path, ledger: OneLedger | Pair) -> None:
        self.folder = folder
        self.ledger = ledger
        self.proxies: dict[str, Proxy] = {}
        self.roles: dict[str, Program] = {}
        self.injected: list[Injected] = []
        self.oddities: list[str] = []
        self.losable: list[Span] = []
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._locks = {target: asyncio.Lock() for target in (*ROLES, VALKEY)}

    @property
    def ledger_url(self) -> str:
        return self.ledger.url if isinstance(self.ledger, OneLedger) else self.ledger.leading.url

    @property
    def model_folder(self) -> Path:
        return self.folder / "read-model"

    async def start(self, stack: contextlib.AsyncExitStack) -> None:
        """Start every role; return when the API answers that it is ready."""
        (self.folder / "handlers").mkdir()
        for role in ROLES:
            proxy = await stack.enter_async_context(run_tcp_proxy(self.ledger_url))
            self.proxies[role] = proxy
            program = Program(
                self.folder / f"{role}.log", self._env(role, proxy), *self._arguments(role)
            )
            self.roles[role] = program
            stack.push_async_callback(self._end, program)
            await self._start_role(role)
        await self._until_ready()

    def _env(self, role: str, proxy: Proxy) -> dict[str, str]:
        return {
            **SETTINGS,
            "LEDGERQ_REDIS_URL": proxy.url,
            "LEDGERQ_READ_MODEL_DIR": str(self.model_folder),
            "LEDGERQ_DATA_DIR": str(self.folder / "node"),
            "FAULTS_LOG_DIR": str(self.folder / "handlers"),
            "FAULTS_ROLE": role,
        }

    def _arguments(self, role: str) -> tuple[str, ...]:
        if role == "api":
            return ("api.cli", "api", "--port", str(self.port), "--grpc-port", "0")
        if role == POOL:
            return ("api.cli", "worker", "--processes", str(POOL_PROCESSES))
        return ("consumers.roles", role.partition("-")[0], role)

    async def _start_role(self, role: str) -> None:
        await self.roles[role].start()

    async def _until_ready(self) -> None:
        async with asyncio.timeout(START_TIMEOUT_S), httpx2.AsyncClient(base_url=self.url) as http:
            while True:
                with contextlib.suppress(httpx2.TransportError):
                    if (await http.get("/readyz")).status_code == 200:
                        return
                await asyncio.sleep(0.05)

    @staticmethod
    async def _end(program: Program) -> None:
        with contextlib.suppress(ProcessLookupError):
            program.send(signal.SIGCONT)
        await program.kill()

    # -- faults -------------------------------------------------------------------------------

    async def inject(self, fault: Fault, clients: Clients) -> None:
        """Let it happen, and end. One at a time for each target. A busy machine may be late with
        its tasks: then it comes later too, to meet the work that it is meant for."""
        await asyncio.sleep(fault.at_s)
        while clients.seconds_worth < fault.at_s:  # noqa: ASYNC110 - clients are many
            await asyncio.sleep(0.02)
        async with self._locks[fault.target]:
            began = time.monotonic()
            if fault.target == VALKEY:
                await self._fault_of_valkey(fault)
            elif fault.kind in OF_PROCESSES:
                await self._fault_of_process(fault)
            elif fault.kind in OF_CHILDREN:
                await self._fault_of_child(fault)
            else:
                await _fault_of_line(self.proxies[fault.target], fault)
            over = time.monotonic()
            self.injected.append(Injected(fault.kind, fault.target, began, over))

    async def _fault_of_process(self, fault: Fault) -> None:
        program = self.roles[fault.target]
        self._notice_end(fault.target)
        if fault.kind is Kind.KILL:
            await program.kill()
            await asyncio.sleep(fault.lasts_s)
            await self._start_role(fault.target)
        elif program.exit_code is None:
            program.send(signal.SIGSTOP)
            await asyncio.sleep(fault.lasts_s)
            program.send(signal.SIGCONT)

    async def _fault_of_child(self, fault: Fault) -> None:
        """Of a process of the pool: which one is up to the machine; its supervisor goes on."""
        children = _children_of(self.roles[fault.target].pid)
        if not children:
            return
        child = children[int(fault.at_s * 1_000) % len(children)]
        with contextlib.suppress(ProcessLookupError):
            if fault.kind is Kind.KILL_CHILD:
                os.kill(child, signal.SIGKILL)
                return
            os.kill(child, signal.SIGSTOP)
            try:
                await asyncio.sleep(fault.lasts_s)
            finally:
                # Nobody else would let it go on, not even to its end.
                os.kill(child, signal.SIGCONT)

    def _notice_end(self, role: str) -> None:
        code = self.roles[role].exit_code
        if code is not None:
            self.oddities.append(f"{role} ended by itself, with {code}: see its log")

    async def _fault_of_valkey(self, fault: Fault) -> None:
        if isinstance(self.ledger, Pair):
            if fault.kind is Kind.FAIL_OVER:
                await self._fail_over(self.ledger)
            else:
                await self._fail_over_with_loss(self.ledger, fault.lasts_s)
            return
        match fault.kind:
            case Kind.STOP:
                self.ledger.signal(signal.SIGSTOP)
                await asyncio.sleep(fault.lasts_s)
                self.ledger.signal(signal.SIGCONT)
            case Kind.FORGET:
                await self.ledger.forget_scripts()
            case Kind.DISK_FULL:
                await self._fill_disk(self.ledger, fault.lasts_s)
            case _:
                await self._kill_ledger(self.ledger)
                await asyncio.sleep(fault.lasts_s)
                await self._start_ledger(self.ledger, fault.kind)

    async def _kill_ledger(self, ledger: OneLedger) -> None:
        began = time.monotonic() - ledger.forgets_s
        await ledger.kill()
        if ledger.forgets_s:
            self.losable.append((began, time.monotonic() + LAG_S))

    async def _start_ledger(self, ledger: OneLedger, kind: Kind) -> None:
        if kind is Kind.TORN_FILE:
            wrong = await ledger.start_with_torn_file()
        elif kind is Kind.CORRUPT_FILE:
            wrong = await ledger.start_with_corrupt_file()
        else:
            await ledger.start()
            wrong = ""
        if wrong:
            self.oddities.append(wrong)

    async def _fill_disk(self, ledger: OneLedger, lasts_s: float) -> None:
        """With `always` the server ends when it cannot write; with `everysec` it refuses writes."""
        ballast = ledger.fill_disk()
        try:
            ended = await ledger.has_ended(lasts_s)
        finally:
            ballast.unlink()
        if ended or await ledger.has_ended(0.5):
            await ledger.tidy_up()
            await ledger.start()

    async def _fail_over(self, pair: Pair) -> None:
        """As an operator does it: nothing is lost."""
        await command(pair.primary, "FAILOVER")
        async with asyncio.timeout(START_TIMEOUT_S):
            # Nobody tells when it is done: it is asked.
            while (await info(pair.replica, "replication"))["role"] != "master":  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        self._lead_to_replica(pair)

    async def _fail_over_with_loss(self, pair: Pair, lasts_s: float) -> None:
        """As when a primary is lost that its replica no longer heard of."""
        began = time.monotonic() - LAG_S
        await pair.take_over()
        await asyncio.sleep(lasts_s)
        self._lead_to_replica(pair)
        await pair.demote()
        self.losable.append((began, time.monotonic() + LAG_S))

    def _lead_to_replica(self, pair: Pair) -> None:
        pair.leading = pair.replica
        for proxy in self.proxies.values():
            proxy.move(pair.replica.url)

    # -- the end ------------------------------------------------------------------------------

    async def until_level(self) -> str:
        """Return how the read model is, once it has seen everything, or stands still."""
        async with httpx2.AsyncClient(base_url=self.url, timeout=10) as http:
            deadline = time.monotonic() + DONE_TIMEOUT_S
            while time.monotonic() < deadline:
                with contextlib.suppress(httpx2.TransportError):
                    # While an API that was just started opens the ledger, it has no database.
                    found = (await http.get("/health")).json()["details"].get("database", {})
                    status = found.get("status", "")
                    if status == "stopped" or found.get("lag_events") == 0:
                        return status
                await asyncio.sleep(0.1)
        return "behind"

    async def stop(self) -> None:
        """SIGTERM to every role; each ends in order."""
        for role, program in self.roles.items():
            self._notice_end(role)
            await program.stop()
            if program.exit_code != 0:
                self.oddities.append(f"{role} ended with {program.exit_code} after SIGTERM")


def _children_of(pid: int) -> list[int]:
    """As the kernel tells it; none where it does not."""
    try:
        return [*map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]
    except OSError:
        return []


async def _fault_of_line(proxy: Proxy, fault: Fault) -> None:
    match fault.kind:
        case Kind.CUT:
            await proxy.cut()
        case Kind.REFUSE:
            await proxy.refuse()
            await asyncio.sleep(fault.lasts_s)
            proxy.accept()
        case Kind.SILENCE:
            proxy.fall_silent()
            await asyncio.sleep(fault.lasts_s)
            proxy.speak()
        case Kind.DELAY:
            proxy.slow_down(delay_s=0.05)
            await asyncio.sleep(fault.lasts_s)
            proxy.slow_down()
        case _:
            proxy.slow_down(bytes_per_s=50_000)
            await asyncio.sleep(fault.lasts_s)
            proxy.slow_down()


async def run(plan: Plan, folder: Path) -> Outcome:
    """Carry a plan out in an empty folder. Raises Skipped."""
    began = time.monotonic()
    async with contextlib.AsyncExitStack() as stack:
        ledger = await _open_ledger(plan, folder, stack)
        service = Service(folder, ledger)
        await service.start(stack)
        clients = Clients(plan, service.url, folder / "acknowledged.jsonl")
        operator = Operator(plan, service.url)
        await operator.begin()
        async with asyncio.TaskGroup() as group:
            group.create_task(clients.run())
            group.create_task(operator.run())
            for fault in plan.faults:
                group.create_task(service.inject(fault, clients))
        # Once more: a fail-over may have lost it.
        await operator.resume()
        evidence = await _gather(service, clients)
    return Outcome(evidence, clients.refused, time.monotonic() - began)


async def _open_ledger(
    plan: Plan, folder: Path, stack: contextlib.AsyncExitStack
) -> OneLedger | Pair:
    if plan.has_replica:
        return await stack.enter_async_context(two_ledgers())
    if plan.has_small_disk:
        try:
            stack.enter_context(small_disk(folder / "data"))
        except OSError as error:
            raise Skipped(f"no small disk here: {error}") from error
    ledger = OneLedger(folder / "data", plan.durability)
    await stack.enter_async_context(_running(ledger))
    return ledger


@contextlib.asynccontextmanager
async def _running(ledger: OneLedger) -> AsyncGenerator[None]:
    await ledger.start()
    try:
        yield
    finally:
        await ledger.stop()


async def _gather(service: Service, clients: Clients) -> Evidence:
    store = await RedisStore.open(service.ledger_url, PATIENT)
    try:
        await _until_done(store, clients, service)
        status = await service.until_level()
        await service.stop()
        differences = await _check_read_model(service, status)
        events = [event for p in range(store.partitions) for event in await read_all(store, p)]
        ids = {event.task_id for event in events} - {SYSTEM}
        snapshots = {task_id: await store.load(task_id) for task_id in ids}
        clock_s = store.now_ms() / 1000 - time.monotonic()
        left = [await store.client.zcard(key) for key in _places(store)]
    finally:
        await store.close()
    if any(left):
        service.oddities.append(f"{left} members are left among what is due and leased")
    return Evidence(
        acknowledged=clients.acknowledged,
        sent=clients.sent,
        canceled=clients.canceled,
        runs=read_runs(service.folder / "handlers"),
        events=events,
        snapshots=snapshots,
        faults=service.injected,
        clock_s=clock_s,
        losable=service.losable,
        rebuild_differences=differences,
        oddities=service.oddities,
    )


def _places(store: RedisStore) -> list[str]:
    names = [PartitionKeys(partition) for partition in range(store.partitions)]
    return [key for each in names for key in (each.due, each.leases)]


async def _until_done(store: RedisStore, clients: Clients, service: Service) -> None:
    """Return when every task in the ledger, and every acknowledged one, has come to its end; or
    after a while, for the checkers to say what did not."""
    done, known = set[str](), set[str]()
    position = Position(0, "0-0")
    wanted = {
        task_id
        for task_id, at in clients.acknowledged.items()
        if not is_within(service.losable, at)
    }
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(DONE_TIMEOUT_S):
            while not wanted <= done or not known <= done or not known:
                events: list[Recorded] = await store.events_after(position, 1_000, wait_ms=500)
                for event in events:
                    position = event.position
                    if event.task_id != SYSTEM:
                        known.add(event.task_id)
                    if event.type in FINALS:
                        done.add(event.task_id)


async def _check_read_model(service: Service, status: str) -> list[str]:
    """What `ledgerq rebuild --check` finds. After a loss a read model that had seen what
    was lost must have stopped, and a rebuild is what helps."""
    code, told = await _ledgerq(service, "rebuild", "--check", "--json")
    if code == 0 and status != "stopped":
        return []
    if not service.losable or status != "stopped":
        return [f"the read model is {status}, the check ended with {code}: {told}"]
    await _ledgerq(service, "rebuild")
    code, told = await _ledgerq(service, "rebuild", "--check", "--json")
    return [] if code == 0 else [f"rebuilt after a loss, the check ended with {code}: {told}"]


async def _ledgerq(service: Service, *arguments: str) -> tuple[int | None, Any]:
    """Run a command of ours on the ledger as it is in the end."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "api.cli", *arguments),
        *("--redis", service.ledger_url, "--read-model-dir", str(service.model_folder)),
        cwd=ROOT,
        env={**os.environ, "NO_COLOR": "1"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    text = output.decode(errors="replace")
    with contextlib.suppress(json.JSONDecodeError):
        return process.returncode, json.loads(text)
    return process.returncode, text.strip()
