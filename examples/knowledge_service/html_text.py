"""The text of an HTML page: what a reader sees, without tags, scripts and styles. Pure."""

import re
from html.parser import HTMLParser

# Elements that are not read as part of the page.
_UNSEEN = frozenset({"script", "style", "template"})

_PARAGRAPHS = frozenset(
    "address article aside blockquote body dd details div dl fieldset figcaption figure footer "
    "form h1 h2 h3 h4 h5 h6 header hr html main nav ol p pre section table title ul".split()
)
_LINES = frozenset("br caption dt legend li option summary td th tr".split())


def text_of_html(page: str) -> str:
    """Paragraphs set apart by an empty line, white space as a browser shows it."""
    parser = _Reader()
    parser.feed(page)
    # What is left of a page that ends within a tag or a comment is no text. `close` would make
    # text of it, in a time that grows with the square of its length.
    if not parser.rawdata.startswith("<"):
        parser.close()
    lines = "\n".join(line.rstrip() for line in "".join(parser.parts).split("\n"))
    return re.sub(r"\n{3,}", "\n\n", lines).strip("\n")


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self._unseen = 0  # how many _UNSEEN elements are open
        self._verbatim = 0  # how many <pre> elements are open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._break(tag)
        if tag in _UNSEEN:
            self._unseen += 1
        elif tag == "pre":
            self._verbatim += 1

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._break(tag)

    def handle_endtag(self, tag: str) -> None:
        self._break(tag)
        if tag in _UNSEEN:
            self._unseen = max(0, self._unseen - 1)
        elif tag == "pre":
            self._verbatim = max(0, self._verbatim - 1)

    def handle_data(self, data: str) -> None:
        if self._unseen:
            return
        if not self._verbatim:
            data = re.sub(r"\s+", " ", data)
            if not self.parts or self.parts[-1].endswith((" ", "\n")):
                data = data.lstrip(" ")
        if data:
            self.parts.append(data)

    def parse_marked_section(self, i: int, report: bool = True) -> int:
        # HTML has no marked sections; pages that word processors write are full of them, and the
        # inherited method raises on those it does not know.
        return self.parse_bogus_comment(i)

    def _break(self, tag: str) -> None:
        if tag in _PARAGRAPHS:
            self.parts.append("\n\n")
        elif tag in _LINES:
            self.parts.append("\n")
