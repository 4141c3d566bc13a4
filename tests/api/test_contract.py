"""The REST contract, line by line, as far as no other test holds it: what there is, what it is
called, in which order, with which defaults and bounds. `/openapi.json` says it, and what is served
is held to that (`tests/api/conformance.py`, `test_schemathesis.py`)."""

from typing import Any, Final

import httpx2
import pytest

from api.errors import ANSWERS
from api.task_stats import stats_view
from ledger.events import Priority
from ledger.task import Status
from projections.task_stats import Stats
from tests.api.requests import TASKS, submitted

Described = dict[str, Any]

ENDPOINTS: Final = (
    ("POST", "/api/v1/tasks", 201),
    ("POST", "/api/v1/tasks/batch", 201),
    ("GET", "/api/v1/tasks/{task_id}", 200),
    ("GET", "/api/v1/tasks/{task_id}/events", 200),
    ("GET", "/api/v1/tasks", 200),
    ("DELETE", "/api/v1/tasks/{task_id}", 200),
    ("POST", "/api/v1/tasks/{task_id}/retry", 200),
    ("PUT", "/api/v1/tasks/{task_id}/progress", 200),
    ("GET", "/api/v1/stats/tasks", 200),
    ("GET", "/api/v1/stats/system", 200),
    ("GET", "/api/v1/queues/info", 200),
    ("GET", "/api/v1/events", 200),
    ("GET", "/health", 200),
    ("GET", "/livez", 200),
    ("GET", "/readyz", 200),
    ("GET", "/metrics", 200),
)

ERRORS: Final = {
    "INVALID_REQUEST": 400,
    "TASK_NOT_FOUND": 404,
    "NOT_FOUND": 404,
    "METHOD_NOT_ALLOWED": 405,
    "TASK_NOT_CANCELABLE": 409,
    "TASK_NOT_RETRYABLE": 409,
    "TASK_NOT_PROCESSING": 409,
    "IDEMPOTENCY_CONFLICT": 409,
    "VERSION_CONFLICT": 409,
    "PAYLOAD_TOO_LARGE": 413,
    "UNSUPPORTED_MEDIA_TYPE": 415,
    "INTERNAL_ERROR": 500,
    "QUEUE_FULL": 503,
    "SERVICE_UNAVAILABLE": 503,
}

FIELDS: Final = {
    "Task": "id task_type kb_id status priority payload result progress message retry_count "
    "max_retries timeout error_message error_kind worker_id schedule_for retry_at created_at "
    "updated_at started_at completed_at estimated_completion queue_position version callback_url "
    "metadata",
    "Submission": "task_type kb_id payload priority max_retries timeout schedule_for callback_url "
    "metadata",
    "Error": "error message code details",
    "TaskList": "tasks count",
    "TaskPage": "tasks total pagination",
    "Pagination": "page page_size total total_pages next_cursor",
    "History": "task_id events",
    "Event": "position type version at data meta",
    "Canceled": "message task_id",
    "Progress": "progress message",
    "TaskStats": "total_tasks queued_tasks processing_tasks retrying_tasks completed_tasks "
    "failed_tasks canceled_tasks avg_process_time success_rate status_breakdown type_breakdown "
    "priority_breakdown",
    "SystemStats": "total_workers active_workers idle_workers busy_workers queue_size "
    "processing_rate workers task_stats projection_lag",
    "Health": "status service version details",
}
"""The fields of each shape, in their order."""

VALUES: Final = {
    "Status": {"queued", "processing", "retrying", "completed", "failed", "canceled"},
    "Priority": {"low", "normal", "high", "critical"},
    "ErrorKind": {"retryable", "permanent", "timeout", "worker_lost"},
    "WorkerState": {"idle", "busy", "draining", "lost"},
    "SortOrder": {"desc", "asc"},
    "SortBy": {
        *("created_at", "updated_at", "started_at", "completed_at"),
        *("priority", "status", "task_type"),
    },
}

DEFAULTS: Final = {
    "priority": {"default": "normal"},
    "max_retries": {"default": 3, "minimum": 0, "maximum": 100},
    "timeout": {"default": 300, "minimum": 1, "maximum": 86_400},
    "kb_id": {"minLength": 1, "maxLength": 255},
}

LIST: Final = {
    **{key: {"type": "array"} for key in ("kb_id", "status", "task_type", "priority", "worker_id")},
    **{key: {"type": "string"} for key in ("created_after", "created_before", "q", "cursor")},
    "page": {"minimum": 1},
    "page_size": {"minimum": 1, "maximum": 100, "default": 20},
    "sort_by": {"default": "created_at"},
    "sort_order": {"default": "desc"},
}


@pytest.fixture
async def described(api: httpx2.AsyncClient) -> Described:
    return (await api.get("/openapi.json")).json()


@pytest.mark.parametrize(("method", "path", "status"), ENDPOINTS)
async def test_every_endpoint_is_there(described: Described, method: str, path: str, status: int):
    assert str(status) in described["paths"][path][method.lower()]["responses"]


@pytest.mark.parametrize(("code", "status"), ERRORS.items())
def test_every_error_has_its_status(code: str, status: int):
    assert {str(known): told for known, (told, _) in ANSWERS.items()}[code] == status


@pytest.mark.parametrize(("shape", "fields"), FIELDS.items())
async def test_every_shape_has_its_fields_in_order(described: Described, shape: str, fields: str):
    assert list(described["components"]["schemas"][shape]["properties"]) == fields.split()


@pytest.mark.parametrize(("name", "values"), VALUES.items())
async def test_every_closed_set_has_its_values(described: Described, name: str, values: set[str]):
    assert set(described["components"]["schemas"][name]["enum"]) == values


@pytest.mark.parametrize(("field", "expected"), DEFAULTS.items())
async def test_a_submission_has_its_defaults_and_bounds(
    described: Described, field: str, expected: dict[str, Any]
):
    submission = described["components"]["schemas"]["Submission"]

    assert submission["required"] == ["task_type", "kb_id", "payload"]
    assert submission["additionalProperties"] is False
    assert submission["properties"][field] | expected == submission["properties"][field]


@pytest.mark.parametrize(("name", "expected"), LIST.items())
async def test_the_list_has_its_parameters(
    described: Described, name: str, expected: dict[str, Any]
):
    told = described["paths"]["/api/v1/tasks"]["get"]["parameters"]
    schema = next(of["schema"] for of in told if of.get("name") == name)

    assert schema | expected == schema


async def test_a_batch_holds_1_to_1000_and_a_wait_up_to_60_seconds(described: Described):
    batch = described["paths"]["/api/v1/tasks/batch"]["post"]["requestBody"]
    items = batch["content"]["application/json"]["schema"]
    parameters = described["paths"]["/api/v1/tasks/{task_id}"]["get"]["parameters"]
    wait = next(of["schema"] for of in parameters if of.get("name") == "wait")

    assert (items["minItems"], items["maxItems"]) == (1, 1_000)
    assert (wait["minimum"], wait["maximum"]) == (0, 60)


def test_1180_of_1250_is_a_success_rate_of_94_4():
    by_status = dict.fromkeys(Status, 0) | {Status.COMPLETED: 1_180, Status.FAILED: 70}
    stats = Stats(by_status, {}, dict.fromkeys(Priority, 0), process_ms=1_180 * 2_500)

    view = stats_view(stats)

    assert (view.success_rate, view.avg_process_time) == (94.4, 2.5)


async def test_a_task_is_served_in_the_order_of_the_contract(api: httpx2.AsyncClient):
    task = await submitted(api)

    [event] = (await api.get(f"{TASKS}/{task['id']}/events")).json()["events"]

    assert list(task) == FIELDS["Task"].split()
    assert list(event) == FIELDS["Event"].split()
