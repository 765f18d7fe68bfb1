-- Action items and memories. They are the only copy: what `structured` once held moves here.
-- `made` is what understanding last wrote, NULL for what the user made; `…_edited` says what the user touched, which no
-- later revision changes; a row with `deleted_at` only keeps its like from coming back.

CREATE TABLE action_items (
    rid                INTEGER PRIMARY KEY,
    id                 TEXT    NOT NULL UNIQUE,
    user               INTEGER NOT NULL REFERENCES users (rid),
    conversation       INTEGER REFERENCES conversations (rid) ON DELETE SET NULL,
    revision           INTEGER,
    description        TEXT    NOT NULL,
    made               TEXT,
    completed          INTEGER NOT NULL DEFAULT 0,
    completed_at       INTEGER,
    due_at             INTEGER,
    created_at         INTEGER NOT NULL,
    updated_at         INTEGER NOT NULL,
    description_edited INTEGER NOT NULL DEFAULT 0,
    due_edited         INTEGER NOT NULL DEFAULT 0,
    completed_edited   INTEGER NOT NULL DEFAULT 0,
    deleted_at         INTEGER
) STRICT;
CREATE INDEX action_items_listing ON action_items (user, created_at DESC) WHERE deleted_at IS NULL;
CREATE INDEX action_items_conversation ON action_items (conversation) WHERE conversation IS NOT NULL;

CREATE TABLE memories (
    rid          INTEGER PRIMARY KEY,
    id           TEXT    NOT NULL UNIQUE,
    user         INTEGER NOT NULL REFERENCES users (rid),
    conversation INTEGER REFERENCES conversations (rid) ON DELETE SET NULL,
    revision     INTEGER,
    text         TEXT    NOT NULL,
    made         TEXT,
    created_at   INTEGER NOT NULL,
    updated_at   INTEGER NOT NULL,
    edited       INTEGER NOT NULL DEFAULT 0,
    deleted_at   INTEGER
) STRICT;
CREATE INDEX memories_listing ON memories (user, created_at DESC) WHERE deleted_at IS NULL;
CREATE INDEX memories_conversation ON memories (conversation) WHERE conversation IS NOT NULL;

-- As `search`: rowid = 2 * an action item's rid, or 2 * a memory's rid + 1.
CREATE VIRTUAL TABLE records_search USING fts5 (
    scope, body,
    tokenize = 'porter unicode61'
);

INSERT INTO action_items (id, user, conversation, revision, description, made, completed, completed_at, due_at, created_at,
    updated_at)
SELECT lower(hex(randomblob(4)) || '-' || hex(randomblob(2)) || '-4' || substr(hex(randomblob(2)), 2) || '-a'
        || substr(hex(randomblob(2)), 2) || '-' || hex(randomblob(6))),
    c.user, c.rid, c.revision, item.value ->> 'description', item.value ->> 'description',
    coalesce(item.value ->> 'completed', 0), item.value ->> 'completed_at', item.value ->> 'due_at',
    coalesce(item.value ->> 'created_at', c.created_at),
    coalesce(item.value ->> 'updated_at', item.value ->> 'created_at', c.created_at)
FROM conversations c,
    json_each(CASE WHEN json_valid(c.structured) THEN c.structured ELSE '{}' END, '$.action_items') item
WHERE item.value ->> 'description' <> ''
ORDER BY c.rid, item.key;

UPDATE conversations SET structured = json_set(structured, '$.action_items', json('[]'))
WHERE json_valid(structured) AND structured ->> '$.action_items' <> '[]';

INSERT INTO records_search (rowid, scope, body) SELECT rid * 2, 'u' || user, description FROM action_items;
