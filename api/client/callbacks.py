"""Callbacks as their receiver sees them: who sent them is checked, then they are read.

https://www.standardwebhooks.com: the signature covers id, time and body.
"""

import base64
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final, cast

import msgspec
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from api.client.errors import LedgerqError
from ledger.task import Status

PREFIX: Final = "whsec_"
SECRET_BYTES_MIN: Final = 24
"""As the standard says, and as the service takes them."""


class Callback(msgspec.Struct, frozen=True, kw_only=True):
    """How a task ended."""

    task_id: str
    status: str
    """completed, failed or canceled."""
    kb_id: str
    task_type: str
    result: Any = None
    error_message: str = ""
    completed_at: datetime | None = None
    delivery_id: str = ""
    """The `webhook-id`: the same one each time that this callback is delivered."""

    @property
    def succeeded(self) -> bool:
        """Whether the task was completed."""
        return self.status == Status.COMPLETED


class CallbackRejected(LedgerqError):
    """Not signed with any of the secrets, too old, or not readable: answer 400, and do nothing."""

    def __init__(self, message: str) -> None:
        super().__init__(message, code="CALLBACK_REJECTED", status=400)


def verify_callback(
    headers: Mapping[str, str], body: bytes, secrets: str | Sequence[str]
) -> Callback:
    """The callback, if its signature is that of one of the secrets (`whsec_…`) and its time no more
    than five minutes from now. Several secrets: while they are changed, the new and the old one.

    `body` is the request's as it came, byte for byte. A callback may come more than once, and says
    so by its `delivery_id`. Raises CallbackRejected; TypeError for a body that is no bytes,
    ValueError and TypeError for secrets that are none.
    """
    given_body: Any = body
    if not isinstance(given_body, bytes):
        kind = type(given_body).__name__
        raise TypeError(f"expected the body of the request as it came, in bytes, got {kind}")
    keys = [_webhook(each) for each in _each(secrets)]
    if not keys:
        raise ValueError("expected at least one secret")
    given = {name.lower(): value for name, value in headers.items()}
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        raise CallbackRejected("the body is not UTF-8") from error
    _verify(keys, given, text)
    try:
        told = msgspec.json.decode(body, type=Callback)
    except msgspec.MsgspecError as error:
        raise CallbackRejected(f"the body is not that of a callback: {error}") from error
    return msgspec.structs.replace(told, delivery_id=given["webhook-id"])


def _each(secrets: Any) -> Sequence[Any]:
    is_many = isinstance(secrets, Sequence) and not isinstance(secrets, str | bytes)
    return cast("Sequence[Any]", secrets) if is_many else [secrets]


def _webhook(secret: Any) -> Webhook:
    # The secret itself is not for logs.
    if not isinstance(secret, str):
        raise TypeError(f"expected a secret such as whsec_<base64>, got {type(secret).__name__}")
    try:
        key = base64.b64decode(secret.removeprefix(PREFIX) + "==")
    except ValueError as error:
        raise ValueError(f"expected a secret such as whsec_<base64>: {error}") from error
    if len(key) < SECRET_BYTES_MIN:
        raise ValueError(
            f"expected a secret such as whsec_<base64>, of {SECRET_BYTES_MIN} bytes or more:"
            f" this one has {len(key)}"
        )
    return Webhook(key)


def _verify(keys: Sequence[Webhook], headers: dict[str, str], text: str) -> None:
    reason = ""
    for key in keys:
        try:
            key.verify(text, headers, json_parse=False)
        except WebhookVerificationError as error:
            reason = str(error)
        except ValueError:
            # A signature that is none is not caught by the library.
            reason = "webhook-signature is malformed"
        else:
            return
    raise CallbackRejected(f"{reason} (signed as standardwebhooks.com says?)")
