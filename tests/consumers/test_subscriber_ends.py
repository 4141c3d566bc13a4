"""Programs that end in the middle of a subscription give back what they held, and end quietly."""

import asyncio
import signal
import sys

import pytest

from ledger.redis_store import RedisStore
from ledger.redis_subscriptions import RedisSubscriptions
from tests.consumers.working import PATIENCE_S
from tests.contracts.store import submit
from tests.faults.program import ROOT

PROGRAM = """
import asyncio, structlog, sys
import consumers

structlog.configure(logger_factory=structlog.ReturnLoggerFactory(), processors=[lambda *_: ""])

async def main():
    following = consumers.subscribe("billing", start="beginning", redis_url=sys.argv[1])
    {loop}
        print("given", flush=True)
        {body}

asyncio.run(main())
"""
PLAIN = "async for event in following:"
BATCHES = "async for batch in following.batches():"


@pytest.mark.parametrize(
    ("loop", "body", "code"),
    [
        (PLAIN, "break", 0),
        (BATCHES, "break", 0),
        (PLAIN, "raise ValueError", 1),
        (PLAIN, "pass", -signal.SIGINT),
    ],
    ids=["break", "break-of-batches", "raise", "ctrl-c"],
)
async def test_a_program_that_ends_gives_back_what_it_held(
    store: RedisStore, ledger_url: str, loop: str, body: str, code: int
):
    await submit(store)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", PROGRAM.format(loop=loop, body=body), ledger_url),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(PATIENCE_S):
            assert await process.stdout.readline() == b"given\n"
            if code < 0:
                process.send_signal(-code)
            _, said = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()

    assert process.returncode == code, said.decode()
    assert b"unhandled" not in said and b"never" not in said and b"destroyed" not in said
    subscriptions = RedisSubscriptions(store.client, 1, 5_000)
    assert await subscriptions.members("billing") == []
    [reading] = (await subscriptions.view(0)).readings.values()
    assert reading.owner == ""
