"""docs/tutorial.md, followed as it is written: a real service, a real kill, real callbacks."""

from pathlib import Path

import pytest

from tests.docs.page import steps_of
from tests.docs.reader import BASH, CURL, Reader

PAGE = Path(__file__).parents[2] / "docs" / "tutorial.md"

QUICK = {
    "PAUSE_S": "0.25",
    "LEDGERQ_RETRY_BASE_MS": "50",
    "LEDGERQ_ARCHIVE_SEAL_INTERVAL_MS": "100",
}
"""Nothing else but waiting is spared."""


@pytest.mark.skipif(BASH is None or CURL is None, reason="there is no bash or curl on this machine")
@pytest.mark.timeout(150)
def test_the_tutorial_works_as_it_is_written(tmp_path: Path) -> None:
    with Reader(tmp_path, **QUICK) as reader:
        for step in steps_of(PAGE):
            reader.follow(step)

    assert len(reader.seen) > 10
