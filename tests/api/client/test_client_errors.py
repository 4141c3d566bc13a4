"""Each refusal of the service is an exception of its own kind."""

import pytest

from api import client
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
