"""The examples of docs/rest.md, run as they stand against a running service."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.cli.running import Up

PAGE = Path(__file__).parents[2] / "docs" / "rest.md"
BASH = shutil.which("bash")


@pytest.mark.skipif(
    BASH is None or shutil.which("curl") is None, reason="there is no bash or curl on this machine"
)
def test_the_examples_of_the_rest_page_work(service: Up, tmp_path: Path):
    examples = re.findall(r"^```sh\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    script = "set -euo pipefail\n" + "\n".join(examples)

    ran = subprocess.run(
        [str(BASH), "-c", script],
        cwd=tmp_path,
        env=os.environ | {"LEDGERQ": service.url, "no_proxy": "*"},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )

    assert ran.returncode == 0, ran.stdout[-2_000:] + ran.stderr
    assert len(examples) >= 6
    assert "TASK_NOT_PROCESSING" in ran.stdout
