"""The AsyncAPI document of the ledger's streams, made from the structs that its events are.

Entries of a stream are maps of texts: what tells of an event stands in the message's headers, and
its data, which is JSON, is the payload. An event that `ledger.events` gets is here by itself.
"""

from typing import Any, Final

import msgspec

from ledger import __version__
from ledger.codec import Meta
from ledger.events import EVENT_TYPES
from ledger.identity import SYSTEM
from ledger.keys import PartitionKeys
from ledger.system.events import SYSTEM_EVENT_TYPES

Schema = dict[str, Any]

REF: Final = "#/components/schemas/{name}"

ABOUT: Final = """\
Every change of a task is an event in a Redis stream, in order, and stays there. The streams are \
public: any client in any language may read them, best through a consumer group of its own \
(`XGROUP CREATE`, `XREADGROUP`, `XACK`, `XAUTOCLAIM`).

This format changes only by addition: pass over events that are not named here, and fields that \
you do not know. Every event is delivered at least once; (`task`, `version`) tells it from any \
other."""

ENTRY: Final = """\
An entry of the stream has the fields `type`, `task`, `version`, `at`, `data`, `meta` and `prev`, \
always in this order, and all of them as text. `data` is the payload, the others are the headers. \
Entries of one partition are in order of time."""

STREAM: Final = """\
The stream of one partition. A task is in one for good: the last four hexadecimal digits of its \
id, as a number, modulo the number of partitions, which is the field `partitions` of the hash \
`{ledgerq:0}:ledger`."""

_UUID: Final = "^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$"
_ENTRY: Final = r"^[0-9]+-[0-9]+$"
_NUMBER: Final = "^[0-9]+$"


def asyncapi(partitions: int) -> Schema:
    """The document, as JSON would be, of a ledger with so many partitions."""
    kinds = {**EVENT_TYPES, **SYSTEM_EVENT_TYPES}
    stored = [*map(_stored, kinds.values()), Meta]
    _, schemas = msgspec.json.schema_components(stored, ref_template=REF)
    messages = {name: _message(name, kind, kind in _of_tasks) for name, kind in kinds.items()}
    streams = [PartitionKeys(partition).events for partition in range(partitions)]
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "ledgerq: the ledger",
            "version": __version__,
            "description": ABOUT,
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "servers": {
            "redis": {
                "host": "localhost:6379",
                "protocol": "redis",
                "description": "The Redis or Valkey that the service was given. The one that"
                " `ledgerq up` starts listens on a Unix socket in its data directory alone.",
            }
        },
        "channels": {
            "events": {
                "address": "{stream}",
                "title": "The events of a partition",
                "description": ENTRY,
                "parameters": {
                    "stream": {"description": STREAM, "enum": streams, "default": streams[0]}
                },
                "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in messages},
            }
        },
        "operations": {
            "appendEvent": {
                "action": "send",
                "channel": {"$ref": "#/channels/events"},
                "summary": "ledgerq appends events; whoever follows the ledger reads them.",
                "messages": [{"$ref": f"#/channels/events/messages/{name}"} for name in messages],
            }
        },
        "components": {"messages": messages, "schemas": schemas},
    }


_of_tasks: Final = frozenset(EVENT_TYPES.values())


def _message(name: str, kind: type[Any], of_task: bool) -> Schema:
    summary, stop, rest = " ".join((kind.__doc__ or "").split()).partition(". ")
    described: Schema = {"name": name, "title": name, "summary": summary + stop.strip()}
    if rest:
        described["description"] = rest
    return described | {
        "tags": [{"name": "task" if of_task else SYSTEM}],
        "headers": _headers(name, of_task),
        "payload": {"$ref": REF.format(name=name)},
    }


def _headers(name: str, of_task: bool) -> Schema:
    subject: Schema = {"pattern": _UUID} if of_task else {"const": SYSTEM}
    fields: Schema = {
        "type": {"const": name},
        "task": subject | {"description": "Whose event it is."},
        "version": _text(_NUMBER, "1 for the first event of the task, then one more each."),
        "at": _text(_NUMBER, "When it happened: milliseconds since 1970."),
        "meta": {
            "description": "Who made it happen, and why; JSON as text.",
            "contentMediaType": "application/json",
            "contentSchema": {"$ref": REF.format(name="Meta")},
        },
        "prev": _text(rf"^$|{_ENTRY}", "The entry id of the task's previous event; or empty."),
    }
    properties = {field: {"type": "string"} | schema for field, schema in fields.items()}
    return {"type": "object", "required": list(properties), "properties": properties}


def _text(pattern: str, description: str) -> Schema:
    return {"pattern": pattern, "description": description}


def _stored(kind: type[msgspec.Struct]) -> type[msgspec.Struct]:
    """The struct with JSON of any kind where JSON is kept as it is; absent where there is none."""
    fields = [
        (of.name, Any, msgspec.UNSET)
        if of.type is msgspec.Raw and not of.required
        else (of.name, Any if of.type is msgspec.Raw else of.type, *_default(of))
        for of in msgspec.structs.fields(kind)
    ]
    return msgspec.defstruct(kind.__name__, fields, namespace={"__doc__": kind.__doc__})


def _default(of: msgspec.structs.FieldInfo) -> tuple[Any, ...]:
    return () if of.required else (of.default,)
