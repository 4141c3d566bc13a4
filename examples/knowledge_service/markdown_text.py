"""The text of a Markdown file: its words, with the markup lightly stripped. Pure."""

import re

_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")
_LINE_START = re.compile(r"(?: {0,3}>\s?)*(?: {0,3}#{1,6}(?:\s+|$))?")
_RULE = re.compile(r" {0,3}(?:=+|-{2,}|(?:[-*_] ?){3,})\s*")

# A code span first, so that what stands in one is left as it is. Underscores are left alone:
# in technical prose they are names more often than emphasis.
_INLINE = re.compile(
    r"`(?P<code>[^`]+)`"
    r"|!?\[(?P<link>[^\[\]]*)\]\([^()]*\)"
    r"|\*\*(?=\S)(?P<strong>[^*]+)\*\*"
    r"|\*(?=\S)(?P<emphasis>[^*]+)\*"
)


def text_of_markdown(source: str) -> str:
    """Headings, quotes, rules, emphasis and links lose their marks.

    Fenced code and front matter stay as text, without the lines that fence them.
    """
    lines = source.split("\n")
    text: list[str] = []
    fence = "---" if lines[0].rstrip() == "---" and "---" in map(str.rstrip, lines[1:]) else ""
    for line in lines[1:] if fence else lines:
        if fence:
            if _closes(line, fence):
                fence = ""
            else:
                text.append(line)
        elif opening := _FENCE.match(line):
            fence = opening[1]
        elif not _RULE.fullmatch(line):
            text.append(_without_marks(_LINE_START.sub("", line, count=1)))
    return "\n".join(text)


def _closes(line: str, fence: str) -> bool:
    mark = line.strip()
    return mark.startswith(fence) and not mark.strip(fence[0])


def _without_marks(line: str) -> str:
    return _INLINE.sub(_content, line)


def _content(marked: re.Match[str]) -> str:
    if marked["code"] is not None:
        return marked["code"]
    return _without_marks(marked["link"] or marked["strong"] or marked["emphasis"] or "")
