-- Times are microseconds since 1970-01-01 UTC. `rid` is a table's own integer key; `id` is the identifier people see.

CREATE TABLE users (
    rid        INTEGER PRIMARY KEY,
    id         TEXT    NOT NULL UNIQUE,
    time_zone  TEXT,
    created_at INTEGER NOT NULL
) STRICT;

CREATE TABLE api_keys (
    sha256     BLOB    NOT NULL PRIMARY KEY,
    user       INTEGER NOT NULL REFERENCES users (rid),
    label      TEXT    NOT NULL,
    created_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX api_keys_user ON api_keys (user);

CREATE TABLE processes (
    id    TEXT    NOT NULL PRIMARY KEY,
    until INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE conversations (
    rid             INTEGER PRIMARY KEY,
    id              TEXT    NOT NULL UNIQUE,
    user            INTEGER NOT NULL REFERENCES users (rid),
    created_at      INTEGER NOT NULL,
    started_at      INTEGER NOT NULL,
    finished_at     INTEGER NOT NULL,
    source          TEXT    NOT NULL,
    -- The source its connections name; `source` itself changes with the first photo.
    stream_source   TEXT    NOT NULL,
    language        TEXT,
    status          TEXT    NOT NULL,
    revision        INTEGER NOT NULL DEFAULT 0,
    structured      TEXT,
    provider        TEXT,
    provider_version TEXT,
    discarded       TEXT,
    finalise_reason TEXT,
    noted_reason    TEXT,
    failure         TEXT,
    user_title      TEXT,
    client_id       TEXT,
    client_named    INTEGER NOT NULL DEFAULT 0,
    call_id         TEXT,
    geolocation     TEXT,
    starred         INTEGER NOT NULL DEFAULT 0,
    gaps            TEXT,
    owner           TEXT,
    epoch           INTEGER NOT NULL DEFAULT 0,
    timeout_us      INTEGER NOT NULL
) STRICT;
CREATE INDEX conversations_listing ON conversations (user, created_at DESC);
CREATE INDEX conversations_live ON conversations (user, stream_source, finished_at) WHERE status = 'in_progress';
CREATE INDEX conversations_idle ON conversations (finished_at) WHERE status = 'in_progress';
CREATE INDEX conversations_client ON conversations (client_id) WHERE client_id IS NOT NULL AND status = 'in_progress';
CREATE INDEX conversations_owner ON conversations (owner) WHERE owner IS NOT NULL;

CREATE TABLE segments (
    rid          INTEGER PRIMARY KEY,
    conversation INTEGER NOT NULL REFERENCES conversations (rid) ON DELETE CASCADE,
    id           TEXT    NOT NULL,
    start        REAL    NOT NULL,
    "end"        REAL    NOT NULL,
    text         TEXT    NOT NULL,
    speaker      TEXT,
    is_user      INTEGER NOT NULL,
    person       TEXT,
    translations TEXT,
    profiled     INTEGER NOT NULL,
    provider     TEXT,
    UNIQUE (conversation, id)
) STRICT;
CREATE INDEX segments_order ON segments (conversation, start);

CREATE TABLE photos (
    rid          INTEGER PRIMARY KEY,
    conversation INTEGER NOT NULL REFERENCES conversations (rid) ON DELETE CASCADE,
    id           TEXT    NOT NULL,
    base64       TEXT    NOT NULL,
    description  TEXT,
    created_at   INTEGER NOT NULL,
    discarded    INTEGER NOT NULL,
    UNIQUE (conversation, id)
) STRICT;

-- How far each spool run was put in, so that repeating an insertion changes nothing.
CREATE TABLE recovered (
    conversation INTEGER NOT NULL REFERENCES conversations (rid) ON DELETE CASCADE,
    run          TEXT    NOT NULL,
    until_sample INTEGER NOT NULL,
    PRIMARY KEY (conversation, run)
) STRICT, WITHOUT ROWID;

CREATE TABLE jobs (
    rid              INTEGER PRIMARY KEY,
    id               TEXT    NOT NULL UNIQUE,
    conversation     INTEGER NOT NULL REFERENCES conversations (rid) ON DELETE CASCADE,
    user             INTEGER NOT NULL REFERENCES users (rid),
    revision         INTEGER NOT NULL,
    reason           TEXT    NOT NULL,
    state            TEXT    NOT NULL,
    attempts         INTEGER NOT NULL DEFAULT 0,
    attempts_max     INTEGER NOT NULL,
    run_at           INTEGER NOT NULL,
    created_at       INTEGER NOT NULL,
    updated_at       INTEGER NOT NULL,
    last_error       TEXT,
    leased_by        TEXT,
    lease_expires_at INTEGER,
    epoch            INTEGER NOT NULL DEFAULT 0,
    -- When it may be claimed: `run_at`, or the end of its lease.
    due_at           INTEGER NOT NULL,
    UNIQUE (conversation, revision)
) STRICT;
CREATE INDEX jobs_due ON jobs (due_at) WHERE state IN ('queued', 'leased');
CREATE INDEX jobs_listing ON jobs (created_at DESC);
CREATE INDEX jobs_leased ON jobs (leased_by) WHERE leased_by IS NOT NULL;
CREATE INDEX jobs_state ON jobs (state, run_at) WHERE state <> 'completed';

CREATE TABLE steps (
    conversation INTEGER NOT NULL REFERENCES conversations (rid) ON DELETE CASCADE,
    revision     INTEGER NOT NULL,
    step         TEXT    NOT NULL,
    result       TEXT    NOT NULL,
    at           INTEGER NOT NULL,
    PRIMARY KEY (conversation, revision, step)
) STRICT, WITHOUT ROWID;

CREATE TABLE effects (
    rid              INTEGER PRIMARY KEY,
    id               TEXT    NOT NULL UNIQUE,
    conversation     INTEGER NOT NULL REFERENCES conversations (rid) ON DELETE CASCADE,
    user             INTEGER NOT NULL REFERENCES users (rid),
    revision         INTEGER NOT NULL,
    name             TEXT    NOT NULL,
    payload          TEXT    NOT NULL,
    state            TEXT    NOT NULL,
    attempts         INTEGER NOT NULL DEFAULT 0,
    run_at           INTEGER NOT NULL,
    last_error       TEXT,
    leased_by        TEXT,
    epoch            INTEGER NOT NULL DEFAULT 0,
    due_at           INTEGER NOT NULL,
    UNIQUE (conversation, revision, name)
) STRICT;
CREATE INDEX effects_due ON effects (due_at) WHERE state IN ('pending', 'leased');
CREATE INDEX effects_failed ON effects (state) WHERE state = 'failed';
CREATE INDEX effects_leased ON effects (leased_by) WHERE leased_by IS NOT NULL;

-- One row for each segment (rowid = 2 * its rid) and one for each conversation's title and overview
-- (rowid = 2 * its rid + 1). `scope` holds `u<users.rid>`, so that a query reads only its own user's matches.
CREATE VIRTUAL TABLE search USING fts5 (
    scope, body, conversation UNINDEXED,
    tokenize = 'porter unicode61'
);

-- What the self-probe of a full disk writes.
CREATE TABLE probe (
    id   INTEGER PRIMARY KEY,
    room BLOB NOT NULL
) STRICT;
