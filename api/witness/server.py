"""A witness over HTTP: `POST /add-checkpoint`, and `GET /<hash of the origin>/checkpoint`."""

import asyncio
import contextlib
import re
import socket
import threading
import time
from collections.abc import AsyncGenerator, Sequence
from typing import Final

import structlog
from aiohttp import web

from api.witness.memory import WitnessMemory
from ledger.archive.notes import Note, Verifier
from ledger.archive.witness import (
    REQUEST_BYTES_MAX,
    SIZE_TYPE,
    AddCheckpoint,
    BadRequest,
    TreeHead,
    refusal_of,
)

log = structlog.get_logger("witness")

REQUEST_TIMEOUT_S: Final = 10.0
"""A caller who takes longer to send his request is cut off."""

_DIGEST: Final = re.compile(r"[0-9a-f]{64}")


class Witness:
    """Answers requests, one checkpoint at a time."""

    def __init__(self, memory: WitnessMemory, known: Sequence[Verifier]) -> None:
        self._memory = memory
        self._known = known
        self._one = threading.Lock()

    @property
    def app(self) -> web.Application:
        """As aiohttp runs it."""
        app = web.Application(client_max_size=REQUEST_BYTES_MAX)
        app.router.add_post("/add-checkpoint", self._add_checkpoint)
        app.router.add_get("/{digest}/checkpoint", self._checkpoint)
        return app

    async def _add_checkpoint(self, request: web.Request) -> web.Response:
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT_S):
                asked = AddCheckpoint.parse(await request.read())
        except BadRequest as error:
            return _said(400, str(error))
        except TimeoutError:
            return _said(408, "the request did not come to its end in time")
        return await asyncio.to_thread(self._answered, asked)

    def _answered(self, asked: AddCheckpoint) -> web.Response:
        # To look at what was remembered and to remember the next one must be one step.
        with self._one:
            return self._cosigned(asked)

    def _cosigned(self, asked: AddCheckpoint) -> web.Response:
        head, memory = asked.head, self._memory
        before = memory.latest(head.origin)
        latest = None if before is None else TreeHead.parse(before.text)
        refusal = refusal_of(asked, self._known, latest)
        if refusal is not None:
            if refusal.is_alarming:
                log.error("refused", origin=head.origin, size=head.size, reason=refusal.reason)
            if refusal.latest is not None:
                text = f"{refusal.latest}\n"
                return web.Response(status=refusal.status, text=text, content_type=SIZE_TYPE)
            return _said(refusal.status, refusal.reason)
        signature = memory.signer.cosign(asked.note.text, int(time.time()))
        ours = [*asked.note.signatures, signature]
        memory.remember(head.origin, Note(asked.note.text, tuple(ours)))
        log.info("cosigned", origin=head.origin, size=head.size)
        return web.Response(text=signature.line)

    async def _checkpoint(self, request: web.Request) -> web.Response:
        digest = request.match_info["digest"]
        path = self._memory.path_of(digest) if _DIGEST.fullmatch(digest) else None
        if path is None:
            return _said(404, "no checkpoint of such a log was cosigned here")
        return web.Response(text=await asyncio.to_thread(path.read_text, "utf-8"))


def _said(status: int, reason: str) -> web.Response:
    return web.Response(status=status, text=f"{reason}\n")


@contextlib.asynccontextmanager
async def served(witness: Witness, listener: socket.socket) -> AsyncGenerator[None]:
    """Answer on a socket that listens, as long as the context lasts, and then what is in work."""
    runner = web.AppRunner(witness.app, access_log=None)
    await runner.setup()
    try:
        await web.SockSite(runner, listener).start()
        yield
    finally:
        await runner.cleanup()
