"""What the news of a task's end is called, and whom it is for."""

from urllib.parse import urlsplit

from ledger.task import Task

TASK_ID_MARK = "{task_id}"
_PORTS = {"http": 80, "https": 443}


def host_of(url: str) -> str:
    """The host and port that a callback_url leads to, e.g. `hooks.example.org:443`, `[::1]:8082`.

    Of what cannot be taken apart, an older ledger's perhaps, it is the empty text.
    """
    try:
        parts = urlsplit(url)
        name, port = parts.hostname or "", parts.port or _PORTS.get(parts.scheme, 0)
    except ValueError:
        return ""
    return f"[{name}]:{port}" if ":" in name else f"{name}:{port}"


def url_of(task: Task) -> str | None:
    """Where the news goes: the callback_url with the task's id filled in."""
    url = task.submission.callback_url
    return None if url is None else url.replace(TASK_ID_MARK, task.id)


def message_id(task: Task) -> str:
    """The `webhook-id`: the same for every post about one end of a task, and for no other."""
    return f"{task.id}.{task.ending}"
