"""The processes of a bench, one role each: `python -m bench.roles ROLE OPTIONS`, OPTIONS as JSON.

A role writes one line of JSON when it is ready, waits for a line on stdin, does its work and writes
its outcome as another line; servers end when stdin does.
"""

import asyncio
import logging
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Final

import msgspec
import structlog
import uvloop

from bench.servers import BenchServer
from bench.workload import PAYLOAD, submit
from ledger.settings import Settings


class Ready(msgspec.Struct, tag=True, frozen=True):
    """The role waits for the word to begin. Servers name their URL."""

    url: str = ""


class Worked(msgspec.Struct, tag=True, frozen=True):
    """When the work began and ended, in s of the machine's monotonic clock."""

    began: float
    ended: float
    waits_ms: tuple[float, ...] = ()
    lost: int = 0
    doubled: int = 0


Message = Ready | Worked


class Options(msgspec.Struct, frozen=True):
    """What a role is to do; each needs some of these."""

    redis_url: str = ""
    count: int = 0
    concurrency: int = 100
    at_once: int = 1
    together: bool = True
    light: bool = False
    target: str = ""
    """Where the service listens."""
    seconds: int = 0
    cuts: int = 0
    """How often each connection is cut."""
    read_model_dir: str | None = None
    data_dir: str = ".ledgerq"


async def submitter(options: Options) -> None:
    """Submits `count` tasks through `transact`, `concurrency` at once."""
    server = BenchServer(options.redis_url)
    async with server.store() as store:
        await _begin()
        began, ended = await submit(store, options.count, options.concurrency)
        _tell(Worked(began, ended))
        await _line()
    await server.client.aclose()


async def worker(options: Options) -> None:
    """One worker process, until it has ended `count` tasks."""
    from bench.handlers import waits_ms
    from consumers.collector import collect_rarely
    from consumers.handlers import load_handlers
    from consumers.worker import Worker, WorkerOptions

    server = BenchServer(options.redis_url)
    async with server.store() as store:
        worker_options = WorkerOptions(concurrency=options.concurrency)
        worker = Worker(store, load_handlers("bench.handlers"), worker_options)
        collect_rarely()
        await _begin()
        loop = asyncio.get_running_loop()
        began = loop.time()
        running = asyncio.create_task(worker.run())
        # A worker tells how many it has ended, and sets no event for that.
        while worker.tasks_taken < options.count and not running.done():  # noqa: ASYNC110
            await asyncio.sleep(POLL_S)
        _tell(Worked(began, loop.time(), tuple(waits_ms)))
        await _line()
        worker.stop()
        await running
    await server.client.aclose()


async def api(options: Options) -> None:
    """The API in one process, as `ledgerq api` serves it."""
    from api.server import serve

    settings = Settings(
        redis_url=options.redis_url,
        port=0,
        data_dir=options.data_dir,
        read_model_dir=options.read_model_dir,
    )
    await _serve_until_end(lambda stop: serve(settings, stop=stop, on_started=_listening))


async def grpc_api(options: Options) -> None:
    """The same, for those who speak gRPC."""
    from api.server import serve

    def listening(port: int) -> None:
        _tell(Ready(f"127.0.0.1:{port}"))

    settings = Settings(redis_url=options.redis_url, port=0, read_model_dir=options.read_model_dir)
    async with BenchServer(options.redis_url).store() as store:
        await _serve_until_end(
            lambda stop: serve(settings, store, stop=stop, on_grpc_started=listening)
        )


async def remote_worker(options: Options) -> None:
    """A worker that speaks gRPC, until it has ended `count` tasks: `concurrency` loops that each
    take `at_once` tasks at a time, and end them `together` or one by one."""
    from bench.remote import work

    await _begin()
    began, ended = await work(
        options.target,
        options.count,
        options.concurrency,
        options.at_once,
        together=options.together,
        light=options.light,
    )
    _tell(Worked(began, ended))
    await _line()


async def projector(options: Options) -> None:
    """One projector process, as `ledgerq projector` runs it."""
    from consumers.collector import collect_rarely
    from consumers.roles import make_projector

    server = BenchServer(options.redis_url)
    async with server.store() as store:
        settings = Settings(redis_url=options.redis_url, read_model_dir=options.read_model_dir)
        role = make_projector(settings)(store)
        collect_rarely()
        await _begin()
        running = asyncio.create_task(role.run())
        await _line()
        role.stop()
        await running
    await server.client.aclose()


async def rebuilder(options: Options) -> None:
    """One rebuild of the read model, as `ledgerq rebuild` does it."""
    from consumers.collector import collect_rarely
    from projections.model_files import ModelFiles
    from projections.rebuild import Rebuild

    assert options.read_model_dir is not None
    server = BenchServer(options.redis_url)
    async with server.store() as store:
        collect_rarely()
        await _begin()
        loop = asyncio.get_running_loop()
        began = loop.time()
        rebuild = Rebuild(ModelFiles(Path(options.read_model_dir)), store)
        await rebuild.build()
        await rebuild.swap()
        _tell(Worked(began, loop.time()))
        await _line()
    await server.client.aclose()


async def archiver(options: Options) -> None:
    """One archiver that seals everything in the ledger, into `data_dir`."""
    from consumers.archiver import Archiver, archiver_options
    from consumers.collector import collect_rarely
    from ledger.objects import open_objects

    server, settings = BenchServer(options.redis_url), Settings(data_dir=options.data_dir)
    async with server.store() as store:
        role = Archiver(store, open_objects(settings), archiver_options(settings))
        collect_rarely()
        await _begin()
        loop = asyncio.get_running_loop()
        began = loop.time()
        assert await role.seal_once() == options.count
        _tell(Worked(began, loop.time()))
        await _line()
    await server.client.aclose()


async def watchers(options: Options) -> None:
    """`count` clients of the live feed, each cut off `cuts` times within `seconds`."""
    from bench.watching import compared, connected, cut_within

    server = BenchServer(options.redis_url)
    async with server.store() as store:
        began_at = await store.last_position(0)
        clients = await connected(options.target, options.count)
        running = [asyncio.create_task(client.run()) for client in clients]
        await _begin()
        began = asyncio.get_running_loop().time()
        cut_within(clients, options.seconds, options.cuts)
        await _line()
        outcome = await compared(store, clients, began_at)
        ended = asyncio.get_running_loop().time()
        _tell(Worked(began, ended, tuple(outcome.waits_ms), outcome.lost, outcome.doubled))
        await _line()
        for task in running:
            task.cancel()
        await asyncio.wait(running)
    await server.client.aclose()


async def bare(_: Options) -> None:
    """A Starlette route that reads the body and answers fixed JSON, on the API's own server."""
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import Route

    async def answer(request: Request) -> Response:
        await request.body()
        return Response(ANSWER, media_type="application/json")

    await _serve_app(Starlette(routes=[Route("/", answer, methods=["GET", "POST"])]))


async def nowhere(_: Options) -> None:
    """Uploads that nobody keeps, on the API's own server, read as it reads them."""
    from api.gate import Gate, not_found
    from api.resource import Resource
    from bench.uploads import PATH, to_nowhere

    await _serve_app(Gate(not_found, {PATH: Resource({"POST": to_nowhere})}))


async def _serve_app(app: Any) -> None:
    from api.server import Server, bind, uvicorn_config
    from consumers.collector import collect_rarely

    async def nothing() -> None:
        return

    settings = Settings(port=0)
    collect_rarely()  # whatever our API gains by it, its floor gains too

    async def serve(stop: asyncio.Event) -> None:
        with bind(settings.host, settings.port) as listener:
            config = uvicorn_config(app, settings)
            await Server(config, nothing, stop, _listening).serve([listener])

    await _serve_until_end(serve)


async def pinger(options: Options) -> None:
    """A connection to the server and nothing more."""
    server = BenchServer(options.redis_url)
    await server.empty()
    await _begin()
    await server.client.aclose()


ANSWER: Final = msgspec.json.encode(
    {
        **dict.fromkeys(("id", "created_at", "updated_at", "kb_id", "task_type"), "x" * 30),
        "payload": msgspec.Raw(PAYLOAD),
        **{f"field_{number}": number for number in range(15)},
    }
)
"""About as long as a task is in the API's answers."""

POLL_S: Final = 0.005
"""How exactly the end of a worker's tasks is known; rounds last a thousand times as long."""


async def _begin() -> None:
    _tell(Ready())
    await _line()


async def _serve_until_end(serve: Callable[[asyncio.Event], Coroutine[Any, Any, None]]) -> None:
    stop = asyncio.Event()
    serving = asyncio.create_task(serve(stop))
    await _line()
    stop.set()
    await serving


def _listening(host: str, port: int) -> None:
    _tell(Ready(f"http://{host}:{port}"))


async def _line() -> str:
    return await asyncio.to_thread(sys.stdin.readline)


def _tell(message: Message) -> None:
    print(msgspec.json.encode(message).decode(), flush=True)


ROLES: Final[dict[str, Callable[[Options], Coroutine[Any, Any, None]]]] = {
    "submitter": submitter,
    "worker": worker,
    "projector": projector,
    "rebuilder": rebuilder,
    "archiver": archiver,
    "api": api,
    "grpc_api": grpc_api,
    "remote_worker": remote_worker,
    "watchers": watchers,
    "bare": bare,
    "nowhere": nowhere,
    "pinger": pinger,
}


if __name__ == "__main__":
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    uvloop.run(ROLES[sys.argv[1]](msgspec.json.decode(sys.argv[2], type=Options)))
