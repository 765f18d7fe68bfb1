-- Where a person's voice was heard, for whoever learns voices.
CREATE TABLE speaker_samples (
    rid          INTEGER PRIMARY KEY,
    user         INTEGER NOT NULL REFERENCES users (rid),
    person       TEXT    NOT NULL,
    conversation INTEGER NOT NULL REFERENCES conversations (rid) ON DELETE CASCADE,
    -- A JSON array of segment ids.
    segments     TEXT    NOT NULL,
    kept_at      INTEGER NOT NULL,
    UNIQUE (user, person, conversation)
) STRICT;
CREATE INDEX speaker_samples_conversation ON speaker_samples (conversation);
