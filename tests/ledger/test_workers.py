"""What is made of a worker's report."""

from ledger.workers import WorkerReport, WorkerState, seen

REPORT = WorkerReport("w1", "h1", 7, ("work",), 4, lease_ms=1_000, started_at=0)


def test_a_worker_is_lost_once_it_is_silent_for_longer_than_its_lease():
    assert seen(REPORT, 5_000, now_ms=6_000).state is WorkerState.IDLE
    assert seen(REPORT, 5_000, now_ms=6_001).state is WorkerState.LOST


def test_the_average_is_over_what_came_to_an_end_of_its_own():
    worked = WorkerReport(
        "w1", "h1", 7, ("work",), 4, 1_000, 0, succeeded=3, failed=1, task_ms=1_000
    )

    assert seen(REPORT, 0, 0).average_task_ms is None
    assert (seen(worked, 0, 0).processed, seen(worked, 0, 0).average_task_ms) == (4, 250.0)
