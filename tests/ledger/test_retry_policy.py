"""How long a task waits before its next attempt."""

from typing import Any

import pytest
from hypothesis import given as for_all
from hypothesis import strategies as st

from ledger.retry_policy import DELAY_MS_MAX, RetryPolicy
from tests.strategies import policies

JITTER = st.floats(0, 1, exclude_max=True)
RETRIES = st.integers(1, 100)


def test_delays_double_up_to_the_cap():
    policy = RetryPolicy(base_ms=1_000, cap_ms=10_000, spread=0)

    assert [policy.delay_ms(n, 0.9) for n in range(1, 7)] == [
        1_000, 2_000, 4_000, 8_000, 10_000, 10_000,
    ]  # fmt: skip


def test_jitter_takes_a_share_off_a_delay():
    policy = RetryPolicy(base_ms=8_000, spread=0.5)

    assert [policy.delay_ms(1, jitter) for jitter in (0, 0.5, 1)] == [8_000, 6_000, 4_000]


@for_all(policies, RETRIES, JITTER)
def test_a_delay_stays_within_its_bounds(policy: RetryPolicy, retry_count: int, jitter: float):
    full = policy.delay_ms(retry_count, 0)

    assert policy.base_ms <= full <= policy.cap_ms
    assert full * (1 - policy.spread) - 1 <= policy.delay_ms(retry_count, jitter) <= full


@for_all(policies, RETRIES)
def test_a_later_retry_never_waits_less(policy: RetryPolicy, retry_count: int):
    assert policy.delay_ms(retry_count, 0) <= policy.delay_ms(retry_count + 1, 0)


@pytest.mark.parametrize("factor", [1.001, 2.0, 1e300])
def test_any_growth_ends_at_the_cap(factor: float):
    assert RetryPolicy(base_ms=1, factor=factor).delay_ms(1_000_000, 0) == 300_000


@pytest.mark.parametrize("factor", [1.0, 2.0, 1e300])
def test_no_base_means_no_delay(factor: float):
    assert RetryPolicy(base_ms=0, factor=factor).delay_ms(1_000, 0) == 0


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"base_ms": -1}, "0 <= base_ms <= cap_ms"),
        ({"base_ms": 9, "cap_ms": 8}, "0 <= base_ms <= cap_ms"),
        ({"cap_ms": DELAY_MS_MAX + 1}, "cap_ms must be at most 2592000000"),
        ({"factor": 0.9}, "factor"),
        ({"factor": float("inf")}, "factor"),
        ({"factor": float("nan")}, "factor"),
        ({"spread": -0.1}, "spread"),
        ({"spread": 1.1}, "spread"),
        ({"spread": float("nan")}, "spread"),
    ],
)
def test_a_policy_out_of_bounds_is_refused(wrong: dict[str, Any], told: str):
    with pytest.raises(ValueError, match=told):
        RetryPolicy(**wrong)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"base_ms": "5 s"}, "base_ms must be a whole number of ms, got '5 s'"),
        ({"cap_ms": 1e6}, "cap_ms must be a whole number of ms, got 1000000.0"),
        ({"factor": None}, "factor must be a number, got None"),
        ({"spread": "half"}, "spread must be a number, got 'half'"),
    ],
)
def test_a_policy_of_other_things_than_numbers_is_refused(wrong: dict[str, Any], told: str):
    with pytest.raises(TypeError, match=told):
        RetryPolicy(**wrong)
