"""The example of docs/retries.md, run as it stands against a service that says "later"."""

import re
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from consumers import handlers
from consumers.handlers import Handler, load_handlers
from ledger.events import RetryScheduled
from ledger.redis_store import RedisStore
from ledger.task import Status
from tests.consumers.working import events_of, submit, until, working

PAGE = Path(__file__).parents[2] / "docs" / "retries.md"
ASKED_S = 120

FORMS: dict[str, Callable[[], str | None]] = {
    "seconds": lambda: f"{ASKED_S}",
    "date": lambda: format_datetime(datetime.now(UTC) + timedelta(seconds=ASKED_S), usegmt=True),
    "unreadable": lambda: "soon",
    "absent": lambda: None,
}
WAITS_S = {"seconds": (120, 120), "date": (110, 120), "unreadable": (2.5, 5), "absent": (30, 30)}
"""At least and at most; the example's policy begins with 5 s, half of it left to chance."""


def busy(retry_after: Callable[[], str | None]) -> type[BaseHTTPRequestHandler]:
    """A service that wants to be left alone."""

    class Busy(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(429)
            if (text := retry_after()) is not None:
                self.send_header("retry-after", text)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    return Busy


def example(url: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Handler:
    """The handler of the page, which calls `url`."""
    registered = handlers._registered  # pyright: ignore[reportPrivateUsage]
    monkeypatch.setattr(handlers, "_registered", dict(registered))
    [code] = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    assert "http://localhost:9000/" in code
    name = "example_of_the_retries_page"
    (folder / f"{name}.py").write_text(code.replace("http://localhost:9000/", url))
    monkeypatch.setattr(sys, "path", list(sys.path))
    with monkeypatch.context() as patched:
        patched.chdir(folder)
        found = load_handlers(name)["embedding_generation"]
    sys.modules.pop(name)
    return found


@pytest.mark.parametrize("form", list(FORMS))
async def test_the_example_waits_as_it_is_asked_to(
    store: RedisStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    monkeypatch.setenv("no_proxy", "*")
    with HTTPServer(("127.0.0.1", 0), busy(FORMS[form])) as server:
        serving = threading.Thread(target=server.serve_forever, args=(0.01,))
        serving.start()
        try:
            url = f"http://127.0.0.1:{server.server_port}/"
            async with working(store, example(url, tmp_path, monkeypatch)):
                task_id = await submit(store, "embedding_generation", {"chunks": ["a"]})
                task = await until(store, task_id, lambda task: bool(task.state.error_message))
        finally:
            server.shutdown()
            serving.join()

    assert task.state.error_message == "RetryLater: the model is busy"
    assert task.status is Status.RETRYING
    [scheduled] = await events_of(store, task_id, RetryScheduled)
    least, most = WAITS_S[form]
    assert least * 1_000 <= scheduled.retry_at - task.state.updated_at <= most * 1_000
