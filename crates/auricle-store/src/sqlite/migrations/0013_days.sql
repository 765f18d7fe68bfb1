-- Summaries of days, and the work of making them: one row for each user and date, which is idempotent by that.
CREATE TABLE days (
    rid              INTEGER PRIMARY KEY,
    user             INTEGER NOT NULL REFERENCES users (rid),
    -- YYYY-MM-DD in `zone`; it lasts from `starts_at` until before `ends_at`.
    date             TEXT    NOT NULL,
    zone             TEXT    NOT NULL,
    starts_at        INTEGER NOT NULL,
    ends_at          INTEGER NOT NULL,
    -- `queued`, `leased`, `completed` or `failed`.
    state            TEXT    NOT NULL,
    -- How often it was asked for again.
    revision         INTEGER NOT NULL DEFAULT 0,
    -- JSON; NULL until it was first made. It stays while it is made anew.
    summary          TEXT,
    conversations    INTEGER NOT NULL DEFAULT 0,
    provider         TEXT,
    provider_version TEXT,
    made_at          INTEGER,
    -- What this revision's finished call brought.
    step             TEXT,
    attempts         INTEGER NOT NULL DEFAULT 0,
    postponed        INTEGER NOT NULL DEFAULT 0,
    away_since       INTEGER,
    last_error       TEXT,
    leased_by        TEXT,
    epoch            INTEGER NOT NULL DEFAULT 0,
    due_at           INTEGER NOT NULL,
    UNIQUE (user, date)
) STRICT;
CREATE INDEX days_due ON days (due_at) WHERE state IN ('queued', 'leased');
CREATE INDEX days_leased ON days (leased_by) WHERE leased_by IS NOT NULL;

-- A user's conversations by when they began.
CREATE INDEX conversations_days ON conversations (user, started_at);
