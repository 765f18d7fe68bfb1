-- Which conversations are to be embedded, and by which model each was. `due_at` is NULL once nothing is to be done: then
-- `model` names whose vectors there are, or is NULL if it was given up.
CREATE TABLE embedding_work (
    conversation INTEGER PRIMARY KEY REFERENCES conversations (rid) ON DELETE CASCADE,
    model        TEXT,
    due_at       INTEGER,
    attempts     INTEGER NOT NULL DEFAULT 0,
    postponed    INTEGER NOT NULL DEFAULT 0,
    leased_by    TEXT,
    epoch        INTEGER NOT NULL DEFAULT 0,
    last_error   TEXT
) STRICT;
CREATE INDEX embedding_work_due ON embedding_work (due_at) WHERE due_at IS NOT NULL;
CREATE INDEX embedding_work_failed ON embedding_work (conversation) WHERE due_at IS NULL AND model IS NULL;
CREATE INDEX embedding_work_leased ON embedding_work (leased_by) WHERE leased_by IS NOT NULL;

-- Newest first, and each a moment apart, so that what is new comes before all of it.
INSERT INTO embedding_work (conversation, due_at)
SELECT rid, finished_at FROM conversations WHERE status = 'completed' AND discarded IS NULL;

-- `ordinal` 0 is the conversation as a whole; its chunks follow in order. `vector` is f32, little-endian, of length 1;
-- ids only grow, so that a reader knows what is new to it.
CREATE TABLE vectors (
    rid           INTEGER PRIMARY KEY AUTOINCREMENT,
    conversation  INTEGER NOT NULL REFERENCES conversations (rid) ON DELETE CASCADE,
    ordinal       INTEGER NOT NULL,
    first_segment TEXT,
    last_segment  TEXT,
    vector        BLOB    NOT NULL,
    UNIQUE (conversation, ordinal)
) STRICT;

-- What a search reads: the same vectors in a byte for each number, apart from the long rows above.
CREATE TABLE vector_codes (
    rid   INTEGER PRIMARY KEY REFERENCES vectors (rid) ON DELETE CASCADE,
    user  INTEGER NOT NULL REFERENCES users (rid),
    model TEXT    NOT NULL,
    scale REAL    NOT NULL,
    code  BLOB    NOT NULL
) STRICT;
CREATE INDEX vector_codes_listing ON vector_codes (user, model);

-- Grows with each change of a user's vectors.
CREATE TABLE vector_versions (
    user    INTEGER PRIMARY KEY REFERENCES users (rid),
    version INTEGER NOT NULL
) STRICT;
