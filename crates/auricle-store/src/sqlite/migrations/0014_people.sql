-- The people a user knows, and their voices.
CREATE TABLE people (
    rid        INTEGER PRIMARY KEY,
    id         TEXT    NOT NULL UNIQUE,
    user       INTEGER NOT NULL REFERENCES users (rid),
    name       TEXT    NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
) STRICT;
CREATE INDEX people_user ON people (user);

CREATE TABLE voices (
    rid     INTEGER PRIMARY KEY,
    id      TEXT    NOT NULL UNIQUE,
    user    INTEGER NOT NULL REFERENCES users (rid),
    person  INTEGER NOT NULL REFERENCES people (rid) ON DELETE CASCADE,
    -- Of which model: only vectors of one are compared.
    model   TEXT    NOT NULL,
    -- 32-bit floats, little-endian, as the model gave them.
    vector  BLOB    NOT NULL,
    -- Of speech behind it.
    seconds REAL    NOT NULL,
    kept_at INTEGER NOT NULL
) STRICT;
CREATE INDEX voices_user ON voices (user, model);
CREATE INDEX voices_person ON voices (person);

-- What a deleted person leaves, and who the speakers of a resumed conversation are, without reading all segments.
CREATE INDEX segments_person ON segments (person) WHERE person IS NOT NULL;
CREATE INDEX segments_assigned ON segments (conversation, speaker, start, is_user, person)
    WHERE is_user <> 0 OR person IS NOT NULL;
