-- Functions that take one argument more, or return something, than those of earlier builds of 0.2.0: beside the new ones a call
-- would be ambiguous.
DROP FUNCTION IF EXISTS lakets.drop_chunks(text, interval, text);
DROP FUNCTION IF EXISTS lakets._follow_owner(lakets._chronotable_registry);

-- Functions that are gone.
DROP FUNCTION IF EXISTS lakets._retention_gap(lakets._chronotable_registry, lakets._chunk_metadata, pg_snapshot);
DROP FUNCTION IF EXISTS lakets._has_absorbed(lakets._rollup_registry, timestamptz, timestamptz);
DROP FUNCTION IF EXISTS lakets._trim_gap(lakets._chronotable_registry, lakets._chunk_metadata, pg_snapshot);
