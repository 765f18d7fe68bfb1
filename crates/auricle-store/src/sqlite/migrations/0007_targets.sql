-- Those who hear of a user's conversations: developers' webhooks and apps.
CREATE TABLE targets (
    rid           INTEGER PRIMARY KEY,
    id            TEXT    NOT NULL UNIQUE,
    user          INTEGER NOT NULL REFERENCES users (rid),
    kind          TEXT    NOT NULL,
    name          TEXT    NOT NULL,
    -- Names between spaces, one before the first and after the last.
    triggers      TEXT    NOT NULL,
    url           TEXT    NOT NULL,
    -- `host:port` of the address: deliveries to one host share a lane.
    host          TEXT    NOT NULL,
    secret        TEXT    NOT NULL,
    audio_secs    INTEGER NOT NULL,
    state         TEXT    NOT NULL,
    created_at    INTEGER NOT NULL,
    failing_since INTEGER,
    failures      INTEGER NOT NULL DEFAULT 0,
    warned_at     INTEGER,
    off_at        INTEGER,
    last_delivery_at INTEGER,
    last_error    TEXT,
    -- Tries, realtime ones included.
    delivered     INTEGER NOT NULL DEFAULT 0,
    failed        INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX targets_user ON targets (user);

-- Grows, over all users, with each change of a user's targets that live sessions must learn of.
ALTER TABLE users ADD COLUMN targets_version INTEGER NOT NULL DEFAULT 0;
CREATE INDEX users_targets ON users (targets_version) WHERE targets_version > 0;

-- Effects that are about no conversation, that belong to a target, and that share a lane.
CREATE TABLE effects_next (
    rid              INTEGER PRIMARY KEY,
    id               TEXT    NOT NULL UNIQUE,
    conversation     INTEGER REFERENCES conversations (rid) ON DELETE CASCADE,
    -- What it is about if that is no conversation.
    subject          TEXT,
    user             INTEGER NOT NULL REFERENCES users (rid),
    target           INTEGER REFERENCES targets (rid) ON DELETE CASCADE,
    -- Of a lane only so many are delivered at once: its target's host, else its name.
    lane             TEXT    NOT NULL,
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
    postponed        INTEGER NOT NULL DEFAULT 0,
    away_since       INTEGER,
    created_at       INTEGER NOT NULL,
    ended_at         INTEGER,
    CHECK ((conversation IS NULL) <> (subject IS NULL)),
    UNIQUE (conversation, revision, name)
) STRICT;
INSERT INTO effects_next (rid, id, conversation, user, lane, revision, name, payload, state, attempts, run_at, last_error,
    leased_by, epoch, due_at, postponed, away_since, created_at)
    SELECT rid, id, conversation, user, name, revision, name, payload, state, attempts, run_at, last_error, leased_by,
    epoch, due_at, postponed, away_since, run_at FROM effects;
DROP TABLE effects;
ALTER TABLE effects_next RENAME TO effects;
CREATE UNIQUE INDEX effects_subject ON effects (user, subject, name) WHERE subject IS NOT NULL;
CREATE INDEX effects_due ON effects (due_at) WHERE state IN ('pending', 'leased');
CREATE INDEX effects_lane ON effects (lane, due_at) WHERE state IN ('pending', 'leased');
CREATE INDEX effects_held ON effects (lane, due_at) WHERE state = 'leased';
CREATE INDEX effects_failed ON effects (state) WHERE state = 'failed';
CREATE INDEX effects_leased ON effects (leased_by) WHERE leased_by IS NOT NULL;
CREATE INDEX effects_target ON effects (target) WHERE target IS NOT NULL;
