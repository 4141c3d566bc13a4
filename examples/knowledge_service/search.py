"""Full-text search over a knowledge base; as a command, `python -m ...search KB_ID QUERY`."""

import os
import re
import sqlite3
import sys
from argparse import ArgumentParser
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

TERMS_MAX = 64
"""Of a longer query the rest is left out."""


@dataclass(frozen=True, slots=True)
class Hit:
    """A document that matches, by its best chunk.

    `start` is that chunk's offset in the document's text, in characters; `snippet` a few of its
    words, the found ones in [brackets]; `rank` its bm25 score: below 0, and the lower the better.
    """

    path: str
    start: int
    snippet: str
    rank: float


def search(db: str, kb_id: str, query: str, limit: int = 10) -> list[Hit]:
    """The documents of `kb_id` that match `query` best, best first, at most `limit`.

    A query is words and "quoted phrases", all of which one chunk must contain, whatever their
    case and ending; every other character only separates words. Finds nothing for a query
    without words. Raises `FileNotFoundError` when there is no database at `db`.
    """
    expression = _match_expression(query)
    if not expression:
        return []
    if not Path(db).is_file():
        raise FileNotFoundError(f"no knowledge base at {db}: process a document first")
    hits: dict[str, Hit] = {}
    with closing(sqlite3.connect(db)) as connection:
        rows = connection.execute(
            """
            SELECT path, start, snippet(chunk_index, 0, '[', ']', '…', 16), rank
            FROM chunk_index
            JOIN chunk ON chunk.id = chunk_index.rowid
            JOIN document ON document.id = document_id
            WHERE chunk_index MATCH ? AND kb_id = ?
            ORDER BY rank
            """,
            (expression, kb_id),
        )
        for row in rows:
            if len(hits) >= limit:
                break
            hits.setdefault(row[0], Hit(*row))
    return list(hits.values())


def _match_expression(query: str) -> str:
    """The query in FTS5's own syntax, every term quoted so that none of it is an operator."""
    terms: list[str] = []
    for phrase, word in re.findall(r'"([^"]*)"?|([^\s"]+)', query):
        words = re.findall(r"\w+", phrase or word)
        if words:
            terms.append('"' + " ".join(words) + '"')
    return " ".join(terms[:TERMS_MAX])


def main() -> None:
    command = ArgumentParser(description="Search a knowledge base.")
    command.add_argument("kb_id")
    command.add_argument("query", help="""words and "quoted phrases", in one argument""")
    wanted = command.parse_args()
    try:
        hits = search(os.environ.get("KNOWLEDGE_DB", "knowledge.db"), wanted.kb_id, wanted.query)
    except FileNotFoundError as error:
        sys.exit(str(error))
    for hit in hits:
        sys.stdout.write(f"{hit.path}\n    {' '.join(hit.snippet.split())}\n")


if __name__ == "__main__":
    main()
