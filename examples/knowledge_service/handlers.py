"""What the workers of this service do: three handlers over one knowledge base per `kb_id`.

All three are plain functions: they read files, split text and wait for SQLite, so they run in a
thread. Every one may run twice for one task and leaves the same knowledge base behind.
"""

import os
from collections.abc import Generator
from contextlib import contextmanager
from typing import Annotated, Any, TypeVar

import msgspec

from consumers import Context, PermanentError, handler, open_file

from .chunks import Chunk, ChunkError, split
from .documents import Document, DocumentError, read_document
from .store import open_store

DATABASE = "KNOWLEDGE_DB"
"""The environment variable that names the database file; `knowledge.db` without it."""

UPLOADS = "uploads/"
"""What the `file_path` of every uploaded file begins with; other paths are of this machine."""

_DOCUMENTS_PER_STEP = 32
"""Indexed in one transaction: other writers wait that long."""


class DocumentPayload(msgspec.Struct):
    """A document to read and split, sizes in characters; fields beyond these are not looked at.

    `file_path` is that of an upload, or of a file on this machine. `filename` is what an uploaded
    file was called: it names the document, and tells its type.
    """

    file_path: str
    chunk_size: Annotated[int, msgspec.Meta(ge=1, le=100_000)] = 1000
    chunk_overlap: Annotated[int, msgspec.Meta(ge=0)] = 200
    filename: str = ""


class BatchPayload(msgspec.Struct):
    """Payloads of `document_processing`; each is judged by itself."""

    documents: Annotated[list[Any], msgspec.Meta(min_length=1, max_length=1000)]


class IndexingPayload(msgspec.Struct):
    """`rebuild` makes the index from nothing instead of bringing it up to date."""

    rebuild: bool = False


@handler("document_processing")
def process_document(context: Context, payload: dict[str, Any]) -> dict[str, Any]:
    """Read a file, split it, and store the chunks in place of those it had before."""
    wanted = _parse(payload, DocumentPayload)
    context.progress(10, f"reading {wanted.filename or wanted.file_path}")
    document, chunks = _read(wanted)
    context.progress(60, f"storing {len(chunks)} chunk{'s' * (len(chunks) != 1)}")
    return _store(context.kb_id, wanted, document, chunks)


@handler("batch_processing")
def process_batch(context: Context, payload: dict[str, Any]) -> dict[str, Any]:
    """Process several documents; those that cannot be processed are listed in the result.

    A trouble that may pass, such as a locked database, ends the attempt; the next one begins
    again, which changes nothing for the documents that are done.
    """
    documents = _parse(payload, BatchPayload).documents
    chunks = 0
    failed: list[dict[str, Any]] = []
    for index, each in enumerate(documents):
        if context.canceled:
            break
        try:
            wanted = _parse(each, DocumentPayload)
            chunks += _store(context.kb_id, wanted, *_read(wanted))["chunks"]
        except PermanentError as error:
            failed.append({"index": index, "error": str(error)})
        done = index + 1
        context.progress(done * 100 // len(documents), f"{done} of {len(documents)} documents")
    if len(failed) == len(documents):
        raise PermanentError(f"all {len(failed)} documents failed, first: {failed[0]['error']}")
    return {"documents": len(documents) - len(failed), "chunks": chunks, "failed": failed}


@handler("knowledge_indexing")
def index_knowledge(context: Context, payload: dict[str, Any]) -> dict[str, Any]:
    """Make every chunk of the knowledge base searchable, and what it no longer has not."""
    rebuild = _parse(payload, IndexingPayload).rebuild
    documents = added = removed = 0
    with open_store(_database()) as store:
        if rebuild:
            context.progress(0, "rebuilding the index")
            step = store.rebuild_index(context.kb_id)
            documents, added, removed = step.documents, step.added, step.removed
        to_index = documents + store.count_to_index(context.kb_id)
        while not context.canceled:
            step = store.index_some(context.kb_id, _DOCUMENTS_PER_STEP)
            if step.documents == 0:
                break
            documents += step.documents
            added += step.added
            removed += step.removed
            # Other workers may add documents meanwhile.
            percent = min(99, documents * 100 // max(1, to_index))
            context.progress(percent, f"{documents} document{'s' * (documents != 1)} indexed")
        documents_in_all, chunks_in_all = store.count(context.kb_id)
    return {
        "indexed_documents": documents,
        "added_chunks": added,
        "removed_chunks": removed,
        "documents": documents_in_all,
        "chunks": chunks_in_all,
    }


Payload = TypeVar("Payload", bound=msgspec.Struct)


def _parse(payload: object, shape: type[Payload]) -> Payload:
    try:
        return msgspec.convert(payload, shape)
    except msgspec.ValidationError as error:
        raise PermanentError(f"the payload is not right: {error}") from error


def _read(wanted: DocumentPayload) -> tuple[Document, list[Chunk]]:
    try:
        with _on_disk(wanted.file_path) as path:
            document = read_document(path, wanted.filename)
        return document, list(split(document.text, wanted.chunk_size, wanted.chunk_overlap))
    except (DocumentError, ChunkError) as error:
        raise PermanentError(str(error)) from error


@contextmanager
def _on_disk(file_path: str) -> Generator[str]:
    """Where the file can be read: an upload may lie in a bucket."""
    if not file_path.startswith(UPLOADS):
        yield file_path
        return
    with open_file(file_path) as file:
        yield file.name


def _store(
    kb_id: str, wanted: DocumentPayload, document: Document, chunks: list[Chunk]
) -> dict[str, Any]:
    with open_store(_database()) as store:
        store.replace(kb_id, _name(wanted), document, chunks)
    result = {
        "chunks": len(chunks),
        "characters": len(document.text),
        "format": document.format.value,
        "encoding": document.encoding,
        "sha256": document.sha256,
    }
    return result | {"note": document.note} if document.note else result


def _name(wanted: DocumentPayload) -> str:
    """What the document is called in its knowledge base: one of the same name takes its place."""
    if wanted.file_path.startswith(UPLOADS):
        return wanted.filename
    return os.path.abspath(wanted.file_path)


def _database() -> str:
    return os.environ.get(DATABASE, "knowledge.db")
