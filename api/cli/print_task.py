"""A task for a person to read."""

from collections.abc import Iterator
from typing import Any, Final

import msgspec

from api.cli.answers import Task
from api.cli.output import print_fields, shortened

JSON_CHARACTERS_MAX: Final = 400
"""A longer payload or result is cut; `--json` shows all of it."""


def print_task(task: Task) -> None:
    """What is set of the task, a field a line."""
    print_fields(list(_rows(msgspec.json.decode(task.json, type=dict[str, Any]))))


def _rows(task: dict[str, Any]) -> Iterator[tuple[str, str]]:
    yield "task", task["id"]
    yield "type", task["task_type"]
    yield "kb", task["kb_id"]
    yield "status", task["status"]
    yield "priority", task["priority"]
    if task["queue_position"]:
        yield "position", f"{task['queue_position']} in its queue"
    if task["status"] == "processing":
        yield "progress", f"{task['progress']} %"
    if task["message"]:
        yield "message", shortened(task["message"], JSON_CHARACTERS_MAX)
    yield "retries", f"{task['retry_count']} of {task['max_retries']}"
    yield "timeout", f"{task['timeout']} s"
    if task["error_message"]:
        kind = task["error_kind"] or "error"
        yield "error", f"{kind}: {shortened(task['error_message'], JSON_CHARACTERS_MAX)}"
    for name, label in TIMES.items():
        if task[name]:
            yield label, task[name]
    for name in ("worker_id", "callback_url"):
        if task[name]:
            yield name.partition("_")[0], task[name]
    for name in ("payload", "metadata", "result"):
        if task[name] is not None:
            yield name, shortened(msgspec.json.encode(task[name]).decode(), JSON_CHARACTERS_MAX)
    yield "version", str(task["version"])


TIMES: Final = {
    "created_at": "created",
    "schedule_for": "not before",
    "retry_at": "retry at",
    "started_at": "started",
    "completed_at": "ended",
}
