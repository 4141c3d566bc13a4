"""Between structs and stored bytes: nothing is lost, and nothing unreadable gets through."""

from typing import Any

import msgspec
import pytest
from hypothesis import given as for_all
from hypothesis import strategies as st

from ledger.codec import (
    Meta,
    Undecodable,
    UnknownEventType,
    decode_event,
    decode_meta,
    decode_task,
    encode,
)
from ledger.events import EVENT_TYPES, TaskCompleted, TaskProgressed, TaskSubmitted
from ledger.task import Task
from ledger.upcast import UPCASTERS
from tests.given import TASK_ID, a_submission
from tests.strategies import Life, json_objects, json_values, lives

DAMAGED = st.one_of(
    st.binary(max_size=40),
    st.sampled_from(
        [b"", b"null", b"[]", b'{"attempt":', b'{"kb_id":"\xff"}', b"\xff", b"[" * 9_999]
    ),
)


@for_all(lives())
def test_events_and_snapshots_come_back_as_they_were(life: Life):
    for event, _ in life.history:
        assert decode_event(type(event).__name__, encode(event)) == event
    task = life.task
    stored = (encode(task.submission), encode(task.state))
    assert decode_task(task.id, task.version, *stored) == task


@for_all(json_objects, json_objects, json_values)
def test_the_callers_json_is_kept_byte_for_byte(
    payload: msgspec.Raw, metadata: msgspec.Raw, result: msgspec.Raw
):
    submitted = a_submission(payload=bytes(payload), metadata=metadata)

    again = decode_event("TaskSubmitted", encode(submitted))
    completed = decode_event("TaskCompleted", encode(TaskCompleted(1, result)))

    assert isinstance(again, TaskSubmitted)
    assert isinstance(completed, TaskCompleted)
    assert bytes(again.payload) == bytes(payload)
    assert bytes(again.metadata) == bytes(metadata)
    assert bytes(completed.result) == bytes(result)


@for_all(st.sampled_from(sorted(EVENT_TYPES)), DAMAGED)
def test_damaged_events_are_undecodable_or_events_never_anything_else(name: str, data: bytes):
    try:
        event = decode_event(name, data)
    except Undecodable as error:
        assert name in str(error)
    else:
        assert type(event).__name__ == name


@for_all(DAMAGED, DAMAGED)
def test_damaged_snapshots_are_undecodable_or_tasks_never_anything_else(
    submission: bytes, state: bytes
):
    try:
        task = decode_task(TASK_ID, 1, submission, state)
    except Undecodable as error:
        assert TASK_ID in str(error)
    else:
        assert isinstance(task, Task)


@for_all(DAMAGED)
def test_damaged_meta_is_undecodable_or_meta_never_anything_else(data: bytes):
    try:
        meta = decode_meta(data)
    except Undecodable:
        return
    assert isinstance(meta, Meta)


def test_a_submission_without_metadata_is_stored_without_it():
    submitted = a_submission(metadata=msgspec.Raw(b""))

    assert encode(submitted) == b'{"task_type":"document_processing","kb_id":"kb","payload":{}}'


def test_an_event_of_a_later_version_is_told_apart():
    with pytest.raises(UnknownEventType, match="'TaskDelegated' is unknown to this version"):
        decode_event("TaskDelegated", b"{}")


def test_a_field_of_a_later_version_is_passed_over():
    event = decode_event("TaskProgressed", b'{"attempt":1,"progress":5,"eta":"soon"}')

    assert event == TaskProgressed(1, 5)


def test_an_old_shape_is_lifted_and_its_payload_untouched():
    def lift(old: dict[str, msgspec.Raw]) -> tuple[str, dict[str, Any]]:
        fields = {"task_type": old["kind"], "kb_id": "default", "payload": old["payload"]}
        return "TaskSubmitted", fields

    data = b'{"kind":"health_check","payload":{"a" : 1.50}}'

    event = decode_event("TaskQueued", data, {"TaskQueued": lift})

    assert event == a_submission(task_type="health_check", kb_id="default", payload=b'{"a" : 1.50}')


def test_an_upcaster_may_keep_the_name():
    def lift(old: dict[str, msgspec.Raw]) -> tuple[str, dict[str, Any]]:
        return "TaskProgressed", {"attempt": 1, **old}

    event = decode_event("TaskProgressed", b'{"progress":5}', {"TaskProgressed": lift})

    assert event == TaskProgressed(1, 5)


def test_what_an_upcaster_makes_is_checked():
    def lift(old: dict[str, msgspec.Raw]) -> tuple[str, dict[str, Any]]:
        return "TaskProgressed", {**old, "progress": "half"}

    with pytest.raises(Undecodable, match="TaskProgressed"):
        decode_event("TaskProgressed", b'{"attempt":1}', {"TaskProgressed": lift})


def test_upcasters_stand_under_names_that_golden_files_know():
    assert set(UPCASTERS) <= set(EVENT_TYPES)
