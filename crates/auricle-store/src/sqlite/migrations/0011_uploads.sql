-- Recordings that users sent as files. The file itself is in the data folder under its id; a name is not kept.
CREATE TABLE uploads (
    rid              INTEGER PRIMARY KEY,
    id               TEXT    NOT NULL UNIQUE,
    user             INTEGER NOT NULL REFERENCES users (rid),
    sha256           BLOB    NOT NULL,
    -- The request that brought it last.
    batch            TEXT    NOT NULL,
    -- What kind of file it is: `auricle_audio::recording::Form`.
    form             TEXT    NOT NULL,
    source           TEXT    NOT NULL,
    language         TEXT,
    bytes            INTEGER NOT NULL,
    recorded_at      INTEGER NOT NULL,
    state            TEXT    NOT NULL,
    attempts         INTEGER NOT NULL DEFAULT 0,
    -- When it may be claimed: its next try, or the end of its lease.
    due_at           INTEGER NOT NULL,
    last_error       TEXT,
    leased_by        TEXT,
    epoch            INTEGER NOT NULL DEFAULT 0,
    heard_secs       REAL    NOT NULL DEFAULT 0,
    audio_secs       REAL,
    created_at       INTEGER NOT NULL,
    updated_at       INTEGER NOT NULL,
    UNIQUE (user, sha256)
) STRICT;
CREATE INDEX uploads_due ON uploads (due_at) WHERE state IN ('queued', 'leased');
CREATE INDEX uploads_waiting ON uploads (user, recorded_at) WHERE state IN ('queued', 'leased');
CREATE INDEX uploads_listing ON uploads (user, created_at DESC);
CREATE INDEX uploads_batch ON uploads (batch);
CREATE INDEX uploads_leased ON uploads (leased_by) WHERE leased_by IS NOT NULL;

-- What became of them. Goes with either.
CREATE TABLE upload_conversations (
    upload       INTEGER NOT NULL REFERENCES uploads (rid) ON DELETE CASCADE,
    conversation INTEGER NOT NULL REFERENCES conversations (rid) ON DELETE CASCADE,
    PRIMARY KEY (upload, conversation)
) STRICT, WITHOUT ROWID;
CREATE INDEX upload_conversations_of ON upload_conversations (conversation);
