"""Callbacks that are what they say, and such that are not."""

import base64
import json
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest

from api.client import Callback, CallbackRejected, verify_callback
from consumers.signatures import Signer
from tests.api.requests import UNKNOWN_ID

SECRET = "whsec_" + base64.b64encode(b"a secret of thirty-two bytes ....").decode()
OTHER = "whsec_" + base64.b64encode(b"another one, as long as that ...").decode()
BODY = json.dumps(
    {
        **{"task_id": UNKNOWN_ID, "status": "completed", "result": {"chunks": 12}},
        **{"error_message": "", "completed_at": "2026-11-22T09:30:00.123Z"},
        **{"kb_id": "kb-ü", "task_type": "document_processing", "of_later": 1},
    }
).encode()


def signed(body: bytes = BODY, *secrets: str, age: timedelta = timedelta()) -> dict[str, str]:
    """The headers of a callback that the notifier signs with these secrets, in a server's case."""
    headers = Signer(secrets or (SECRET,)).headers("msg_1", datetime.now(UTC) - age, body)
    return {name.title(): value for name, value in headers.items()}


def test_a_signed_callback_is_read() -> None:
    callback = verify_callback(signed(), BODY, SECRET)

    assert callback == Callback(
        task_id=UNKNOWN_ID,
        status="completed",
        kb_id="kb-ü",
        task_type="document_processing",
        result={"chunks": 12},
        completed_at=datetime(2026, 11, 22, 9, 30, 0, 123_000, UTC),
        delivery_id="msg_1",
    )
    assert callback.succeeded


@pytest.mark.parametrize("signer", [SECRET, OTHER])
def test_while_secrets_change_either_will_do(signer: str) -> None:
    assert verify_callback(signed(BODY, signer), BODY, [OTHER, SECRET])


def test_a_sender_may_sign_with_both() -> None:
    assert verify_callback(signed(BODY, OTHER, SECRET), BODY, SECRET)


def test_another_secret_is_rejected() -> None:
    with pytest.raises(CallbackRejected, match="No matching signature"):
        verify_callback(signed(BODY, OTHER), BODY, SECRET)


def test_another_body_is_rejected() -> None:
    with pytest.raises(CallbackRejected, match="No matching signature"):
        verify_callback(signed(), BODY.replace(b"12", b"13"), SECRET)


@pytest.mark.parametrize("age", [timedelta(minutes=6), -timedelta(minutes=6)])
def test_another_time_is_rejected(age: timedelta) -> None:
    with pytest.raises(CallbackRejected, match="timestamp too"):
        verify_callback(signed(age=age), BODY, SECRET)


@pytest.mark.parametrize("missing", ["Webhook-Id", "Webhook-Timestamp", "Webhook-Signature"])
def test_what_is_not_signed_is_rejected(missing: str) -> None:
    headers = {name: value for name, value in signed().items() if name != missing}

    with pytest.raises(CallbackRejected, match="Missing required headers"):
        verify_callback(headers, BODY, SECRET)


@pytest.mark.parametrize("signature", ["v1", "v1,", "v1,@", "v1,äö", "v1,a,b", ",", "v2,YQ=="])
def test_a_signature_that_is_none_is_rejected(signature: str) -> None:
    with pytest.raises(CallbackRejected):
        verify_callback({**signed(), "Webhook-Signature": signature}, BODY, SECRET)


@pytest.mark.parametrize("timestamp", ["now", "nan", "inf", "1e999", "-1", "9" * 400])
def test_a_time_that_is_none_is_rejected(timestamp: str) -> None:
    with pytest.raises(CallbackRejected):
        verify_callback({**signed(), "Webhook-Timestamp": timestamp}, BODY, SECRET)


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b'{"task_id": 1}'])
def test_a_signed_body_that_is_no_callback_is_rejected(body: bytes) -> None:
    with pytest.raises(CallbackRejected, match="not that of a callback"):
        verify_callback(signed(body), body, SECRET)


def test_a_body_that_is_no_text_is_rejected() -> None:
    with pytest.raises(CallbackRejected, match="not UTF-8"):
        verify_callback(signed(), b"\xff", SECRET)


@pytest.mark.parametrize(
    "secrets", ["", "whsec_", "whsec_a", "whsec_YQ==", [SECRET, "whsec_" + "YQ" * 15], [], "äöü"]
)
def test_a_secret_that_is_none_is_the_callers_fault(secrets: str | list[str]) -> None:
    with pytest.raises(ValueError, match="secret"):
        verify_callback(signed(), BODY, secrets)


@pytest.mark.parametrize("secrets", [None, b"whsec_", [SECRET, None]])
def test_a_secret_that_is_no_text_is_told_by_what_it_is(secrets: Any) -> None:
    with pytest.raises(TypeError, match=r"expected a secret such as whsec_<base64>, got"):
        verify_callback(signed(), BODY, secrets)


def test_a_body_that_was_decoded_is_not_what_came() -> None:
    with pytest.raises(TypeError, match="as it came, in bytes, got str"):
        verify_callback(signed(), cast("Any", BODY.decode()), SECRET)
