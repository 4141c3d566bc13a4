"""The ledger's streams describe themselves: every event, from the struct that is stored."""

import json
import re
from pathlib import Path
from typing import Any

import httpx2
import jsonschema_rs
import msgspec
import pytest

from api.asyncapi import asyncapi
from ledger.codec import Meta
from ledger.events import EVENT_TYPES
from ledger.redis_store import RedisStore
from ledger.store import Position
from ledger.system.commands import PauseQueue
from ledger.system.events import SYSTEM_EVENT_TYPES
from ledger.system.transact import transact_system
from tests.api.requests import TASKS, body

GOLDEN = Path(__file__).parents[1] / "golden"
KINDS = {**EVENT_TYPES, **SYSTEM_EVENT_TYPES}


@pytest.fixture
def document() -> dict[str, Any]:
    return msgspec.json.decode(msgspec.json.encode(asyncapi(2)))


def resolved(document: dict[str, Any], reference: str) -> Any:
    node: Any = document
    for name in reference.removeprefix("#/").split("/"):
        node = node[name]
    return node


def references(document: dict[str, Any]) -> list[str]:
    """Every reference in the document."""
    return re.findall(r'"\$ref":"([^"]*)"', msgspec.json.encode(document).decode())


def schema_of(document: dict[str, Any], schema: dict[str, Any]) -> Any:
    """A validator that finds what the schema refers to."""
    return jsonschema_rs.validator_for({**schema, "components": document["components"]})


async def test_it_is_served_beside_the_api(api: httpx2.AsyncClient):
    answer = await api.get("/asyncapi.json")

    assert answer.status_code == 200
    assert answer.json()["asyncapi"] == "3.0.0"
    again = await api.get("/asyncapi.json", headers={"If-None-Match": answer.headers["etag"]})
    assert again.status_code == 304


def test_every_event_is_a_message_of_the_channel(document: dict[str, Any]):
    channel = document["channels"]["events"]

    assert channel["messages"].keys() == KINDS.keys()
    assert channel["parameters"]["stream"]["enum"] == ["{ledgerq:0}:events", "{ledgerq:1}:events"]
    for name in KINDS:
        message = document["components"]["messages"][name]
        assert message["name"] == name
        assert message["summary"].endswith("."), name


def test_every_reference_leads_somewhere(document: dict[str, Any]):
    found = references(document)

    assert len(found) > 3 * len(KINDS)
    for reference in found:
        assert isinstance(resolved(document, reference), dict)


def test_messages_of_the_operation_are_those_of_its_channel(document: dict[str, Any]):
    operation = document["operations"]["appendEvent"]

    assert operation["action"] == "send"
    assert resolved(document, operation["channel"]["$ref"]) == document["channels"]["events"]
    names = [message["$ref"].rsplit("/", 1)[1] for message in operation["messages"]]
    assert names == list(KINDS)


@pytest.mark.parametrize("name", KINDS)
def test_what_is_stored_is_as_it_is_described(document: dict[str, Any], name: str):
    newest = sorted(GOLDEN.glob(f"events/v*/{name}*.json")) or sorted(
        GOLDEN.glob(f"system/v*/{name}*.json")
    )
    payload = document["components"]["messages"][name]["payload"]

    schema_of(document, payload).validate(json.loads(newest[-1].read_bytes()))


async def test_entries_are_as_their_headers_say(
    api: httpx2.AsyncClient, store: RedisStore, document: dict[str, Any]
):
    await api.post(TASKS, json=body())
    await transact_system(store, PauseQueue("health_check"), Meta(actor="somebody"))

    events = await store.events_after(Position(0, "0-0"), 10, 1)

    assert [event.type for event in events] == ["TaskSubmitted", "QueuePaused"]
    for event in events:
        message = document["components"]["messages"][event.type]
        headers = {
            "type": event.type,
            "task": event.task_id,
            "version": str(event.version),
            "at": str(event.at),
            "meta": event.meta.decode(),
            "prev": event.prev,
        }
        schema_of(document, message["headers"]).validate(headers)
        schema_of(document, message["payload"]).validate(json.loads(event.data))
        meta = message["headers"]["properties"]["meta"]["contentSchema"]
        schema_of(document, meta).validate(json.loads(event.meta))
