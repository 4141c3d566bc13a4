"""What an upload's fields and files become: one submission for each file."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final

import msgspec

from api.errors import ApiError, ErrorCode, invalid
from api.intake import (
    ABOUT_CALLBACK,
    ABOUT_SCHEDULE,
    ENVELOPE_BYTES_MAX,
    CallbackUrl,
    Intake,
    ScheduleTime,
)
from api.multipart_form import FileHead
from api.refusals import UNREADABLE
from api.scalars import Count, KbId, MaxRetries, TaskId, TaskTypeName, TimeoutSeconds, of_setting
from api.staging import StagedFile
from ledger.events import Priority, TaskSubmitted
from ledger.settings import Settings

DEFAULT_TASK_TYPE: Final = "document_processing"
STATUS: Final = "uploaded"

_TEXTS: Final = ("kb_id", "task_type", "priority", "callback_url", "schedule_for")
_NUMBERS: Final = ("max_retries", "timeout")
_OBJECTS: Final = ("payload", "metadata")
_WHOLE = re.compile(r"0|-?[1-9][0-9]{0,20}")

_encode = msgspec.json.encode
_decode_object = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


class FileFacts(msgspec.Struct, frozen=True):
    """What is merged into the payload of a file's task."""

    file_path: Annotated[
        str,
        msgspec.Meta(description="The object's key: what handlers open it by."),
    ]
    filename: Annotated[str, msgspec.Meta(description="Its name, as the caller sent it.")]
    size: Annotated[Count, msgspec.Meta(description="In bytes.")]
    content_type: Annotated[str, msgspec.Meta(description="As the caller sent it.")]
    sha256: Annotated[
        str,
        msgspec.Meta(description="Of its bytes.", extra_json_schema={"pattern": "^[0-9a-f]{64}$"}),
    ]


class UploadedFile(FileFacts, frozen=True):
    """A file, and the task that was made for it."""

    task_id: TaskId


class Uploaded(msgspec.Struct, frozen=True):
    """The tasks of an upload, one for each file, in the files' order."""

    task_id: Annotated[TaskId, msgspec.Meta(description="The first file's task.")]
    task_ids: list[TaskId]
    status: Annotated[str, msgspec.Meta(extra_json_schema={"const": STATUS})]
    message: str
    files: list[UploadedFile]


def field_bounds(settings: Settings) -> dict[str, int]:
    """The known fields, and how many bytes each may have."""
    bounds: dict[str, int] = dict.fromkeys((*_TEXTS, *_NUMBERS), ENVELOPE_BYTES_MAX)
    return bounds | dict.fromkeys(_OBJECTS, settings.payload_bytes_max)


class UploadFields:
    """Checks fields as the body of a submission is checked."""

    def __init__(self, intake: Intake, settings: Settings) -> None:
        self._intake = intake
        self._bytes_max = settings.batch_body_bytes_max

    def early(self, fields: Mapping[str, str]) -> TaskSubmitted | None:
        """What came before the first file, if it says whose the tasks are. Raises ApiError."""
        if "kb_id" not in fields:
            return None
        document = _document(fields, _payload(fields), None)
        return self._intake.submission(document, "")

    def submissions(
        self, fields: Mapping[str, str], files: Sequence[FileFacts], digest: str
    ) -> list[TaskSubmitted]:
        """A submission for each file. Raises ApiError: nothing is to be made of the upload then."""
        payload = _payload(fields)
        # A payload of the largest size, and many files, would be more than any batch may be.
        size = len(files) * sum(len(fields.get(name, "")) for name in _OBJECTS)
        if size > self._bytes_max:
            raise ApiError(
                ErrorCode.PAYLOAD_TOO_LARGE,
                f"payload: for {len(files)} files, each of which gets it, it comes to {size} bytes",
                {"field": "payload", "expected": f"at most {self._bytes_max} bytes in all"},
            )
        return [
            self._intake.submission(_document(fields, payload, facts), digest) for facts in files
        ]


def digest_of(fields: Mapping[str, str], files: Sequence[tuple[FileHead, StagedFile]]) -> str:
    """What tells an upload that is sent again from another one: the boundary, and the order of the
    fields, are chance."""
    bytes_of = [(head, file.size, file.sha256) for head, file in files]
    parts: list[Any] = [sorted(fields.items()), bytes_of]
    return hashlib.sha256(_encode(parts)).hexdigest()


def _payload(fields: Mapping[str, str]) -> bytes:
    """The payload as it was sent, without its braces. Raises ApiError."""
    text = fields.get("payload", "{}").encode()
    try:
        names = _decode_object(text)
    except UNREADABLE as error:
        raise invalid(
            "payload", "a JSON object", f"payload: expected a JSON object ({error})"
        ) from None
    ours = [name for name in FileFacts.__struct_fields__ if name in names]
    if ours:
        raise invalid(
            "payload", f"an object without {', '.join(ours)}: what the file is, is filled in here"
        )
    return text.strip()[1:-1]


def _document(fields: Mapping[str, str], payload: bytes, facts: FileFacts | None) -> bytes:
    """The submission as a caller of `POST /api/v1/tasks` would send it."""
    merged = b"{" + payload + b"}"
    if facts is not None:
        comma = b"," if payload.strip() else b""
        merged = b"{" + payload + comma + _encode(facts)[1:]
    found = {"task_type": _encode(DEFAULT_TASK_TYPE)}
    for name, value in fields.items():
        match name:
            case "payload":
                pass
            case "metadata":
                found[name] = _object(name, value)
            case "max_retries" | "timeout" if _WHOLE.fullmatch(value):
                found[name] = value.encode()
            case _:
                found[name] = _encode(value)
    found["payload"] = merged
    return b"{" + b",".join(b'"%s":%s' % (name.encode(), v) for name, v in found.items()) + b"}"


def _object(name: str, value: str) -> bytes:
    try:
        _decode_object(value)
    except UNREADABLE as error:
        raise invalid(name, "a JSON object", f"{name}: expected a JSON object ({error})") from None
    return value.encode()


_JSON_OBJECT: Final = {"type": "object"}


class UploadForm(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The parts of an upload, for its description: files, and the fields of a submission."""

    file: Annotated[
        Any,
        msgspec.Meta(
            description="The files: parts with a file name, under any name that is no field's.",
            extra_json_schema={
                **of_setting("upload_files_max"),
                "type": "array",
                "minItems": 1,
                "items": {
                    "type": "string",
                    "minLength": 1,
                    "contentMediaType": "application/octet-stream",
                },
            },
        ),
    ]
    kb_id: KbId
    task_type: TaskTypeName = DEFAULT_TASK_TYPE
    payload: Annotated[
        msgspec.Raw,
        msgspec.Meta(
            description="The caller's data; what the file is, is merged into it.",
            extra_json_schema={
                **_JSON_OBJECT,
                "not": {
                    "anyOf": [{"required": [name]} for name in FileFacts.__struct_fields__],
                },
            },
            examples=[{"language": "en"}],
        ),
    ] = msgspec.field(default_factory=msgspec.Raw)
    priority: Priority = Priority.NORMAL
    max_retries: MaxRetries = 3
    timeout: TimeoutSeconds = 300
    schedule_for: Annotated[ScheduleTime | msgspec.UnsetType, ABOUT_SCHEDULE] = msgspec.UNSET
    callback_url: Annotated[CallbackUrl | msgspec.UnsetType, ABOUT_CALLBACK] = msgspec.UNSET
    metadata: Annotated[
        msgspec.Raw,
        msgspec.Meta(
            description="Further data of the caller's.",
            extra_json_schema=_JSON_OBJECT,
            examples=[{"source": "crawler"}],
        ),
    ] = msgspec.field(default_factory=msgspec.Raw)
