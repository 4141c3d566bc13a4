"""The service itself, as those who use it see it: files come in, and can be found a little later.

    POST /api/v1/knowledge-bases/{kb_id}/documents?filename=NAME   the file is the body
    GET  /api/v1/knowledge-bases/{kb_id}/documents                 what became of the newest
    GET  /api/v1/documents/{task_id}                               what became of one
    POST /api/v1/enhance                                           {"kb_ids": [...]}: index them
    GET  /api/v1/search?kb_id=...&q=...
    POST /api/v1/tasks/{task_id}/callback                          for ledgerq
    GET  /                                                         a page that shows all of it

No request waits for the work: ledgerq takes it over and calls back. What the service knows of it
stands in a table of its own (`jobs.py`), which the callbacks keep up to date.
"""

import dataclasses
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import IO, Any, Final, cast

import msgspec
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from api.client import (
    AsyncClient,
    CallbackRejected,
    File,
    InvalidRequest,
    LedgerqError,
    Submission,
    TaskNotFound,
    Unavailable,
    verify_callback,
)

from .documents import BYTES_MAX
from .jobs import Job, Jobs
from .search import search

HERE: Final = Path(__file__).parent
CALLBACK_BYTES_MAX: Final = 2 * 1024 * 1024
SPOOLED_BYTES_MAX: Final = 1024 * 1024
"""A larger file waits on the disk for its turn."""

KBS_MAX: Final = 100
ENHANCEMENT_BYTES_MAX: Final = 256 * 1024


class Enhancement(msgspec.Struct, forbid_unknown_fields=True):
    """Which knowledge bases to make searchable with all that they have."""

    kb_ids: list[str]


@dataclasses.dataclass(frozen=True, slots=True)
class Options:
    """Where things are. `public_url` is this service, as ledgerq reaches it."""

    ledgerq_url: str
    public_url: str
    database: str
    callback_secrets: tuple[str, ...]

    @classmethod
    def of(cls, env: Mapping[str, str], url: str) -> "Options":
        """From the environment; `url` is where the service listens. Raises ValueError without a
        secret: no callback could be believed, and nobody would notice for hours."""
        secrets = tuple(filter(None, env.get("LEDGERQ_CALLBACK_SECRETS", "").split(",")))
        if not secrets:
            raise ValueError(
                "LEDGERQ_CALLBACK_SECRETS is not set: give this service and ledgerq the same key, "
                "or this one what `ledgerq up` wrote to callback-secret in its data directory"
            )
        return cls(
            env.get("LEDGERQ_URL", "http://127.0.0.1:8084"),
            env.get("KNOWLEDGE_URL", url),
            env.get("KNOWLEDGE_DB", "knowledge.db"),
            secrets,
        )


class KnowledgeService:
    """The endpoints."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._jobs = Jobs(options.database)
        self._client = AsyncClient(options.ledgerq_url, headers={"X-Actor": "knowledge-service"})
        self._callback_url = f"{options.public_url}/api/v1/tasks/{{task_id}}/callback"

    async def close(self) -> None:
        await self._client.close()

    async def upload(self, request: Request) -> Response:
        """Hand a file on. The answer says where to look; the work goes on."""
        kb_id, name = request.path_params["kb_id"], request.query_params.get("filename", "")
        if not name:
            return _error(400, "filename is missing: ...?filename=report.md")
        with SpooledTemporaryFile(max_size=SPOOLED_BYTES_MAX) as file:
            if not await _received(request, file, BYTES_MAX):
                return _error(413, f"expected at most {BYTES_MAX} bytes")
            try:
                uploaded = await self._client.upload(
                    File(name, file),
                    kb_id,
                    callback_url=self._callback_url,
                    idempotency_key=request.headers.get("idempotency-key"),
                )
            except ValueError:  # see docs/client.md: forms have no sure way of saying them
                return _error(400, "filename: expected one without backslashes and control codes")
        task_id = uploaded.task_id
        await run_in_threadpool(
            self._jobs.accepted, [(task_id, kb_id, "document_processing", name)]
        )
        return JSONResponse(
            {"task_id": task_id, "status": "accepted"},
            status_code=202,
            headers={"location": f"/api/v1/documents/{task_id}"},
        )

    async def enhance(self, request: Request) -> Response:
        """Index several knowledge bases: one task each, handed over in one go."""
        body = await _body(request, ENHANCEMENT_BYTES_MAX)
        if body is None:
            return _error(413, f"expected at most {ENHANCEMENT_BYTES_MAX} bytes")
        try:
            kb_ids = msgspec.json.decode(body, type=Enhancement).kb_ids
        except msgspec.MsgspecError as error:
            return _error(400, f'expected {{"kb_ids": ["..."]}}: {error}')
        if not 1 <= len(kb_ids) <= KBS_MAX:
            return _error(400, f"kb_ids: expected 1 to {KBS_MAX} of them, got {len(kb_ids)}")
        tasks = await self._client.submit_many(
            [
                Submission("knowledge_indexing", kb_id, {}, callback_url=self._callback_url)
                for kb_id in kb_ids
            ],
            idempotency_key=request.headers.get("idempotency-key"),
        )
        await run_in_threadpool(
            self._jobs.accepted, [(task.id, task.kb_id, task.task_type, "") for task in tasks]
        )
        return JSONResponse({"task_ids": [task.id for task in tasks]}, status_code=202)

    async def callback(self, request: Request) -> Response:
        """How a task ended. Whoever cannot sign it is not believed."""
        body = await _body(request, CALLBACK_BYTES_MAX)
        if body is None:
            return _error(413, f"expected at most {CALLBACK_BYTES_MAX} bytes")
        try:
            told = verify_callback(request.headers, body, self._options.callback_secrets)
        except CallbackRejected as error:
            return _error(400, str(error))
        await run_in_threadpool(
            self._jobs.ended,
            task_id=told.task_id,
            kb_id=told.kb_id,
            kind=told.task_type,
            status=told.status,
            result=told.result,
            error=told.error_message,
            finished_at=_moment(told.completed_at),
        )
        return Response(status_code=204)

    async def document(self, request: Request) -> Response:
        """One job: from the table, and while it is not finished its progress from ledgerq."""
        job = await run_in_threadpool(self._jobs.find, request.path_params["task_id"])
        if job is None:
            return _error(404, "no such document was uploaded here")
        if job.finished:
            return JSONResponse(_told(job))
        task = await self._client.get(job.task_id)
        now = {"status": task.status, "progress": task.progress, "message": task.message}
        return JSONResponse(_told(job) | now)

    def documents(self, request: Request) -> Response:
        """The newest jobs of a knowledge base, and how many there are of each status."""
        kb_id = request.path_params["kb_id"]
        jobs = self._jobs.latest(kb_id)
        return JSONResponse({"counts": self._jobs.counts(kb_id), "jobs": [*map(_told, jobs)]})

    def find(self, request: Request) -> Response:
        """Search what is indexed."""
        asked = request.query_params
        hits = search(self._options.database, asked.get("kb_id", ""), asked.get("q", ""))
        return JSONResponse({"hits": [dataclasses.asdict(hit) for hit in hits]})

    def page(self, request: Request) -> Response:
        """The page, told where ledgerq's live feed is."""
        text = (HERE / "static/index.html").read_text(encoding="utf-8")
        return HTMLResponse(text.replace("{{ledgerq_url}}", self._options.ledgerq_url))


def create_app(options: Options) -> Starlette:
    """The service as an ASGI application."""
    service = KnowledgeService(options)

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncGenerator[None]:
        yield
        await service.close()

    kb = "/api/v1/knowledge-bases/{kb_id}/documents"
    return Starlette(
        routes=[
            Route(kb, service.upload, methods=["POST"]),
            Route(kb, service.documents),
            Route("/api/v1/documents/{task_id}", service.document),
            Route("/api/v1/enhance", service.enhance, methods=["POST"]),
            Route("/api/v1/search", service.find),
            Route("/api/v1/tasks/{task_id}/callback", service.callback, methods=["POST"]),
            Route("/", service.page),
            Mount("/static", StaticFiles(directory=HERE / "static")),
        ],
        exception_handlers={
            LedgerqError: _refused,
            HTTPException: _misplaced,
            ClientDisconnect: _gone,
        },
        lifespan=lifespan,
    )


async def _body(request: Request, bytes_max: int) -> bytes | None:
    """The body; None when it is longer than it may be."""
    body = BytesIO()
    return body.getvalue() if await _received(request, body, bytes_max) else None


async def _received(request: Request, into: IO[bytes], bytes_max: int) -> bool:
    """Whether the whole body is there, and no longer than it may be."""
    async for part in request.stream():
        if into.write(part) and into.tell() > bytes_max:
            return False
    into.seek(0)
    return True


def _moment(at: datetime | None) -> str:
    """As SQLite writes its own, so that the two can be compared."""
    if at is None:
        return ""
    return at.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"


def _told(job: Job) -> dict[str, Any]:
    return dataclasses.asdict(job)


def _error(status: int, message: str) -> Response:
    return JSONResponse({"error": message}, status_code=status)


async def _misplaced(_request: Request, error: Exception) -> Response:
    """A path or a method that there is not."""
    http = cast("HTTPException", error)
    return JSONResponse({"error": http.detail}, http.status_code, http.headers)


async def _gone(_request: Request, _error: Exception) -> Response:
    """Who hung up is told nothing, and nobody else has to know."""
    return Response(status_code=400)


async def _refused(_request: Request, error: Exception) -> Response:
    """What ledgerq will not take is the caller's error, or a matter of trying again."""
    match error:
        case InvalidRequest():
            return _error(400, str(error))
        case TaskNotFound():
            return _error(404, str(error))
        case Unavailable():
            return JSONResponse(
                {"error": str(error)}, status_code=503, headers={"retry-after": "2"}
            )
        case LedgerqError() if 400 <= error.status < 500:
            return _error(error.status, str(error))
        case _:
            return _error(502, f"the task service did not take it: {error}")
