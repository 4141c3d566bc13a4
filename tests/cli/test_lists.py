"""`ledgerq list` and `ledgerq stats` against a running service."""

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
