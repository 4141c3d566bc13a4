"""The human pages: everything that the document says, and nothing that comes from elsewhere."""

import re
from html.parser import HTMLParser
from typing import Any

import httpx2
import pytest

from api.docs_page import docs_page


class Read(HTMLParser):
    """What a page links to, loads, names and runs."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.links: set[str] = set()
        self.anchors: set[str] = set()
        self.loaded: set[str] = set()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.tags.add(tag)
        self.attributes |= found.keys()
        if "id" in found:
            self.anchors.add(found["id"] or "")
        href = found.get("href") or ""
        (self.links if tag == "a" else self.loaded).update({href} - {""})


@pytest.fixture
async def page(api: httpx2.AsyncClient) -> str:
    answer = await api.get("/docs")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    return answer.text


async def test_every_endpoint_and_every_shape_is_on_the_page(api: httpx2.AsyncClient, page: str):
    described: dict[str, Any] = (await api.get("/openapi.json")).json()
    names = {
        of["operationId"]
        for item in described["paths"].values()
        for method, of in item.items()
        if method != "parameters"
    }
    shapes = {f"shape-{name}" for name in described["components"]["schemas"]}

    assert names | shapes <= Read(page).anchors


async def test_links_lead_somewhere(api: httpx2.AsyncClient, page: str):
    read = Read(page)

    inside = {link[1:] for link in read.links if link.startswith("#")}
    assert inside <= read.anchors
    assert read.links - {f"#{name}" for name in inside} == {"/openapi.json"}
    assert read.loaded == {"/static/docs.css"}
    style = await api.get("/static/docs.css")
    assert style.headers["content-type"] == "text/css; charset=utf-8"
    assert "prefers-color-scheme: dark" in style.text
    assert "url(" not in style.text


async def test_the_page_fits_a_policy_that_allows_nothing_but_its_style(
    api: httpx2.AsyncClient, page: str
):
    read = Read(page)
    policy = (await api.get("/docs")).headers["content-security-policy"]

    assert re.match("default-src 'none'; style-src 'self';", policy)
    assert not read.tags & {"script", "style", "img", "iframe", "form"}
    assert not [name for name in read.attributes if name == "style" or name.startswith("on")]


def test_text_of_the_document_is_not_markup():
    document: dict[str, Any] = {
        "info": {"title": "<b>", "version": "1", "description": "a <script> & `<i>`"},
        "tags": [],
        "paths": {},
        "components": {"schemas": {"A": {"description": "<img>", "const": "<u>"}}},
    }

    read = Read(docs_page(document, "http://api"))

    assert not read.tags & {"b", "script", "i", "img", "u"}
