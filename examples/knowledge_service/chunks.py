"""Splits a text into overlapping chunks that end where the text itself pauses. Pure."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

CHUNKS_MAX = 100_000
"""More chunks than this from one document is a mistake in the parameters."""

CHARACTERS_MAX = 64 * 1024 * 1024
"""All chunks of one document together, what they share counted each time."""

# From the best place to end a chunk to the worst. The separator stays with the chunk it ends.
_PAUSES = ("\n\n", "\n", " ", "\t")


class ChunkError(ValueError):
    """The parameters of the split make no sense, by themselves or for this text."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of a text: `text` is what stands there from character `start` on."""

    start: int
    text: str

    @property
    def end(self) -> int:
        return self.start + len(self.text)


def split(text: str, size: int, overlap: int) -> "Iterator[Chunk]":
    """Cut `text` into chunks of at most `size` characters.

    A chunk ends after the last paragraph, line or word that leaves it well filled; where there is
    none, in the middle of a word. The next one starts at most `overlap` and at least half of
    `overlap` characters before that end, at the start of a word if there is one. Nothing is
    trimmed: the chunks without what they share, put together, are `text`.

    Raises `ChunkError` unless 0 <= overlap < size, and, while splitting, once the chunks pass
    `CHUNKS_MAX` or `CHARACTERS_MAX`.
    """
    if size < 1:
        raise ChunkError(f"chunk_size must be at least 1, not {size}")
    if not 0 <= overlap < size:
        raise ChunkError(
            f"chunk_overlap must be at least 0 and less than chunk_size ({size}), not {overlap}"
        )
    return _bounded(_split(text, size, overlap))


def _split(text: str, size: int, overlap: int) -> "Iterator[Chunk]":
    start = 0
    while len(text) - start > size:
        end = _end(text, start, size, overlap)
        yield Chunk(start, text[start:end])
        start = _next_start(text, end, overlap)
    if text:
        yield Chunk(start, text[start:])


def _end(text: str, start: int, size: int, overlap: int) -> int:
    # Past the overlap by half of what is left: each chunk brings something new, so the split
    # ends, and short paragraphs do not make it crawl.
    earliest = start + overlap + (size - overlap + 1) // 2
    latest = start + size
    for pause in _PAUSES:
        at = text.rfind(pause, max(start, earliest - len(pause)), latest)
        if at != -1:
            return at + len(pause)
    return latest


def _next_start(text: str, end: int, overlap: int) -> int:
    furthest = end - overlap
    for at in range(furthest, end - overlap // 2):
        if text[at - 1].isspace() and not text[at].isspace():
            return at
    return furthest


def _bounded(chunks: "Iterator[Chunk]") -> "Iterator[Chunk]":
    characters = 0
    for count, chunk in enumerate(chunks, start=1):
        characters += len(chunk.text)
        if count > CHUNKS_MAX or characters > CHARACTERS_MAX:
            raise ChunkError(
                f"the document would make more than {CHUNKS_MAX} chunks or {CHARACTERS_MAX} "
                "characters of them: raise chunk_size or lower chunk_overlap"
            )
        yield chunk
