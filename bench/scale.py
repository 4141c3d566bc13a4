"""How much each bench does: enough for steady figures, or just enough to see that it runs."""

import msgspec


class Scale(msgspec.Struct, frozen=True):
    """Sizes of one run: of the usual one, unless another is said."""

    rounds: int = 3
    floor_appends: int = 10_240
    submissions: int = 12_000
    single_submissions: int = 2_000
    lives: int = 4_000
    greedy_tasks: int = 10_000
    load_rounds: int = 3
    load_s: int = 1
    paced_rounds: int = 2
    paced_tasks: int = 100
    done_tasks: int = 10_000
    estimated_tasks: int = 800
    history_tasks: int = 40_000
    rebuild_rounds: int = 2
    proved_tasks: int = 40_000
    lag_s: int = 5
    recovery_rounds: int = 3
    upload_rounds: int = 15
    upload_answers: int = 200
    feed_s: int = 10
    soak_s: int = 60
    listed_tasks: int = 50_000
    list_questions_every: int = 5
    peer_tasks: int = 10_000
    peer_rounds: int = 2
    overload_tasks: int = 200_000
    finished_tasks: int = 100_000


USUAL = Scale()

FULL = Scale(
    greedy_tasks=100_000,
    history_tasks=1_000_000,
    rebuild_rounds=2,
    proved_tasks=340_000,
    lag_s=60,
    soak_s=600,
    listed_tasks=1_000_000,
    list_questions_every=1,
    finished_tasks=1_000_000,
)
"""The sizes that the goals speak of: read models of a million tasks, three million events; a proof
among a million events."""

QUICK = Scale(
    rounds=1,
    floor_appends=5_120,
    submissions=4_000,
    single_submissions=500,
    lives=2_000,
    greedy_tasks=5_000,
    load_rounds=1,
    paced_rounds=1,
    paced_tasks=50,
    done_tasks=1_000,
    estimated_tasks=300,
    history_tasks=4_000,
    rebuild_rounds=1,
    proved_tasks=4_000,
    lag_s=1,
    recovery_rounds=1,
    upload_rounds=1,
    upload_answers=30,
    feed_s=3,
    soak_s=10,
    listed_tasks=30_000,
    list_questions_every=29,
    peer_tasks=1_000,
    peer_rounds=1,
    overload_tasks=20_000,
    finished_tasks=20_000,
)
