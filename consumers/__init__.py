"""What a worker's author imports: handlers, their context, and the error that is not retried."""

from consumers.context import Context
from consumers.handlers import PermanentError, handler
from ledger.retry_policy import RetryPolicy

__all__ = ["Context", "PermanentError", "RetryPolicy", "handler"]
