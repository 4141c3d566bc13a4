"""Task ids as callers give them."""

from typing import Any
from uuid import UUID

from api.client.errors import TaskNotFound
from ledger.identity import is_task_id

TaskId = str | UUID


def text_of(task_id: TaskId) -> str:
    """As the service writes it. Raises TypeError for what is no id, TaskNotFound for a text that
    cannot be one, and might lead to another path."""
    given: Any = task_id
    if not isinstance(given, str | UUID):
        raise TypeError(f"expected a task's id, got {type(given).__name__}")
    text = str(given)
    if not is_task_id(text):
        shown = text[:100]
        raise TaskNotFound(
            f"there is no task with the id {shown}",
            code="TASK_NOT_FOUND",
            status=404,
            details={"task_id": shown},
        )
    return text
