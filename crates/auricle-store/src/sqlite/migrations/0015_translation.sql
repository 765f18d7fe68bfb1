-- The language that the user reads: where more than one is spoken, what is said is translated into it.
ALTER TABLE users ADD COLUMN language TEXT;
