-- Transcripts that were replaced when kept audio was heard again, as they were, with their records.
CREATE TABLE revisions (
    rid              INTEGER PRIMARY KEY,
    conversation     INTEGER NOT NULL REFERENCES conversations (rid) ON DELETE CASCADE,
    revision         INTEGER NOT NULL,
    -- The zero of its segments' times.
    started_at       INTEGER NOT NULL,
    -- JSON.
    transcript       TEXT    NOT NULL,
    -- JSON; NULL if no record was made of it.
    structured       TEXT,
    provider         TEXT,
    provider_version TEXT,
    -- Engines that heard it, with commas between them.
    engines          TEXT    NOT NULL,
    segments         INTEGER NOT NULL,
    replaced_at      INTEGER NOT NULL,
    UNIQUE (conversation, revision)
) STRICT;

-- The work of hearing a conversation again: the latest of each.
CREATE TABLE retranscriptions (
    rid          INTEGER PRIMARY KEY,
    id           TEXT    NOT NULL UNIQUE,
    conversation INTEGER NOT NULL UNIQUE REFERENCES conversations (rid) ON DELETE CASCADE,
    engine       TEXT    NOT NULL,
    -- `queued`, `leased`, `done` or `failed`.
    state        TEXT    NOT NULL,
    attempts     INTEGER NOT NULL DEFAULT 0,
    -- When it may be claimed: its next try, or the end of its lease.
    due_at       INTEGER NOT NULL,
    last_error   TEXT,
    leased_by    TEXT,
    epoch        INTEGER NOT NULL DEFAULT 0,
    heard_secs   REAL    NOT NULL DEFAULT 0,
    -- The revision that came of it.
    revision     INTEGER,
    created_at   INTEGER NOT NULL,
    updated_at   INTEGER NOT NULL
) STRICT;
CREATE INDEX retranscriptions_due ON retranscriptions (due_at) WHERE state IN ('queued', 'leased');
CREATE INDEX retranscriptions_leased ON retranscriptions (leased_by) WHERE leased_by IS NOT NULL;
