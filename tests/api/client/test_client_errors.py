"""Each refusal of the service is an exception of its own kind."""

import copy
import pickle

import pytest

from api import client
from api.client.answers import Task
from api.client.errors import BY_CODE, class_of
from api.errors import ANSWERS


@pytest.mark.parametrize("code", ANSWERS)
def test_every_refusal_has_a_class(code: str) -> None:
    status, _ = ANSWERS[code]  # pyright: ignore[reportArgumentType]

    kind = class_of(code, status)

    assert kind is not client.Refused or status in (408, 426)
    assert issubclass(kind, client.LedgerqError)
    assert getattr(client, kind.__name__) is kind


def test_every_class_has_a_refusal() -> None:
    assert {*BY_CODE} <= {*map(str, ANSWERS)}


def test_conflicts_can_be_caught_together() -> None:
    conflicts = [str(code) for code, (status, _) in ANSWERS.items() if status == 409]

    assert all(issubclass(class_of(code, 409), client.Conflict) for code in conflicts)


def test_a_code_of_a_later_version_is_of_its_status() -> None:
    assert class_of("SOMETHING_NEW", 409) is client.Conflict
    assert class_of("SOMETHING_NEW", 418) is client.Refused


def test_an_error_says_its_message_and_code() -> None:
    error = client.TaskNotFound("there is none", code="TASK_NOT_FOUND", status=404)

    assert str(error) == "there is none (TASK_NOT_FOUND)"
    assert isinstance(error, client.NotFound)


def _not_finished() -> client.TaskNotFinished:
    task = Task(id="1", task_type="a", kb_id="k", status="queued", version=1)
    return client.TaskNotFinished(task, 5)


def _in_a_batch() -> client.QueueFull:
    error = client.QueueFull("full", code="QUEUE_FULL", status=503, request_id="r", retry_after_s=2)
    error.calls, error.submitted = 8, [_not_finished().task]
    error.add_note("on the way")
    return error


@pytest.mark.parametrize(
    "error",
    [
        client.TaskNotFound("none", code="TASK_NOT_FOUND", status=404, details={"task_id": "1"}),
        client.Unreachable("nobody", may_be_done=True, timeout_s=1),
        client.CallbackRejected("too old"),
        _not_finished(),
        _in_a_batch(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_goes_from_one_process_to_another_whole(error: client.LedgerqError) -> None:
    for other in (pickle.loads(pickle.dumps(error)), copy.copy(error)):  # noqa: S301 - our own
        assert type(other) is type(error)
        assert (str(other), other.args) == (str(error), error.args)
        assert vars(other) == vars(error)
