"""Schemathesis reads `/openapi.json`, and holds a served API to it with requests of its own making.

All its checks are on, in all its phases: examples, boundary values, random data, and chains of
requests that follow the links. SCHEMATHESIS_SEED and SCHEMATHESIS_EXAMPLES ask for other and more
requests than those that are made each time.
"""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import pytest

from ledger.redis_store import RedisStore
from ledger.settings import Settings
from projections.projector import Projector, ProjectorOptions
from tests.api.conftest import Service

SEED: Final = os.environ.get("SCHEMATHESIS_SEED", "3")
EXAMPLES_MAX: Final = os.environ.get("SCHEMATHESIS_EXAMPLES", "8")
"""Random requests for each endpoint; what bounds the time."""

SECONDS_MAX: Final = 300 if "SCHEMATHESIS_EXAMPLES" not in os.environ else 3_000
CONFIG: Final = Path(__file__).with_name("schemathesis.toml")
HOOKS: Final = Path(__file__).with_name("schemathesis_hooks.py")


@pytest.fixture
def settings(tmp_path: Path, ledger_url: str) -> Settings:
    """No request may wait for long."""
    return Settings(
        port=0,
        wait_seconds_max=1,
        read_wait_ms=200,
        read_model_dir=str(tmp_path / "read-model"),
        redis_url=ledger_url,
    )


@pytest.fixture
async def projector(store: RedisStore, settings: Settings) -> AsyncIterator[None]:
    """Keeps the read model level, beside the API."""
    projector = Projector(store, ProjectorOptions(settings.read_model_folder))

    async def run() -> None:
        while True:  # noqa: ASYNC110 - as its service does
            await asyncio.sleep(await projector.step())

    running = asyncio.create_task(run())
    yield
    running.cancel()
    await asyncio.wait([running])
    await projector.close()


@pytest.mark.usefixtures("projector")
@pytest.mark.timeout(SECONDS_MAX + 30)
async def test_the_api_is_as_it_says(service: Service, tmp_path: Path):
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "schemathesis.cli", "--config-file", str(CONFIG), "run"),
        f"http://127.0.0.1:{service.port}/openapi.json",
        *("--checks", "all", "--phases", "examples,coverage,fuzzing,stateful"),
        *("--seed", SEED, "--max-examples", EXAMPLES_MAX, "--continue-on-failure"),
        *("--generation-database", "none", "--request-timeout", "10", "--no-color"),
        cwd=tmp_path,
        env=os.environ | {"SCHEMATHESIS_HOOKS": str(HOOKS)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(SECONDS_MAX):
            output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, f"seed {SEED}\n{output.decode()}"
