"""The knowledge service as its users call it, over HTTP."""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import httpx2

from .documents import title
from .failures import DemoError, require

UPLOADS_AT_ONCE: Final = 4
ANSWER_TIMEOUT_S: Final = 30
PART_BYTES: Final = 64 * 1024


class Knowledge:
    """One knowledge base of the service. Every call raises DemoError when it is refused."""

    def __init__(self, http: httpx2.AsyncClient, kb_id: str) -> None:
        self._http = http
        self._kb_id = kb_id
        self._documents = f"/api/v1/knowledge-bases/{kb_id}/documents"
        self._free = asyncio.Semaphore(UPLOADS_AT_ONCE)

    async def is_ready(self) -> bool:
        """Whether the service answers."""
        try:
            return (await self._http.get("/", timeout=2)).status_code == 200
        except httpx2.HTTPError:
            return False

    async def upload(self, path: Path) -> tuple[str, float]:
        """Send a file: its task's id, and how many seconds that took. The same one again gives the
        same task."""
        async with self._free:
            begun = time.perf_counter()
            answer = await self._call(
                "POST",
                self._documents,
                params={"filename": title(str(path))},
                content=_parts(path),
                headers={"idempotency-key": title(str(path))},
            )
            return answer["task_id"], time.perf_counter() - begun

    async def document(self, task_id: str) -> dict[str, Any]:
        """What the service says of a document."""
        return await self._call("GET", f"/api/v1/documents/{task_id}")

    async def require_ended(self, count: int) -> None:
        """Raises DemoError unless the service's own table says that so many jobs were completed,
        and knows of no others."""
        counts: dict[str, int] = (await self._call("GET", self._documents))["counts"]
        require(counts == {"completed": count}, f"the service's table has {counts}, not {count}")

    async def enhance(self) -> str:
        """Have the knowledge base indexed: the task's id."""
        answer = await self._call("POST", "/api/v1/enhance", json={"kb_ids": [self._kb_id]})
        return answer["task_ids"][0]

    async def search(self, query: str) -> Sequence[str]:
        """The documents that match best."""
        params = {"kb_id": self._kb_id, "q": query}
        hits = (await self._call("GET", "/api/v1/search", params=params))["hits"]
        return [hit["path"] for hit in hits]

    async def _call(self, method: str, path: str, **options: Any) -> Any:
        try:
            answer = await self._http.request(method, path, **options)
        except httpx2.HTTPError as error:
            reason = str(error) or type(error).__name__
            raise DemoError(f"{method} {path} got no answer: {reason}") from error
        if not answer.is_success:
            raise DemoError(f"{method} {path} was answered {answer.status_code}: {answer.text}")
        return answer.json()


@asynccontextmanager
async def calling(url: str, kb_id: str) -> AsyncGenerator[Knowledge]:
    """The service at `url`."""
    # A proxy of the environment is not for a service on this machine.
    async with httpx2.AsyncClient(base_url=url, timeout=ANSWER_TIMEOUT_S, trust_env=False) as http:
        yield Knowledge(http, kb_id)


async def _parts(path: Path) -> AsyncIterator[bytes]:
    with path.open("rb") as file:
        while part := file.read(PART_BYTES):
            yield part
