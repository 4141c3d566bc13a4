"""Who pauses a type and changes limits while the clients of a run go on."""

import asyncio
from typing import Any, Final

import httpx2

from tests.faults.campaign.clients import CALL_TIMEOUT_S, Patient
from tests.faults.campaign.plan import Plan

PAUSED: Final = "vector_storage"
LIMITS: Final = ("kbs/kb-3", 3), ("types/document_processing", 4)
RAISED: Final = ("kbs/kb-3", 6)


class Operator:
    """Limits a kb_id and a type from the beginning, and raises one of these; pauses a type for half
    of the plan's time."""

    def __init__(self, plan: Plan, url: str) -> None:
        self._plan = plan
        self._url = url
        self._patient = Patient()

    async def begin(self) -> None:
        """Set the limits."""
        for path, limit in LIMITS:
            await self._send("PUT", f"/api/v1/limits/{path}", json={"limit": limit})

    async def run(self) -> None:
        """Pause, raise, resume."""
        seconds, (path, limit) = self._plan.seconds, RAISED
        await asyncio.sleep(seconds * 0.3)
        await self._send("POST", f"/api/v1/queues/{PAUSED}/pause", json={"reason": "to see"})
        await asyncio.sleep(seconds * 0.25)
        await self._send("PUT", f"/api/v1/limits/{path}", json={"limit": limit})
        await asyncio.sleep(seconds * 0.25)
        await self.resume()

    async def resume(self) -> None:
        """Let everything be taken again."""
        await self._send("POST", f"/api/v1/queues/{PAUSED}/resume")

    async def _send(self, method: str, path: str, **sent: Any) -> None:
        async with httpx2.AsyncClient(base_url=self._url, timeout=CALL_TIMEOUT_S) as http:
            answer = await self._patient.until(http, method, path, **sent)
        assert answer.status_code == 200, answer.text
