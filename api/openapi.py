"""The OpenAPI document, made from the table that routes and the structs that parse and shape.

Nothing here knows a single endpoint. What a caller may send and get follows from the route (path,
method), from the `Operation` beside the endpoint, and from the structs that it names; what depends
on the settings (task types, bounds) is filled in last.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast

import msgspec
from starlette.routing import Route

from api.describe import (
    READING,
    REQUEST_ID,
    REQUEST_ID_HEADER,
    RETRY_AFTER,
    Answer,
    Code,
    Group,
    HeaderInfo,
    Operation,
    described,
)
from api.errors import ANSWERS, ErrorBody, ErrorCode
from api.openapi_parts import REF, Parts, Schema, finished
from api.scalars import ID_EXAMPLE, SETTING_MARK, KbId, TaskId, TaskTypeName
from ledger import __version__
from ledger.rejections import RejectionCode
from ledger.settings import Settings

if TYPE_CHECKING:
    from api.resource import Resource

JSON: Final = "application/json"
PATH_PARAMETERS: Final[Mapping[str, Any]] = {
    "task_id": TaskId,
    "task_type": TaskTypeName,
    "kb_id": KbId,
}
ANYWHERE: Final = (
    ErrorCode.INVALID_REQUEST,
    ErrorCode.HEADERS_TOO_LARGE,
    ErrorCode.INTERNAL_ERROR,
    RejectionCode.SERVICE_UNAVAILABLE,
)
"""What every endpoint may answer."""
WITH_BODY: Final = (*READING, ErrorCode.UNSUPPORTED_MEDIA_TYPE)
"""What is added where a body is taken."""

GROUPS: Final[Mapping[Group, str]] = {
    Group.TASKS: "Submit tasks, read them, and change their course.",
    Group.STATISTICS: "What is going on: counts, rates, queues and workers.",
    Group.CONTROL: "Hold tasks back: whole types, or what would be too many at once.",
    Group.FEED: "The ledger as it grows.",
    Group.OPERATIONS: "For probes, monitoring and tools.",
}

ABOUT: Final = """\
A task manager that other services call: hand work over in milliseconds, watch it, prove its \
history.

JSON in and out, in UTF-8. Times are RFC 3339 in UTC, ids lower-case UUIDs. Unknown fields and \
parameters are refused, by name. Every error has the shape `Error`, and every answer carries \
`X-Request-ID`.

A write answers with `Ledger-Position`; a read that sends it back sees at least that write. `HEAD` \
is answered wherever `GET` is, `OPTIONS` everywhere with `Allow`; any other method gets 405 \
`METHOD_NOT_ALLOWED` with `Allow`, and a path that leads nowhere 404 `NOT_FOUND`."""


class Described(NamedTuple):
    """One endpoint: where it is, and what it says of itself."""

    path: str
    method: str
    operation: Operation


def endpoints(table: Sequence[Route]) -> Iterator[Described]:
    """Every endpoint of the table that is not left out on purpose.

    Raises LookupError for one without a description.
    """
    for route in table:
        if not route.include_in_schema:
            continue
        for method, endpoint in cast("Resource", route.app).endpoints.items():
            operation = described(endpoint)
            if operation is None:
                raise LookupError(f"{method} {route.path}: put @operation above {endpoint!r}")
            yield Described(route.path_format, method, operation)


def document(table: Sequence[Route], settings: Settings) -> Schema:
    """The document, as JSON would be."""
    found = list(endpoints(table))
    parts = Parts(_types_of(found), [e.operation.query for e in found if e.operation.query])
    paths: Schema = {}
    for endpoint in found:
        item = paths.setdefault(endpoint.path, {"parameters": _in_path(endpoint.path)})
        item[endpoint.method.lower()] = _operation(endpoint, parts, found)
    for item in paths.values():
        if not item["parameters"]:
            del item["parameters"]
    whole: Schema = {
        "openapi": "3.1.0",
        "info": {
            "title": "ledgerq",
            "version": __version__,
            "summary": "An event-sourced task manager on Redis Streams.",
            "description": ABOUT,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/", "description": "where this document comes from"}],
        "tags": [
            {"name": group.value, "description": text}
            for group, text in GROUPS.items()
            if any(endpoint.operation.group is group for endpoint in found)
        ],
        "paths": paths,
        "components": parts.components,
    }
    return finished(whole, settings)


def _types_of(found: Iterable[Described]) -> list[Any]:
    types: list[Any] = [ErrorBody]
    for _, _, operation in found:
        types += (a.shape for a in operation.answers.values() if a.shape is not None)
        if operation.body is not None:
            types.append(operation.body)
    return types


# -- one operation --------------------------------------------------------------------------------


def _operation(endpoint: Described, parts: Parts, all_of_them: list[Described]) -> Schema:
    operation = endpoint.operation
    described: Schema = {
        "operationId": operation.id,
        "tags": [operation.group.value],
        "summary": operation.summary,
    }
    if operation.description:
        described["description"] = operation.description
    headers = (*operation.headers, REQUEST_ID_HEADER)
    parameters = [
        *_query(operation, parts),
        *(parts.shared("parameters", h.name, _header_parameter(h)) for h in headers),
    ]
    described["parameters"] = parameters
    if operation.body is not None:
        schema = parts.shape(operation.body)
        described["requestBody"] = {
            "required": not operation.body_may_be_absent,
            "content": {operation.body_media_type: {"schema": schema}},
        }
    described["responses"] = _responses(endpoint, parts)
    _add_links(described["responses"], endpoint, all_of_them)
    return described


def _in_path(path: str) -> list[Schema]:
    names = re.findall(r"\{(\w+)\}", path)
    return [
        {
            "name": name,
            "in": "path",
            "required": True,
            "schema": msgspec.json.schema(PATH_PARAMETERS[name]),
        }
        for name in names
    ]


def _query(operation: Operation, parts: Parts) -> Iterator[Schema]:
    if operation.query is None:
        return
    schema = parts.query(operation.query)
    for name, of in schema["properties"].items():
        of = dict(of)
        parameter: Schema = {"name": name, "in": "query"}
        if "description" in of:
            parameter["description"] = of.pop("description")
        if name in schema.get("required", ()):
            parameter["required"] = True
        if of.get("type") == "array":
            # Values separated by commas, rather than the parameter many times. None of them is a
            # default that cannot be sent.
            parameter |= {"style": "form", "explode": False}
            of.pop("default", None)
            of["items"] = _one_of_several(of["items"])
        yield parameter | {"schema": of}


def _one_of_several(schema: Schema) -> Schema:
    """A text in a list: a comma in it would have to be escaped, in a way that OpenAPI has no word
    for. Any other text will do, it matches nothing at worst; unless it has to be of a pattern that
    leaves no room for commas."""
    if schema.get("type") != "string" or schema.keys() & {"enum", "format", SETTING_MARK}:
        return schema
    if not re.search(schema.get("pattern", ""), ","):
        return schema
    return schema | {"pattern": r"^[^,\\]*$"}


def _header_parameter(header: HeaderInfo) -> Schema:
    return {
        "name": header.name,
        "in": "header",
        "description": header.description,
        "schema": dict(header.schema),
    }


# -- its answers ----------------------------------------------------------------------------------


def _responses(endpoint: Described, parts: Parts) -> Schema:
    operation = endpoint.operation
    refusals: dict[int, list[Code]] = {}
    for code in _refusals(endpoint):
        refusals.setdefault(ANSWERS[code][0], []).append(code)
    responses: Schema = {}
    for status in sorted({*operation.answers, *refusals}):
        answer, codes = operation.answers.get(status), refusals.get(status, [])
        responses[str(status)] = _response(status, answer, codes, parts)
    return responses


def _refusals(endpoint: Described) -> Iterable[Code]:
    operation = endpoint.operation
    yield from ANYWHERE
    yield from (code for code in operation.refusals if code not in ANYWHERE)
    if operation.body is not None:
        yield from WITH_BODY


def _response(status: int, answer: Answer | None, codes: Sequence[Code], parts: Parts) -> Schema:
    descriptions: list[str] = []
    headers: list[HeaderInfo] = [REQUEST_ID]
    content: dict[str, list[Schema]] = {}
    examples: Schema = {}
    if answer is not None:
        descriptions.append(answer.description)
        headers += answer.headers
        if answer.media_type:
            content[answer.media_type] = [_body(answer, parts)]
    if codes:
        descriptions += [f"`{code}`: {ANSWERS[code][1]}." for code in codes]
        content.setdefault(JSON, []).append(_error(codes))
        examples = {code.value: {"value": _example(code)} for code in codes}
        if status == 503:
            headers.append(RETRY_AFTER)
    response: Schema = {
        "description": "\n\n".join(descriptions),
        "headers": {h.name: parts.shared("headers", h.name, _answer_header(h)) for h in headers},
    }
    if content:
        response["content"] = {
            kind: {"schema": schemas[0] if len(schemas) == 1 else {"anyOf": schemas}}
            for kind, schemas in content.items()
        }
        if examples:
            response["content"][JSON]["examples"] = examples
    if answer is None:
        return parts.shared("responses", "-".join(codes), response)
    return response


def _body(answer: Answer, parts: Parts) -> Schema:
    if answer.shape is None:
        return dict(answer.schema)
    shape = parts.shape(answer.shape)
    if answer.media_type == JSON:
        return shape
    # Of a stream, a schema describes each event.
    text: Schema = {"type": "string"}
    return {
        "type": "object",
        "properties": {
            "id": text,
            "event": text,
            "data": {"type": "string", "contentMediaType": JSON, "contentSchema": shape},
        },
        "required": ["id", "event", "data"],
    }


def _answer_header(header: HeaderInfo) -> Schema:
    return {
        "description": header.description,
        "required": header.always,
        "schema": dict(header.schema),
    }


def _error(codes: Sequence[Code]) -> Schema:
    """The error shape, with no other code than these."""
    only = {"properties": {"code": {"enum": [code.value for code in codes]}}}
    return {"allOf": [{"$ref": REF.format(name="Error")}, only]}


def _example(code: Code) -> Schema:
    status, title = ANSWERS[code]
    details: Schema = {}
    if code is ErrorCode.INVALID_REQUEST:
        details = {"field": "kb_id", "expected": "text of 1 to 255 characters"}
    elif code is RejectionCode.TOO_MANY_LIMITS:
        details = {"kb_id": "kb-1"}
    elif code is RejectionCode.TASK_NOT_FOUND or status == 409:
        details = {"task_id": ID_EXAMPLE}
    return {"error": title, "message": title, "code": code.value, "details": details}


def _add_links(responses: Schema, endpoint: Described, all_of_them: list[Described]) -> None:
    """From a new task to all that can be done with it."""
    if endpoint.method != "POST" or "201" not in responses or "Location" not in _named(responses):
        return
    links = {
        other.operation.id: {
            "operationId": other.operation.id,
            "parameters": {"task_id": "$response.body#/id"},
        }
        for other in all_of_them
        if "{task_id}" in other.path
    }
    responses["201"]["links"] = links


def _named(responses: Schema) -> Schema:
    return responses["201"]["headers"]
