-- Attempts that ended because whoever was needed is away: they are not counted, so how many and since when bounds them.
-- Both begin anew with an attempt that is counted, and with a revival.
ALTER TABLE jobs ADD COLUMN postponed INTEGER NOT NULL DEFAULT 0;
ALTER TABLE jobs ADD COLUMN away_since INTEGER;
ALTER TABLE effects ADD COLUMN postponed INTEGER NOT NULL DEFAULT 0;
ALTER TABLE effects ADD COLUMN away_since INTEGER;
