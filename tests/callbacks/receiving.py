"""Other services as callbacks find them: real servers on loopback, some of them hostile."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from typing import Any, Final

import msgspec
from aiohttp import web
from standardwebhooks import Webhook

from consumers.notifier import Notifier, NotifierOptions
from consumers.posting import Lookup
from consumers.signatures import Signer
from ledger.allow_list import AllowList
from ledger.commands import CancelTask, CompleteTask, StartTask, SubmitTask
from ledger.retry_policy import RetryPolicy
from ledger.settings import Settings
from ledger.store import Recorded, Store
from ledger.task import Task
from ledger.transact import transact
from tests.contracts.store import new_id
from tests.given import a_submission

PATIENCE_S: Final = 20.0
KEY: Final = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
SOON: Final = RetryPolicy(base_ms=20, cap_ms=50)
PATIENT: Final = NotifierOptions(timeout_ms=10_000, lease_ms=20_000, policy=SOON)
DEFAULT_HOSTS: Final = Settings().callback_hosts


class Received(msgspec.Struct, frozen=True):
    """A post, as it arrived."""

    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def message(self) -> dict[str, Any]:
        return msgspec.json.decode(self.body)

    def verify(self, key: str) -> None:
        """Raises WebhookVerificationError unless it was signed with `key`."""
        Webhook(key).verify(self.body, dict(self.headers))


Behaviour = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Receiver:
    """A server that keeps what it was posted. It answers with each of `answers` in turn (a status,
    or a behaviour), then with the last one for ever."""

    def __init__(self, *answers: int | Behaviour) -> None:
        self._answers = list(answers or (200,))
        self._arrived = asyncio.Condition()
        self.received: list[Received] = []
        self.url = ""

    async def wait_for(self, count: int) -> list[Received]:
        """The posts, once there are so many."""
        async with asyncio.timeout(PATIENCE_S), self._arrived:
            await self._arrived.wait_for(lambda: len(self.received) >= count)
        return self.received

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        received = Received(request.path_qs, dict(request.headers), body)
        async with self._arrived:
            self.received.append(received)
            self._arrived.notify_all()
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        return web.Response(status=answer) if isinstance(answer, int) else await answer(request)


@contextlib.asynccontextmanager
async def receiving(*answers: int | Behaviour, host: str = "127.0.0.1") -> AsyncGenerator[Receiver]:
    """One that runs, on a free port."""
    receiver = Receiver(*answers)
    app = web.Application(client_max_size=1 << 24)
    app.router.add_route("*", "/{path:.*}", receiver.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, host, 0)
    await site.start()
    receiver.url = f"http://{host}:{runner.addresses[0][1]}"
    try:
        yield receiver
    finally:
        await runner.cleanup()


@contextlib.asynccontextmanager
async def notifying(
    store: Store,
    *,
    hosts: tuple[str, ...] = DEFAULT_HOSTS,
    keys: tuple[str, ...] = (KEY,),
    lookup: Lookup | None = None,
    **options: Any,
) -> AsyncGenerator[Notifier]:
    """A notifier that runs, and comes to an orderly end. It tries again soon."""
    chosen = msgspec.structs.replace(PATIENT, **options)
    notifier = Notifier(store, Signer(keys), AllowList(hosts), chosen, lookup=lookup)
    running = asyncio.create_task(notifier.run())
    try:
        yield notifier
        notifier.stop()
        async with asyncio.timeout(PATIENCE_S):
            await running
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def canceled(store: Store, url: str, **fields: Any) -> Task:
    """A task that has ended, and whose `url` is to hear of it."""
    task = await submitted(store, url, **fields)
    return (await transact(store, task.id, CancelTask())).task


async def completed(store: Store, url: str, result: bytes, **fields: Any) -> Task:
    """The same with a result."""
    task = await submitted(store, url, **fields)
    await transact(store, task.id, StartTask(1, "w1", 600_000))
    return (await transact(store, task.id, CompleteTask(1, msgspec.Raw(result)))).task


async def submitted(store: Store, url: str, **fields: Any) -> Task:
    submission = a_submission(callback_url=url, **fields)
    return (await transact(store, new_id(), SubmitTask(submission))).task


async def settled(store: Store, task: Task) -> list[Recorded]:
    """What became of the task's callback, once nothing more will."""
    return await until(store, task, lambda found: found.state.callback_over)


async def tried(store: Store, task: Task, times: int = 1) -> list[Recorded]:
    """What became of it, once it was tried so often."""
    return await until(store, task, lambda found: found.state.callback_attempts >= times)


async def until(store: Store, task: Task, holds: Callable[[Task], bool]) -> list[Recorded]:
    async with asyncio.timeout(PATIENCE_S):
        position = await store.last_position(store.partition_of(task.id))
        while True:
            found = await store.load(task.id)
            assert found is not None
            if holds(found):
                history = await store.history(task.id)
                return [event for event in history if event.type.startswith("Callback")]
            events = await store.events_after(position, 100, 200)
            position = events[-1].position if events else position
