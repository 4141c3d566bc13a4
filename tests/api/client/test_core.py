"""What is sent, tried again and made of answers: the core alone, told what came back."""

import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from api.client import (
    AsyncClient,
    Client,
    InvalidRequest,
    LedgerqError,
    QueueFull,
    Retries,
    Submission,
    Task,
    Unreachable,
)
from api.client.calls import Call, NoAnswer, Pause, Reply
from api.client.core import Core, Flow
from api.client.positions import REMEMBERED_S
from api.client.retries import RETRY_AFTER_MAX_S
from api.comma_list import values_of
from tests.api.requests import UNKNOWN_ID

LOST = NoAnswer(Unreachable("lost", may_be_done=True))
SUBMISSION = Submission("health_check", "kb-1", {"a": 1})


def task_reply(position: str | None = None, **fields: Any) -> Reply:
    """A task, of a service that knows more than this client."""
    task: dict[str, Any] = {
        **{"id": UNKNOWN_ID, "task_type": "health_check", "kb_id": "kb-1"},
        **{"status": "queued", "version": 1, "of_later": {"a": []}},
        **fields,
    }
    headers = {} if position is None else {"ledger-position": position}
    return Reply(201, headers, json.dumps(task).encode())


def refused(status: int, code: str, **headers: str) -> Reply:
    body = {"error": "", "message": "no", "code": code, "details": {"field": "x"}}
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    return Reply(status, {"x-request-id": "r-1", **given}, json.dumps(body).encode())


class Driven:
    """A flow that was told these answers, one after the other; what it wanted, and its result."""

    def __init__(self, flow: Flow[Any], *replies: Reply | NoAnswer) -> None:
        self.calls: list[Call] = []
        self.pauses: list[float] = []
        self.result: Any = None
        self.error: LedgerqError | None = None
        left = list(replies)
        told: Reply | NoAnswer | None = None
        try:
            while True:
                step = flow.send(told)
                if isinstance(step, Pause):
                    self.pauses.append(step.seconds)
                    told = None
                else:
                    self.calls.append(step)
                    told = left.pop(0)
        except StopIteration as end:
            self.result = end.value
        except LedgerqError as error:
            self.error = error
        assert not left


def test_a_call_keeps_its_key_over_its_retries() -> None:
    driven = Driven(Core().submit(SUBMISSION, None), LOST, LOST, task_reply())

    keys = {call.headers["idempotency-key"] for call in driven.calls}
    assert (len(driven.calls), len(keys)) == (3, 1)
    assert len({call.body for call in driven.calls}) == 1
    assert isinstance(driven.result, Task)


def test_each_call_has_a_key_of_its_own() -> None:
    core = Core()
    one = Driven(core.submit(SUBMISSION, None), task_reply())
    other = Driven(core.submit(SUBMISSION, None), task_reply())

    assert one.calls[0].headers != other.calls[0].headers


def test_the_caller_may_give_the_key() -> None:
    driven = Driven(Core().submit(SUBMISSION, "nightly"), task_reply())

    assert driven.calls[0].headers["idempotency-key"] == "nightly"


@pytest.mark.parametrize("key", ["", " a", "a\n", "a\tb", "\ud800", "x" * 256])
def test_a_key_that_the_service_would_not_take_is_told_at_once(key: str) -> None:
    driven = Driven(Core().submit(SUBMISSION, key))

    assert isinstance(driven.error, InvalidRequest)
    assert driven.error.details["field"] == "idempotency_key"


def test_a_key_of_many_has_room_for_the_numbers_of_its_requests() -> None:
    longest = "x" * 245
    taken = Driven(Core().submit_many([SUBMISSION], longest), Reply(201, {}, b'{"tasks": []}'))
    refused = Driven(Core().submit_many([SUBMISSION], longest + "x"))

    assert taken.calls[0].headers["idempotency-key"] == f"{longest}/1"
    assert isinstance(refused.error, InvalidRequest)


def test_what_is_of_another_kind_is_told_by_its_name() -> None:
    seven: Any = 7
    soon: Any = timedelta(seconds=7)

    with pytest.raises(TypeError, match=r"^retries: expected Retries\(\.\.\.\), got int$"):
        Core(seven)
    with pytest.raises(TypeError, match=r"^timeout_s: expected seconds, got timedelta$"):
        next(Core().wait(UNKNOWN_ID, soon))
    with pytest.raises(TypeError, match=r"^kb_id: expected a text, or several, got int$"):
        next(Core().list({"kb_id": seven}))


def test_only_what_is_said_is_sent() -> None:
    driven = Driven(Core().submit(SUBMISSION, None), task_reply())

    assert json.loads(driven.calls[0].body or b"") == {
        "task_type": "health_check",
        "kb_id": "kb-1",
        "payload": {"a": 1},
    }


def test_a_call_is_made_so_often_and_no_more() -> None:
    driven = Driven(Core(Retries(calls_max=3)).submit(SUBMISSION, None), LOST, LOST, LOST)

    assert driven.error is LOST.error
    assert len(driven.pauses) == 2


def test_pauses_grow_up_to_a_bound() -> None:
    retries = Retries(pause_first_s=0.2, pause_max_s=5)

    pauses = [retries.backoff_s(failures, chance=lambda: 1.0) for failures in range(1, 8)]

    assert pauses == [0.2, 0.4, 0.8, 1.6, 3.2, 5, 5]
    assert retries.backoff_s(1, chance=lambda: 0.0) == 0.1


@pytest.mark.parametrize("status", [429, 503])
def test_the_service_says_when_to_come_back(status: int) -> None:
    full = refused(status, "QUEUE_FULL", retry_after="7")

    driven = Driven(Core().submit(SUBMISSION, None), full, task_reply())

    assert driven.pauses == [7.0]
    assert driven.error is None


def test_who_shall_come_back_much_later_is_told_at_once() -> None:
    full = refused(503, "QUEUE_FULL", retry_after=str(int(RETRY_AFTER_MAX_S) + 1))

    driven = Driven(Core().submit(SUBMISSION, None), full)

    assert isinstance(driven.error, QueueFull)
    assert driven.error.retry_after_s == RETRY_AFTER_MAX_S + 1


@pytest.mark.parametrize("status", [502, 503, 504])
def test_what_a_proxy_answers_meanwhile_is_waited_out(status: int) -> None:
    page = Reply(status, {}, b"<html>Bad gateway</html>")

    driven = Driven(Core().submit(SUBMISSION, None), page, task_reply())

    assert driven.error is None


@pytest.mark.parametrize(
    "reply",
    [refused(400, "INVALID_REQUEST"), refused(409, "IDEMPOTENCY_CONFLICT"), refused(500, "X")],
)
def test_what_would_fail_again_is_not_tried_again(reply: Reply) -> None:
    driven = Driven(Core().submit(SUBMISSION, None), reply)

    assert driven.error is not None
    assert len(driven.calls) == 1


def test_what_is_no_answer_of_ledgerq_says_how_it_begins() -> None:
    driven = Driven(Core().get(UNKNOWN_ID), Reply(200, {}, b"<html>Hello</html>"))

    assert driven.error is not None
    assert driven.error.code == "UNEXPECTED_ANSWER"
    assert "<html>Hello" in str(driven.error)


def test_an_error_among_several_batches_says_what_went_before() -> None:
    many = [SUBMISSION] * 1_001
    one = json.loads(task_reply().body)
    first = Reply(201, {}, json.dumps({"tasks": [one] * 1_000, "count": 1_000}).encode())

    driven = Driven(Core().submit_many(many, "key"), first, refused(400, "INVALID_REQUEST"))

    assert [call.headers["idempotency-key"] for call in driven.calls] == ["key/1", "key/2"]
    assert driven.error is not None
    assert len(driven.error.submitted) == 1_000


def test_what_cannot_be_sent_among_several_batches_says_how_many_went_before() -> None:
    many = [SUBMISSION] * 2_001 + [Submission("health_check", "kb-1", {"a": {1}})]
    one = json.loads(task_reply().body)
    whole = Reply(201, {}, json.dumps({"tasks": [one] * 1_000, "count": 1_000}).encode())

    with pytest.raises(TypeError, match=r"^submissions\[2001\]\.payload\.a: ") as refused:
        Driven(Core().submit_many(many, "nightly"), whole, whole)

    assert refused.value.__notes__ == [
        "2000 tasks before it were handed over, with the key 'nightly'"
    ]


def test_what_ends_the_callers_iterator_says_how_many_went_before() -> None:
    def read() -> Iterator[Submission]:
        yield from [SUBMISSION] * 1_001
        raise OSError("the disk is gone")

    whole = Reply(201, {}, b'{"tasks": [%s]}' % b",".join([task_reply().body] * 1_000))
    with pytest.raises(OSError, match="the disk is gone") as raised:
        Driven(Core().submit_many(read(), "nightly"), whole)

    assert raised.value.__notes__ == [
        "1000 tasks before it were handed over, with the key 'nightly'"
    ]


def test_a_retry_that_was_refused_at_once_is_an_error() -> None:
    driven = Driven(Core().retry(UNKNOWN_ID, None), refused(409, "TASK_NOT_RETRYABLE"))

    assert driven.error is not None
    assert driven.error.code == "TASK_NOT_RETRYABLE"


# -- waiting ------------------------------------------------------------------------------------


class Clock:
    """Goes on by so much at each look, as calls take their time."""

    def __init__(self, step_s: float) -> None:
        self._now_s = 0.0
        self._step_s = step_s

    def __call__(self) -> float:
        self._now_s += self._step_s
        return self._now_s


def test_an_answer_before_its_time_is_not_the_end_of_waiting() -> None:
    core = Core(clock=Clock(1))

    driven = Driven(core.wait(UNKNOWN_ID, 60), task_reply(), task_reply(status="completed"))

    assert driven.result.finished
    assert [call.query["wait"] for call in driven.calls] == ["59.0", "57.0"]


def test_a_wait_that_is_sent_again_lasts_no_longer() -> None:
    core = Core(Retries(pause_first_s=0.01), clock=Clock(1))

    driven = Driven(core.wait(UNKNOWN_ID, 60), LOST, task_reply(status="completed"))

    assert [call.wait_s for call in driven.calls] == [59, 57]


def test_a_connection_that_was_found_broken_is_made_anew_however_short_the_wait() -> None:
    core = Core(clock=Clock(0.1))

    driven = Driven(core.wait(UNKNOWN_ID, 0), LOST, task_reply(status="completed"))

    assert driven.result.finished


def test_nobody_is_called_when_the_time_to_wait_is_up() -> None:
    core = Core(Retries(pause_first_s=10, pause_max_s=10), clock=Clock(1))

    driven = Driven(core.wait(UNKNOWN_ID, 4), LOST, LOST)

    assert driven.pauses == [2]
    assert isinstance(driven.error, Unreachable)
    assert driven.error.calls == 2


# -- reads see what was written -----------------------------------------------------------------

PAGE = Reply(
    200,
    {"ledger-position": "0:99-0"},
    json.dumps(
        {"tasks": [], "total": 0, "pagination": {"page_size": 20, "total": 0, "total_pages": 0}}
    ).encode(),
)


def seen_position(core: Core) -> str | None:
    """The position that a list is asked to have seen."""
    return Driven(core.list({}), PAGE).calls[0].headers.get("ledger-position")


def test_reads_send_the_last_write_of_each_partition() -> None:
    core = Core()
    for position in ("0:5-0", "1:7-0", "0:12-0", "0:11-0"):
        Driven(core.submit(SUBMISSION, None), task_reply(position))

    assert seen_position(core) == "0:12-0,1:7-0"


def test_who_wrote_nothing_sends_nothing() -> None:
    core = Core()

    assert seen_position(core) is None
    assert seen_position(core) is None


def test_a_write_of_long_ago_is_not_waited_for() -> None:
    now_s = 0.0
    core = Core(clock=lambda: now_s)
    Driven(core.submit(SUBMISSION, None), task_reply("0:5-0"))

    now_s = REMEMBERED_S + 1

    assert seen_position(core) is None


def test_a_position_of_a_later_making_is_left_out() -> None:
    core = Core()
    Driven(core.submit(SUBMISSION, None), task_reply("v2:abc"))

    assert seen_position(core) is None


# -- queries ------------------------------------------------------------------------------------


def test_values_may_hold_commas() -> None:
    kbs = ["a,b", "c\\", "d"]

    driven = Driven(Core().list({"kb_id": kbs, "status": "queued", "q": "a,b"}), PAGE)

    query = driven.calls[0].query
    assert values_of(query["kb_id"]) == kbs
    assert (query["status"], query["q"]) == ("queued", "a,b")


def test_certificates_that_cannot_be_read_matter_to_https_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", "/nowhere")

    Client("http://ledgerq.example").close()

    with pytest.raises(FileNotFoundError):
        Client("https://ledgerq.example")


@pytest.mark.parametrize(
    "url",
    ["localhost:8084", "http://", " http://a", "http://a\n", "http://a:99999", "http://a:b", "//a"],
)
@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_an_url_that_nothing_can_be_at_is_refused_at_once(kind: Any, url: str) -> None:
    with pytest.raises(ValueError, match=r"^expected a URL such as http://"):
        kind(url)


@pytest.mark.parametrize(
    ("name", "given", "fault"),
    [
        ("connections_max", 0, ValueError),
        ("connections_max", 2.5, TypeError),
        ("connections_max", True, TypeError),
        ("timeout_s", 0, ValueError),
        ("timeout_s", float("nan"), ValueError),
        ("timeout_s", "30", TypeError),
        ("connect_timeout_s", -1, ValueError),
        ("connect_timeout_s", float("inf"), ValueError),
    ],
)
@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_what_no_call_could_be_made_with_is_refused_at_once(
    kind: Any, name: str, given: Any, fault: type[Exception]
):
    with pytest.raises(fault, match=f"^{name}: expected "):
        kind(**{name: given})
