"""A member of a subscription in a process of its own: says on standard output what it is given and
what it has acknowledged, until it is killed.

    python -m tests.faults.subscriber URL LEASE_MS HANGS_AFTER

After HANGS_AFTER events (0: never) it acknowledges nothing more.
"""

import asyncio
import sys

import consumers
from consumers import logs
from ledger.settings import Settings

GROUP = "billing"


async def main(url: str, lease_ms: int, hangs_after: int) -> None:
    given = 0
    async for event in consumers.subscribe(
        GROUP, start="beginning", redis_url=url, lease_ms=lease_ms, types=["TaskSubmitted"]
    ):
        given += 1
        _say("given", event.position)
        if hangs_after and given > hangs_after:
            continue
        await event.ack()
        _say("done", event.position)


def _say(what: str, position: object) -> None:
    sys.stdout.write(f"{what} {position}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    logs.configure(Settings(), "subscriber")
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
