-- Every key that may have sealed a value: who opens the file must have them all.
CREATE TABLE protection_keys (
    id TEXT NOT NULL PRIMARY KEY
) STRICT, WITHOUT ROWID;

-- How far the values on disk have been brought to the present key. One row; none before the first key.
CREATE TABLE protection_pass (
    id       INTEGER PRIMARY KEY CHECK (id = 1),
    -- The key that everything is to be sealed under; empty: none.
    target   TEXT    NOT NULL,
    -- `table.column`, `index`, `compact` or `done`.
    phase    TEXT    NOT NULL,
    -- The last row of the phase that was looked at.
    cursor   INTEGER NOT NULL,
    resealed INTEGER NOT NULL,
    damaged  INTEGER NOT NULL
) STRICT;
