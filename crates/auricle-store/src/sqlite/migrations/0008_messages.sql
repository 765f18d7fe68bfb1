-- What apps, and the server about a user's webhooks, have to say to a user.
CREATE TABLE messages (
    rid          INTEGER PRIMARY KEY,
    id           TEXT    NOT NULL UNIQUE,
    user         INTEGER NOT NULL REFERENCES users (rid),
    target       INTEGER REFERENCES targets (rid) ON DELETE SET NULL,
    -- The target's name at that time.
    sender       TEXT    NOT NULL,
    conversation INTEGER REFERENCES conversations (rid) ON DELETE CASCADE,
    -- What it answers: an answer that is heard twice is one message.
    key          TEXT    NOT NULL,
    text         TEXT    NOT NULL,
    created_at   INTEGER NOT NULL,
    delivered_at INTEGER,
    UNIQUE (user, key)
) STRICT;
CREATE INDEX messages_target ON messages (target) WHERE target IS NOT NULL;
CREATE INDEX messages_conversation ON messages (conversation) WHERE conversation IS NOT NULL;
