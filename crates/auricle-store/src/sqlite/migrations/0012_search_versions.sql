-- Grows when something of a user that the search index named is deleted: keys of rows may be given again, so that whoever
-- remembers what stood where must forget.
CREATE TABLE search_versions (
    user    INTEGER PRIMARY KEY REFERENCES users (rid),
    version INTEGER NOT NULL
) STRICT;
