"""The REST API in one process, beside a bare Starlette route on the same server.

The bare route reads the body and answers a fixed JSON document of the same size as ours.
"""

import functools
from collections.abc import Sequence
from typing import Final

import msgspec

from bench.children import child
from bench.http_load import CONNECTIONS, WRK, Connection, Request, requests_per_s
from bench.measure import Goal, Measured, alternate, row
from bench.roles import Options
from bench.scale import Scale
from bench.servers import run_server
from bench.workload import request_body

GOAL: Final = Goal(ratio_min=0.45)
CLIENT: Final = f"wrk -c{CONNECTIONS}" if WRK else f"Python client with {CONNECTIONS} connections"
BARE: Final = f"bare Starlette route, same uvicorn settings, {CLIENT}"
WARM_UP_S: Final = 1
TASKS_PATH: Final = "/api/v1/tasks"


class _Created(msgspec.Struct):
    id: str


async def create_task(api_url: str) -> str:
    """The id of a new task, made over REST."""
    connection = await Connection.open(api_url)
    body = await connection.ask(Request(api_url + TASKS_PATH, request_body()).as_bytes())
    await connection.close()
    return msgspec.json.decode(body, type=_Created).id


async def run(scale: Scale) -> Sequence[Measured]:
    """POST of a task, memory only and synced, and GET of one."""
    async with (
        run_server("memory") as memory,
        run_server("always") as synced,
        child("api", Options(memory.url)) as api,
        child("api", Options(synced.url)) as synced_api,
        child("bare", Options()) as bare,
    ):
        body = request_body()
        task_path = f"{TASKS_PATH}/{await create_task(api.url)}"
        bare_post, bare_get = Request(bare.url, body), Request(bare.url)
        post, synced_post = (Request(a.url + TASKS_PATH, body) for a in (api, synced_api))
        rows: list[Measured] = []
        for title, request, below, goal in (
            ("POST /api/v1/tasks", post, bare_post, GOAL),
            ("POST /api/v1/tasks, appendfsync always", synced_post, bare_post, None),
            ("GET /api/v1/tasks/{id}", Request(api.url + task_path), bare_get, None),
        ):
            for warmed in (below, request):
                await requests_per_s(warmed, WARM_UP_S)
            floor = functools.partial(requests_per_s, below, scale.load_s)
            figure = functools.partial(requests_per_s, request, scale.load_s)
            pairs = await alternate(scale.load_rounds, floor, figure)
            rows.append(row(title, "requests/s", pairs, floor_name=BARE, goal=goal))
        return rows
