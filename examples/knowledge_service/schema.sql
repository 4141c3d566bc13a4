-- The knowledge base: documents, their chunks, and a full-text index over the chunks.
-- Run by every process that finds the file without it, one after the other.

BEGIN IMMEDIATE;

CREATE TABLE IF NOT EXISTS document (
    id         INTEGER PRIMARY KEY,
    kb_id      TEXT    NOT NULL,
    path       TEXT    NOT NULL,
    sha256     TEXT    NOT NULL,
    encoding   TEXT    NOT NULL,
    characters INTEGER NOT NULL,
    UNIQUE (kb_id, path)
);

-- A chunk is born 'new', is 'indexed' by the next indexing, and 'gone' once its document was
-- replaced after that: the search goes on finding the old text until the new one is indexed.
-- The index keeps no text of its own and needs the old text to forget a chunk, so a gone chunk
-- is deleted only then.
CREATE TABLE IF NOT EXISTS chunk (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    document_id INTEGER NOT NULL REFERENCES document,
    start       INTEGER NOT NULL, -- offset in the document's text, in characters
    text        TEXT    NOT NULL,
    state       TEXT    NOT NULL DEFAULT 'new' CHECK (state IN ('new', 'indexed', 'gone'))
);

CREATE INDEX IF NOT EXISTS chunk_of_document ON chunk (document_id, state);

CREATE INDEX IF NOT EXISTS chunk_to_index ON chunk (document_id) WHERE state <> 'indexed';

-- What the index holds; its 'rebuild' reads this.
CREATE VIEW IF NOT EXISTS searchable AS SELECT id, text FROM chunk WHERE state <> 'new';

CREATE VIRTUAL TABLE IF NOT EXISTS chunk_index USING fts5 (
    text,
    content = 'searchable',
    content_rowid = 'id',
    tokenize = 'porter unicode61'
);

-- What ledgerq was asked to do, and how it ended: kept by the web service, from its own requests and
-- from the callbacks. A callback may come before the request that made the task is done.
CREATE TABLE IF NOT EXISTS job (
    task_id     TEXT PRIMARY KEY,
    kb_id       TEXT NOT NULL,
    kind        TEXT NOT NULL, -- the task's type
    name        TEXT NOT NULL DEFAULT '', -- of the file
    status      TEXT NOT NULL DEFAULT 'accepted',
    result      TEXT NOT NULL DEFAULT 'null', -- JSON
    error       TEXT NOT NULL DEFAULT '',
    callbacks   INTEGER NOT NULL DEFAULT 0, -- at least once, so perhaps more often
    created_at  TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
    finished_at TEXT
);

CREATE INDEX IF NOT EXISTS job_of_kb ON job (kb_id, created_at);

PRAGMA user_version = 2;

COMMIT;
