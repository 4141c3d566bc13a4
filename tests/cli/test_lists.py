"""`ledgerq list` and `ledgerq stats` against a running service."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from tests.cli.running import Call

SUBMIT = ("submit", "health_check", "--payload", "{}", "--schedule-for", "2100-01-01T00:00:00Z")


def test_list_shows_what_was_just_submitted(client: Call):
    task_id = client(*SUBMIT, "--kb", "listed", "--json").json()["id"]

    ran = client("list", "--kb", "listed", "--status", "queued,failed", "--created-after", "1h")

    assert ran.code == 0, ran.err
    [line] = ran.out.splitlines()
    assert line.split()[:5] == [task_id, "health_check", "listed", "queued", "normal"]
    assert ran.err == "ledgerq: 1 task matches\n"


def test_list_goes_through_pages(client: Call):
    ids = [client(*SUBMIT, "--kb", "paged", "--json").json()["id"] for _ in range(3)]
    words = ("list", "--kb", "paged", "--sort-order", "asc", "--page-size", "2", "--json")

    first = client(*words).json()
    second = client(*words, "--cursor", first["pagination"]["next_cursor"]).json()

    assert [task["id"] for task in (*first["tasks"], *second["tasks"])] == ids


def test_list_says_when_nothing_matches(client: Call):
    ran = client("list", "--search", "no error says this")

    assert (ran.code, ran.out, ran.err) == (0, "", "ledgerq: no task matches\n")


def test_a_bad_filter_is_one_line(client: Call):
    ran = client("list", "--status", "lost")

    assert (ran.code, ran.out) == (1, "")
    assert ran.err.startswith("ledgerq: status: expected one of queued, processing")


def test_stats_count_what_was_just_submitted(client: Call):
    client(*SUBMIT, "--kb", "counted")

    told = client("stats", "--kb", "counted")
    counts = client("stats", "--kb", "counted", "--json").json()

    assert counts["total_tasks"] == counts["queued_tasks"] == 1
    assert ["status", "queued", "1", "100.0", "%"] in [x.split() for x in told.out.splitlines()]
    assert ["mean", "time", "-"] in [x.split() for x in told.out.splitlines()]


TASKS = (
    b'{"tasks": [], "total": 0, "pagination": {"page": 1, "total_pages": 0, "next_cursor": null}}'
)
COUNTS = (
    b'{"total_tasks": 0, "avg_process_time": null, "success_rate": 0.0, "status_breakdown": {},'
    b' "type_breakdown": {}, "priority_breakdown": {}}'
)


RETRIED = (
    b'{"retried": 1, "skipped": {}, "remaining": 0, "dry_run": false, "fingerprints": {},'
    b' "as_of": "2026-11-25T10:11:12.345Z"}'
)


class Behind(BaseHTTPRequestHandler):
    """A service whose read model does not catch up."""

    def do_GET(self) -> None:
        """Answer what is of the path, and how old it is."""
        self._answer(COUNTS if "stats" in self.path else TASKS)

    def do_POST(self) -> None:
        """Retry in bulk."""
        self.rfile.read(int(self.headers["content-length"]))
        self._answer(RETRIED)

    def _answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("projection-lag", "2500")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def behind(ledgerq: Call, monkeypatch: pytest.MonkeyPatch) -> Iterator[Call]:
    """Commands that find such a service."""
    with HTTPServer(("127.0.0.1", 0), Behind) as server:
        serving = threading.Thread(target=server.serve_forever, args=(0.01,))
        serving.start()
        monkeypatch.setenv("LEDGERQ_URL", f"http://127.0.0.1:{server.server_port}")
        yield ledgerq
        server.shutdown()
        serving.join()


@pytest.mark.parametrize(
    "words",
    [
        ("list",),
        ("stats",),
        ("list", "--json"),
        ("stats", "--json"),
        ("dead-letters", "retry", "--dry-run"),
        ("dead-letters", "retry", "--yes"),
    ],
)
def test_an_answer_that_is_not_up_to_date_says_so(behind: Call, words: tuple[str, ...]):
    ran = behind(*words)

    assert ran.code == 0, ran.err
    assert "this is 2.5 s older than the ledger's last event" in ran.err.splitlines()[-1]
