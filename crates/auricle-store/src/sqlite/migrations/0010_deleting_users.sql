-- Set once, when a user and all that is theirs is to go; what is left is then deleted in steps, the row itself last.
ALTER TABLE users ADD COLUMN deleting_since INTEGER;
CREATE INDEX users_deleting ON users (deleting_since) WHERE deleting_since IS NOT NULL;
