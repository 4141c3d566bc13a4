-- The read models, in one SQLite file. All of it can be thrown away: the ledger makes it again.
--
-- Times are ms since the epoch, in the ledger's clock. Statuses and priorities are numbers: their
-- place in the enumerations Status and Priority (0 = queued, 0 = critical). What many rows name,
-- such as a knowledge base, is a number of `names`. An id is the 16 bytes of the task's UUID.

-- How far the projector has read, one row for each partition. `digest` is SHA-256 of the event at
-- `entry`: a ledger in which that event is another one, or is gone, went backwards.
CREATE TABLE checkpoints (
    partition INTEGER PRIMARY KEY,
    entry TEXT NOT NULL,
    digest BLOB NOT NULL,
    events INTEGER NOT NULL -- read so far
);

-- What this file was made by, and from. `stopped_at` is the position of the event that a
-- projection could not digest, '' while it runs.
CREATE TABLE projections (
    name TEXT PRIMARY KEY,
    version INTEGER NOT NULL,
    stopped_at TEXT NOT NULL DEFAULT '',
    reason TEXT NOT NULL DEFAULT ''
);

-- Single values: epoch (of the ledger), evicted_before (ms: finished tasks older than that left).
-- seen_by_X: how far the projection X had come when it stopped alone, a position for each partition.
CREATE TABLE facts (
    name TEXT PRIMARY KEY,
    value TEXT NOT NULL
) WITHOUT ROWID;

CREATE TABLE names (
    no INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE
);

-- tasks: one row each, as the fold of its events makes it. The columns are what lists filter and
-- sort by; `state` is the JSON of ledger.task.State.
CREATE TABLE tasks (
    id BLOB PRIMARY KEY,
    version INTEGER NOT NULL,
    kb INTEGER NOT NULL,
    task_type INTEGER NOT NULL,
    priority INTEGER NOT NULL,
    status INTEGER NOT NULL,
    worker INTEGER NOT NULL, -- 0 = none
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    started_at INTEGER,
    completed_at INTEGER,
    state BLOB NOT NULL
) WITHOUT ROWID;

-- What was submitted, as JSON; written once. Payloads are large, and rows above change often.
CREATE TABLE submissions (
    id BLOB PRIMARY KEY,
    submission BLOB NOT NULL
) WITHOUT ROWID;

-- Tasks that left the tables above when they were old, of those whose ids are made of a key and may be
-- met again: a key makes one task, however late it is sent again.
CREATE TABLE departed (
    id BLOB PRIMARY KEY
) WITHOUT ROWID;

-- The tasks that failed or have an error text: the columns of their rows above, as they are there,
-- the kind of the error (its place in ErrorKind), and the text, case-folded (str.casefold), for
-- searches, which walk all of it, and nothing else. What failed for good has a fingerprint.
CREATE TABLE errors (
    id BLOB PRIMARY KEY,
    kb INTEGER NOT NULL,
    task_type INTEGER NOT NULL,
    priority INTEGER NOT NULL,
    status INTEGER NOT NULL,
    worker INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    started_at INTEGER,
    completed_at INTEGER,
    error_kind INTEGER NOT NULL,
    fingerprint BLOB,
    message TEXT NOT NULL
) WITHOUT ROWID;

-- How many tasks of the table above failed in each way. `kb` 0 is all of them.
CREATE TABLE failure_groups (
    kb INTEGER NOT NULL,
    fingerprint BLOB NOT NULL,
    task_type INTEGER NOT NULL,
    error_kind INTEGER NOT NULL,
    n INTEGER NOT NULL,
    PRIMARY KEY (kb, fingerprint)
) WITHOUT ROWID;

-- How many tasks the table above has, for the totals of lists. `kb` 0 is all of them; `hour` is
-- that of created_at (hours since the epoch), -1 is ever.
CREATE TABLE counts (
    kb INTEGER NOT NULL,
    hour INTEGER NOT NULL,
    task_type INTEGER NOT NULL,
    priority INTEGER NOT NULL,
    status INTEGER NOT NULL,
    n INTEGER NOT NULL,
    PRIMARY KEY (kb, hour, task_type, priority, status)
) WITHOUT ROWID;

-- stats: as counts, but nothing ever leaves. `process_ms` is the sum, over completed tasks, of
-- completed_at - started_at.
CREATE TABLE stats (
    kb INTEGER NOT NULL,
    hour INTEGER NOT NULL,
    task_type INTEGER NOT NULL,
    priority INTEGER NOT NULL,
    status INTEGER NOT NULL,
    n INTEGER NOT NULL,
    process_ms INTEGER NOT NULL,
    PRIMARY KEY (kb, hour, task_type, priority, status)
) WITHOUT ROWID;

-- What metrics count: `outcome` is success, failure or retry.
CREATE TABLE outcomes (
    task_type INTEGER NOT NULL,
    outcome TEXT NOT NULL,
    n INTEGER NOT NULL,
    PRIMARY KEY (task_type, outcome)
) WITHOUT ROWID;

-- Histograms of attempts: `measure` is processing (start to end of an attempt) or wait (ready to
-- start); `bucket` is the index of its upper bound in projections.stats.BUCKETS_S.
CREATE TABLE histograms (
    measure TEXT NOT NULL,
    task_type INTEGER NOT NULL,
    bucket INTEGER NOT NULL,
    n INTEGER NOT NULL,
    sum_ms INTEGER NOT NULL,
    PRIMARY KEY (measure, task_type, bucket)
) WITHOUT ROWID;

-- queues: what waits and runs, one row for each type and priority.
CREATE TABLE queues (
    task_type INTEGER NOT NULL,
    priority INTEGER NOT NULL,
    ready INTEGER NOT NULL,
    delayed INTEGER NOT NULL,
    processing INTEGER NOT NULL,
    PRIMARY KEY (task_type, priority)
) WITHOUT ROWID;

-- The ready tasks, by the time since which they are: the first of a queue is its oldest.
CREATE TABLE ready (
    task_type INTEGER NOT NULL,
    priority INTEGER NOT NULL,
    since INTEGER NOT NULL,
    id BLOB NOT NULL,
    PRIMARY KEY (task_type, priority, since, id)
) WITHOUT ROWID;

-- A list walks one of these. Each holds all that filters look at, so that a row is fetched only
-- for what is on the page; each ends with the id, which breaks ties. A rebuild makes them last.
CREATE INDEX tasks_created ON tasks (created_at, id, updated_at, started_at, completed_at, kb, task_type, priority, status, worker);
CREATE INDEX tasks_updated ON tasks (updated_at, id, created_at, kb, task_type, priority, status, worker);
CREATE INDEX tasks_started ON tasks (started_at, id, created_at, kb, task_type, priority, status, worker);
CREATE INDEX tasks_completed ON tasks (completed_at, id, created_at, kb, task_type, priority, status, worker);
CREATE INDEX tasks_kb ON tasks (kb, created_at, id, updated_at, started_at, completed_at, task_type, priority, status, worker);
CREATE INDEX tasks_type ON tasks (task_type, created_at, id, updated_at, started_at, completed_at, kb, priority, status, worker);
CREATE INDEX tasks_priority ON tasks (priority, created_at, id, updated_at, started_at, completed_at, kb, task_type, status, worker);
CREATE INDEX tasks_status ON tasks (status, created_at, id, updated_at, started_at, completed_at, kb, task_type, priority, worker);
CREATE INDEX tasks_worker ON tasks (worker, created_at, id, updated_at, started_at, completed_at, kb, task_type, priority, status);

-- Failures: by group, by group of one knowledge base, and by when they were. Only what has failed is
-- in them.
CREATE INDEX errors_fingerprint ON errors (fingerprint, completed_at, id, created_at, updated_at, started_at, kb, task_type, priority, status, worker, error_kind) WHERE fingerprint IS NOT NULL;
CREATE INDEX errors_kb ON errors (kb, fingerprint, completed_at, id, created_at, task_type, error_kind) WHERE fingerprint IS NOT NULL;
CREATE INDEX errors_failed ON errors (completed_at, id, fingerprint, kb, task_type, error_kind, created_at) WHERE fingerprint IS NOT NULL;
CREATE INDEX failure_groups_n ON failure_groups (kb, n, fingerprint, task_type, error_kind);
CREATE INDEX failure_groups_fingerprint ON failure_groups (fingerprint, kb);
