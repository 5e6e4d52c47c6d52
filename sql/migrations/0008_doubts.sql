-- Mirrors that are in doubt, and how far they have been compared with their tables (65_mirror_check.sql).
CREATE TABLE lakets._mirror_check (
    chronotable_id integer PRIMARY KEY REFERENCES lakets._chronotable_registry (id) ON DELETE CASCADE,
    compared       tstzmultirange NOT NULL  -- where table and shadow hold the same
);

-- Of 0.1.x: who marks a bucket would wait for whoever marks it, too, or is refreshing it.
ALTER TABLE lakets._rollup_invalidation_log DROP CONSTRAINT IF EXISTS uq_rollup_invalidation;
