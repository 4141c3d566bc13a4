"""The examples of docs/events.md, run as they stand against a running service."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.cli.running import Call, Up

PAGE = Path(__file__).parents[2] / "docs" / "events.md"
BASH, REDIS_CLI = shutil.which("bash"), shutil.which("redis-cli")


@pytest.mark.skipif(
    BASH is None or REDIS_CLI is None, reason="there is no bash or redis-cli on this machine"
)
def test_the_examples_of_the_events_page_work(service: Up, client: Call):
    for _ in range(3):
        client(
            "submit", "health_check", "--kb", "events", "--payload", "{}", "--wait", "--json"
        ).json()
    examples = re.findall(r"^```sh\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    script = "set -euo pipefail\nset -x\n" + "\n".join(examples)

    ran = subprocess.run(
        [str(BASH), "-c", script],
        cwd=service.folder,
        env=os.environ | {"IDLE_MS": "0"},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )

    assert ran.returncode == 0, ran.stdout[-2_000:] + ran.stderr
    said = ran.stdout.splitlines()
    assert "OK" in said, "the group was not made"
    assert said.count("1") >= 3, "partitions, one acknowledged, the group removed"
    claimed = said[said.index("0-0") :]
    assert any(line.startswith("Task") for line in claimed), "nothing was taken over"
    assert "ERR" not in ran.stdout
