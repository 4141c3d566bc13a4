"""What a worker's author imports: handlers, their context, and what they say by raising."""

from consumers.classification import PermanentError, RetryLater
from consumers.context import Context
from consumers.handlers import handler
from ledger.retry_policy import RetryPolicy

__all__ = ["Context", "PermanentError", "RetryLater", "RetryPolicy", "handler"]
