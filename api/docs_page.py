"""The human pages: one HTML page, made from the OpenAPI document alone.

It needs no script and no network, so the strictest policy fits it. Every function gives HTML;
whatever text comes from the document passes through `_text` or `escape`.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from html import escape
from typing import Any, Final, cast

Node = Mapping[str, Any]

ANSWER_HEADS: Final = ("Status", "", "Body", "Headers")
STYLESHEET: Final = "/static/docs.css"

_CODE = re.compile(r"`([^`]+)`")
_BOUNDS: Final = (
    ("minimum", "maximum", "{}"),
    ("minLength", "maxLength", "{} characters"),
    ("minItems", "maxItems", "{} of them"),
)
_WORDS: Final = {
    "string": "text",
    "integer": "whole number",
    "date-time": "time",
    "uuid": "UUID",
}


def docs_page(document: Node, base_url: str) -> str:
    """The page. `base_url` is where the examples find the API."""
    reference = Reference(document)
    operations = list(_operations(document))
    everywhere = _everywhere(operations)
    info = document["info"]
    body = "".join(
        (
            f"<header><h1>{escape(info['title'])} <small>{escape(info['version'])}</small></h1>",
            '<p><a href="/openapi.json">openapi.json</a></p></header>',
            f"<nav>{_navigation(document, operations)}</nav>",
            f'<main><section id="about">{_paragraphs(info["description"])}',
            "<h3>Every endpoint may answer</h3>",
            _table(ANSWER_HEADS, _answers(everywhere, reference)),
            "</section>",
            *(_operation(of, everywhere, reference, base_url) for of in operations),
            '<h2 id="schemas">Shapes</h2>',
            *(
                _shape(name, shape, reference)
                for name, shape in document["components"]["schemas"].items()
            ),
            "</main>",
        )
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{escape(info['title'])} API</title>"
        f'<link rel="stylesheet" href="{STYLESHEET}"></head><body>{body}</body></html>'
    )


class Reference:
    """Looks up what a `$ref` stands for."""

    def __init__(self, document: Node) -> None:
        self._document = document

    def follow(self, node: Node) -> Node:
        """The node itself, or the one that it refers to."""
        if "$ref" not in node:
            return node
        found: Any = self._document
        for part in node["$ref"].removeprefix("#/").split("/"):
            found = found[part]
        return cast("Node", found)


class _Operation:
    """An endpoint with its place."""

    def __init__(self, path: str, method: str, node: Node, shared: Iterable[Node]) -> None:
        self.path = path
        self.method = method.upper()
        self.node = node
        self.parameters: list[Node] = [*shared, *node["parameters"]]
        self.anchor = node["operationId"]


def _operations(document: Node) -> Iterator[_Operation]:
    """All endpoints, group by group."""
    found = [
        _Operation(path, method, node, item.get("parameters", ()))
        for path, item in document["paths"].items()
        for method, node in item.items()
        if method != "parameters"
    ]
    for tag in document["tags"]:
        yield from (of for of in found if of.node["tags"][0] == tag["name"])


def _everywhere(operations: list[_Operation]) -> Node:
    """The answers that all endpoints share."""
    first, *others = [of.node["responses"] for of in operations] or [{}]
    return {
        status: answer
        for status, answer in first.items()
        if all(other.get(status) == answer for other in others)
    }


def _navigation(document: Node, operations: list[_Operation]) -> str:
    groups = (
        f"<li>{escape(tag['name'])}<ul>"
        + "".join(
            f'<li><a href="#{of.anchor}">{_badge(of.method)}'
            f"<span>{_text(of.node['summary'])}</span></a></li>"
            for of in operations
            if of.node["tags"][0] == tag["name"]
        )
        + "</ul></li>"
        for tag in document["tags"]
    )
    shapes = "".join(
        f'<li><a href="#shape-{name}">{name}</a></li>'
        for name in sorted(document["components"]["schemas"])
    )
    return f"<ul>{''.join(groups)}<li>Shapes<ul class='shapes'>{shapes}</ul></li></ul>"


# -- an endpoint ----------------------------------------------------------------------------------


def _operation(of: _Operation, everywhere: Node, reference: Reference, base_url: str) -> str:
    node = of.node
    answers = {k: v for k, v in node["responses"].items() if k not in everywhere}
    return "".join(
        (
            f'<article id="{of.anchor}"><h2><a href="#{of.anchor}">{_badge(of.method)} ',
            f"<code>{_breakable(of.path)}</code></a></h2>",
            f"<p><strong>{_text(node['summary'])}.</strong></p>",
            _paragraphs(node.get("description", "")),
            _parameters([reference.follow(p) for p in of.parameters], reference),
            _request_body(node, reference),
            _curl(of, reference, base_url),
            "<h3>Answers</h3>",
            _table(ANSWER_HEADS, _answers(answers, reference)),
            "</article>",
        )
    )


def _parameters(parameters: list[Node], reference: Reference) -> str:
    rows = [
        (
            f"<code>{escape(of['name'])}</code>"
            + (" <em>required</em>" if of.get("required") else "")
            + f"<br><small>{of['in']}</small>",
            _type(of["schema"], reference) + _notes(of["schema"]),
            _text(of.get("description") or of["schema"].get("description", "")),
        )
        for of in parameters
        if of["name"] != "X-Request-ID"
    ]
    return "<h3>Parameters</h3>" + _table(("Name", "Type", ""), rows) if rows else ""


def _request_body(node: Node, reference: Reference) -> str:
    if "requestBody" not in node:
        return ""
    kinds = (
        f"<p><code>{escape(kind)}</code>: {_type(of['schema'], reference)}</p>"
        for kind, of in node["requestBody"]["content"].items()
    )
    return f"<h3>Body</h3>{''.join(kinds)}"


def _answers(responses: Node, reference: Reference) -> Iterator[tuple[str, ...]]:
    for status, response in responses.items():
        told = reference.follow(response)
        bodies = (
            f"{_type(of['schema'], reference)}"
            + ("" if kind == "application/json" else f"<br><small>{escape(kind)}</small>")
            for kind, of in told.get("content", {}).items()
        )
        headers = (
            f"<code>{escape(name)}</code>" for name in told["headers"] if name != "X-Request-ID"
        )
        yield (
            f'<span class="status s{status[0]}">{status}</span>',
            _paragraphs(told["description"]),
            "<br>".join(bodies),
            "<br>".join(headers),
        )


def _curl(of: _Operation, reference: Reference, base_url: str) -> str:
    path = of.path
    for parameter in map(reference.follow, of.parameters):
        if parameter["in"] == "path":
            path = path.replace(f"{{{parameter['name']}}}", str(_example(parameter, reference)))
    words = ["curl", *(("-X", of.method) if of.method != "GET" else ()), f"{base_url}{path}"]
    line = " ".join(words)
    content = of.node.get("requestBody", {}).get("content", {}).get("application/json")
    if content:
        sent = json.dumps(_example(content, reference), ensure_ascii=False)
        line += f" \\\n  -H 'Content-Type: application/json' \\\n  -d '{sent}'"
    return f"<pre>{escape(line, quote=False)}</pre>"


def _example(holder: Node, reference: Reference) -> Any:
    """Something that may be sent: an example, or the least that a schema asks for."""
    schema = reference.follow(holder["schema"])
    if "examples" in schema:
        return schema["examples"][0]
    match schema:
        case {"enum": [first, *_]}:
            return first
        case {"type": "object"}:
            needed = {name: schema["properties"][name] for name in schema.get("required", ())}
            return {name: _example({"schema": of}, reference) for name, of in needed.items()}
        case {"type": "array", "items": items}:
            return [_example({"schema": items}, reference)]
        case {"type": "integer" | "number"}:
            return schema.get("default", schema.get("minimum", 0))
        case _:
            return "..."


# -- shapes ---------------------------------------------------------------------------------------


def _shape(name: str, shape: Node, reference: Reference) -> str:
    rows = [
        (
            f"<code>{escape(field)}</code>"
            + ("" if field in shape.get("required", ()) else " <em>optional</em>"),
            _type(of, reference) + _notes(of),
            _text(of.get("description", "")),
        )
        for field, of in shape.get("properties", {}).items()
    ]
    table = _table(("Field", "Type", ""), rows) if rows else f"<p>{_type(shape, reference)}</p>"
    described = _paragraphs(shape.get("description", ""))
    anchor = f"shape-{name}"
    return (
        f'<article id="{anchor}"><h3><a href="#{anchor}">{escape(name)}</a></h3>{described}{table}'
        "</article>"
    )


def _type(schema: Node, reference: Reference) -> str:
    """What a value looks like, in a few words."""
    match schema:
        case {"$ref": str(ref)}:
            name = ref.rpartition("/")[2]
            return f'<a href="#shape-{name}">{escape(name)}</a>'
        case {"anyOf": [*choices]} if schema.get("type", "object") != "string":
            return " or ".join(_type(cast("Node", of), reference) for of in choices)
        case {"allOf": [first, *_]}:
            return _type(cast("Node", first), reference)
        case {"const": value}:
            return f"<code>{escape(json.dumps(value))}</code>"
        case {"enum": [*values]}:
            return ", ".join(f"<code>{escape(str(value))}</code>" for value in values)
        case {"type": "array"}:
            of = _type(schema.get("items", {}), reference)
            return "; ".join((f"list of: {of}", *_bounds(schema)))
        case {"type": [*names]}:
            return " or ".join(_WORDS.get(str(name), str(name)) for name in names)
        case {"type": str(name)}:
            word = str(schema.get("format", name))
            return ", ".join((_WORDS.get(word, word), *_bounds(schema)))
        case _:
            return "any"


def _bounds(schema: Node) -> Iterator[str]:
    for least, most, words in _BOUNDS:
        match schema.get(least), schema.get(most):
            case None, None:
                continue
            case None, highest:
                yield words.format(f"at most {highest}")
            case lowest, None:
                yield words.format(f"at least {lowest}")
            case lowest, highest:
                yield words.format(f"{lowest} to {highest}")


def _notes(schema: Node) -> str:
    """The default, and examples."""
    notes: list[str] = []
    if schema.get("default") is not None:
        notes.append(f"default <code>{escape(_plain(schema['default']))}</code>")
    if "examples" in schema:
        examples = (f"<code>{escape(_plain(of))}</code>" for of in schema["examples"])
        notes.append(f"such as {', '.join(examples)}")
    return "".join(f"<br><small>{note}</small>" for note in notes)


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


# -- text -----------------------------------------------------------------------------------------


def _table(heads: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    head = "".join(f"<th>{name}</th>" for name in heads)
    lines = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return (
        f'<div class="table"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{lines}</tbody></table></div>"
    )


def _badge(method: str) -> str:
    return f'<span class="method {method.lower()}">{method}</span>'


def _breakable(path: str) -> str:
    return escape(path).replace("/", "<wbr>/")


def _paragraphs(text: str) -> str:
    return "".join(f"<p>{_text(paragraph)}</p>" for paragraph in text.split("\n\n") if paragraph)


def _text(text: str) -> str:
    """Markdown as far as descriptions use it: code."""
    return _CODE.sub(r"<code>\1</code>", escape(text, quote=False))
