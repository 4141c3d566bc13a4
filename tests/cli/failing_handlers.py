"""A handler that fails as its payload says, the first time that its task is run."""

from typing import Any

from consumers import Context, PermanentError, handler


@handler("document_processing")
def fail_once(context: Context, payload: dict[str, Any]) -> None:
    if context.attempt == 1:
        raise PermanentError(payload["error"])
