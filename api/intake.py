"""From a request's bytes to a submission: every bound and shape of a new task is checked here.

One strict decode checks types, ranges and unknown fields; the payload's bytes are not decoded but
kept as they came. What that decode does not look at (UTF-8, that payload and metadata are objects,
sizes, depth, hosts) is checked around it. An error names the field and what was expected.
"""

import hashlib
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Final

import msgspec

from api.bodies import BodyReader
from api.errors import ApiError
from api.kb_ids import KB_ID_EXPECTED, is_kb_id
from api.refusals import UNREADABLE, Refusals
from api.scalars import (
    KbId,
    MaxRetries,
    Metadata,
    Payload,
    Percent,
    TaskTypeName,
    TimeoutSeconds,
    of_setting,
)
from api.whole_numbers import decoded
from api.wire import moment_ms
from ledger.allow_list import PORT_MIN, URL_CHARACTERS_MAX, AllowList
from ledger.codec import encode
from ledger.events import NO_JSON, Priority, TaskSubmitted
from ledger.nesting import is_too_deep
from ledger.settings import Settings

ENVELOPE_BYTES_MAX: Final = 64 * 1024
"""Room in a submission's body for all that is neither payload nor metadata."""

PROGRESS_BODY_BYTES_MAX: Final = 64 * 1024

_DIGITS_ALIKE: Final = bytes.maketrans(b"123456789E", b"000000000e")
_MANY_DIGITS: Final = b"0" * 300


ScheduleTime = Annotated[datetime, msgspec.Meta(tz=True)]
ABOUT_SCHEDULE: Final = msgspec.Meta(
    description="Not taken before this time.", examples=["2030-01-31T09:30:00Z"]
)
CallbackUrl = Annotated[
    str,
    msgspec.Meta(max_length=URL_CHARACTERS_MAX, extra_json_schema=of_setting("callback_hosts")),
]
ABOUT_CALLBACK: Final = msgspec.Meta(
    description="Called when the task has finished; its host must be on the allow-list. "
    "`{task_id}` in it is filled in.",
    examples=["http://localhost:8082/api/v1/tasks/{task_id}/callback"],
)


class SubmissionBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    """What a caller hands over: the body of a submission, and one item of a batch."""

    task_type: TaskTypeName
    kb_id: KbId
    payload: Payload
    priority: Priority = Priority.NORMAL
    max_retries: MaxRetries = 3
    timeout: TimeoutSeconds = 300
    schedule_for: Annotated[ScheduleTime | None, ABOUT_SCHEDULE] = None
    callback_url: Annotated[CallbackUrl | None, ABOUT_CALLBACK] = None
    metadata: Metadata | msgspec.UnsetType = msgspec.UNSET


Batch = Annotated[
    list[SubmissionBody],
    msgspec.Meta(min_length=1, extra_json_schema=of_setting("batch_items_max")),
]
"""The body of a batch, for its description: the items are decoded one by one."""


class ProgressBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How far a handler outside this service has come."""

    progress: Percent
    message: (
        Annotated[
            str,
            msgspec.Meta(max_length=4_096, description="For people; left out, the last one stays."),
        ]
        | msgspec.UnsetType
    ) = msgspec.UNSET


class Intake:
    """Checks what callers send against the settings."""

    def __init__(self, settings: Settings) -> None:
        self._task_types = frozenset(settings.known_task_types)
        self._payload_bytes_max = settings.payload_bytes_max
        self._batch_items_max = settings.batch_items_max
        self._callback_hosts = AllowList(settings.callback_hosts)
        self._callback_urls = settings.callback_url_of
        self._result_bytes_max = settings.result_bytes_max
        self._refusals = Refusals({**expected_of_submission(settings), "result": "a JSON value"})
        self._progress = BodyReader(ProgressBody, EXPECTED_OF_PROGRESS)
        self.body_bytes_max = 2 * settings.payload_bytes_max + ENVELOPE_BYTES_MAX
        self.batch_body_bytes_max = settings.batch_body_bytes_max
        self._decode_one = msgspec.json.Decoder(SubmissionBody).decode
        self._decode_items = msgspec.json.Decoder(list[msgspec.Raw]).decode

    def submission(self, body: bytes, body_sha256: str) -> TaskSubmitted:
        """The one submission in `body`. Raises ApiError: 400, or 413 for too large a payload."""
        try:
            body.decode()
            sent = self._decoded(body)
        except UNREADABLE as error:
            raise self._refusals.unreadable(error, body) from None
        return self._checked(sent, body_sha256, None)

    def given(
        self, fields: Mapping[str, object], key: str | None, index: int | None = None
    ) -> TaskSubmitted:
        """The submission whose fields did not come as one JSON document; `payload` and `metadata`
        are bytes. `key` is its Idempotency-Key. Raises ApiError as `submission` does, or as `batch`
        does for the item at `index`."""
        documents = {
            name: self.document(name, value, index)
            for name, value in fields.items()
            if isinstance(value, bytes)
        }
        try:
            sent = msgspec.convert({**fields, **documents}, SubmissionBody)
        except UNREADABLE as error:
            raise self._refusals.unreadable(error, b"", index) from None
        digest = "" if key is None else hashlib.sha256(encode(sent)).hexdigest()
        return self._checked(sent, digest, index)

    def document(self, field: str, value: bytes, index: int | None = None) -> msgspec.Raw:
        """`value` as the JSON that it is. Raises ApiError (400)."""
        try:
            value.decode()
            return msgspec.json.decode(value, type=msgspec.Raw)
        except RecursionError:
            raise self._refusals.too_deep(field, index) from None
        except UNREADABLE as error:
            raise self._refusals.wrong(field, index, str(error)[:200]) from None

    def result(self, value: bytes) -> msgspec.Raw:
        """What a handler outside this process returned. Raises ApiError: 400, or 413."""
        result = self.document("result", value)
        self._check_document("result", bytes(result), None, self._result_bytes_max)
        return result

    def wrong(self, field: str, index: int | None = None) -> ApiError:
        """400: the field of a submission is not what it must be."""
        return self._refusals.wrong(field, index)

    def batch(self, body: bytes, body_sha256: str) -> list[TaskSubmitted]:
        """All submissions in `body`, or none: an error names the item's index and field."""
        try:
            body.decode()
            items = self._decode_items(body)
        except msgspec.ValidationError as error:
            raise self._refusals.no_batch(self._batch_items_max, str(error)) from None
        except UNREADABLE as error:
            raise self._refusals.unreadable(error, body) from None
        # Counted before they are decoded: a body may hold far more than a batch may.
        if not 1 <= len(items) <= self._batch_items_max:
            raise self._refusals.no_batch(self._batch_items_max, f"got {len(items)}")
        return [self._item(item, body_sha256, index) for index, item in enumerate(items)]

    def _item(self, item: msgspec.Raw, body_sha256: str, index: int) -> TaskSubmitted:
        try:
            sent = self._decoded(item)
        except UNREADABLE as error:
            raise self._refusals.unreadable(error, bytes(item), index) from None
        return self._checked(sent, body_sha256, index)

    def progress(self, body: bytes) -> ProgressBody:
        """The progress report in `body`. Raises ApiError (400)."""
        return self._progress.read(body)

    def _decoded(self, document: bytes | msgspec.Raw) -> SubmissionBody:
        return decoded(self._decode_one, document)

    # -- what the decode does not check -------------------------------------------------------

    def _checked(self, sent: SubmissionBody, body_sha256: str, index: int | None) -> TaskSubmitted:
        if sent.task_type not in self._task_types:
            raise self._refusals.wrong("task_type", index)
        if not is_kb_id(sent.kb_id):
            raise self._refusals.wrong("kb_id", index)
        self._check_object("payload", sent.payload, index)
        metadata = sent.metadata
        if metadata is msgspec.UNSET or bytes(metadata) == b"null":
            metadata = NO_JSON
        else:
            self._check_object("metadata", metadata, index)
        callback_url = sent.callback_url
        if callback_url is None:
            callback_url = self._callback_urls.get(sent.task_type)
        elif not self._callback_hosts.allows_url(callback_url):
            raise self._refusals.wrong("callback_url", index)
        return TaskSubmitted(
            sent.task_type,
            sent.kb_id,
            sent.payload,
            sent.priority,
            sent.max_retries,
            sent.timeout,
            None if sent.schedule_for is None else self._schedule_ms(sent.schedule_for, index),
            callback_url,
            metadata,
            body_sha256,
        )

    def _check_object(self, field: str, raw: msgspec.Raw, index: int | None) -> None:
        data = bytes(raw)
        if data[0] != 0x7B:
            raise self._refusals.wrong(field, index)
        self._check_document(field, data, index, self._payload_bytes_max)

    def _check_document(self, field: str, data: bytes, index: int | None, bytes_max: int) -> None:
        if len(data) > bytes_max:
            raise self._refusals.too_large(field, index, len(data), bytes_max)
        if is_too_deep(data):
            raise self._refusals.too_deep(field, index)
        if _may_hold_huge_number(data):
            try:
                msgspec.json.decode(data)
            except UNREADABLE as error:
                raise self._refusals.huge_number(field, index, str(error)) from None

    def _schedule_ms(self, moment: datetime, index: int | None) -> int:
        try:
            return moment_ms(moment)
        except OverflowError:
            raise self._refusals.wrong("schedule_for", index) from None


EXPECTED_OF_PROGRESS: Final = {
    "progress": "a whole number from 0 to 100",
    "message": "text of at most 4096 characters",
}


def expected_of_submission(settings: Settings) -> dict[str, str]:
    """What each field of a submission must be, in words, in the contract's order."""
    hosts = ", ".join(settings.callback_hosts) or "none"
    return {
        "task_type": f"one of {', '.join(settings.known_task_types)}",
        "kb_id": KB_ID_EXPECTED,
        "payload": "a JSON object",
        "priority": f"one of {', '.join(reversed([p.value for p in Priority]))}",
        "max_retries": "a whole number from 0 to 100",
        "timeout": "a whole number of seconds from 1 to 86400",
        "schedule_for": "null, or an RFC 3339 time with an offset, such as 2030-01-31T09:30:00Z",
        "callback_url": f"null, or an http(s) URL of at most {URL_CHARACTERS_MAX} characters whose "
        f"host is one of {hosts}, on port 80, 443 or one from {PORT_MIN} on unless the list names "
        "another, without credentials or fragment",
        "metadata": "null, or a JSON object",
    }


def _may_hold_huge_number(document: bytes) -> bool:
    """Whether it is worth a whole decode to see that every number in valid JSON can be read.

    Numbers above 1.8e308 take an exponent or that many digits. Two scans for what looks like
    either, in text too, cost next to nothing on what has none.
    """
    alike = document.translate(_DIGITS_ALIKE)
    return b"0e" in alike or _MANY_DIGITS in alike
