"""Holds every answer that a test gets to what `/openapi.json` says of the endpoint."""

from functools import cache
from typing import Any, Final

import httpx2
from jsonschema_rs import Draft202012Validator
from starlette.routing import Match, Route

from api.app import App
from api.openapi import document
from ledger.settings import Settings

UNTOLD: Final = frozenset({"content-type", "content-length", "connection", "date"})
"""Headers of HTTP itself, which an OpenAPI document does not list."""

JSON: Final = "application/json"

_known: dict[Settings, "Conformance"] = {}


def conformance(app: App, settings: Settings) -> "Conformance":
    """What checks the answers of `app`; made once for equal settings."""
    if settings not in _known:
        _known[settings] = Conformance(app.table, document(app.table, settings))
    return _known[settings]


class Conformance:
    """The description, ready to be compared with answers."""

    def __init__(self, table: list[Route], described: dict[str, Any]) -> None:
        self._table = table
        self._described = described
        self._validator = cache(self._make_validator)

    async def check(self, answer: httpx2.Response) -> None:
        """Status, headers, content type and body are as described."""
        path = self._path_of(answer.request)
        method = "GET" if answer.request.method == "HEAD" else answer.request.method
        operation = self._described["paths"].get(path, {}).get(method.lower())
        if operation is None:
            # No endpoint answers here, or by that method: 404, 405, OPTIONS.
            return
        where = f"{method} {path}: {answer.status_code}"
        assert str(answer.status_code) in operation["responses"], f"{where} is not described"
        told = self._followed(operation["responses"][str(answer.status_code)])
        self._check_headers(where, answer, told["headers"])
        kind = answer.headers.get("content-type", "").partition(";")[0]
        assert kind in told.get("content", {"": None}), f"{where}: {kind} is not described"
        if kind == JSON and answer.request.method != "HEAD":
            await answer.aread()
            validator = self._validator(path, method, str(answer.status_code))
            problems = [str(error) for error in validator.iter_errors(answer.json())]
            assert not problems, f"{where}: {problems}"

    def _check_headers(self, where: str, answer: httpx2.Response, told: dict[str, Any]) -> None:
        headers = {name.lower(): self._followed(header) for name, header in told.items()}
        sent = {name.lower() for name in answer.headers} - UNTOLD
        assert sent <= set(headers), f"{where}: headers that are not described: {sent}"
        always = {name for name, header in headers.items() if header["required"]}
        assert always <= sent, f"{where}: headers that are missing: {always - sent}"

    def _path_of(self, request: httpx2.Request) -> str:
        scope = {"type": "http", "method": request.method, "path": request.url.path}
        for route in self._table:
            if route.matches(scope)[0] is not Match.NONE:
                return route.path
        return ""

    def _followed(self, node: dict[str, Any]) -> dict[str, Any]:
        """Where a reference leads."""
        if "$ref" not in node:
            return node
        found: Any = self._described
        for part in node["$ref"].removeprefix("#/").split("/"):
            found = found[part]
        return found

    def _make_validator(self, path: str, method: str, status: str) -> Draft202012Validator:
        responses = self._described["paths"][path][method.lower()]["responses"]
        schema = self._followed(responses[status])["content"][JSON]["schema"]
        whole = {"components": self._described["components"], "allOf": [schema]}
        return Draft202012Validator(whole, validate_formats=True)
