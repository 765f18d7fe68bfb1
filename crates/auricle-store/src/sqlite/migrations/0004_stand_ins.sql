-- Records that rules made while the language model was away, which it makes anew when it is back.
CREATE INDEX stand_ins ON conversations (finished_at, rid)
    WHERE provider_version LIKE '%/fallback' AND status = 'completed';
