-- Functions that took other arguments in builds before 0.2.0: beside the new ones, a call would be ambiguous.
DROP FUNCTION IF EXISTS lakets._ensure_partitions(integer, integer, integer, timestamptz, timestamptz);
DROP FUNCTION IF EXISTS lakets._missing_chunks(lakets._chronotable_registry, timestamptz, timestamptz, tstzmultirange);
DROP FUNCTION IF EXISTS lakets._due_chunks(lakets._chronotable_registry, regclass, timestamptz, timestamptz);
DROP FUNCTION IF EXISTS lakets._create_chunk_table(lakets._chronotable_registry, timestamptz);
DROP FUNCTION IF EXISTS lakets._create_chunk_table(lakets._chronotable_registry, timestamptz, text);
DROP FUNCTION IF EXISTS lakets._create_chunk(lakets._chronotable_registry, timestamptz, timestamptz);
DROP FUNCTION IF EXISTS lakets._attach_chunk(lakets._chronotable_registry, regclass, timestamptz, timestamptz);
DROP FUNCTION IF EXISTS lakets._register_chunk(lakets._chronotable_registry, regclass, timestamptz, timestamptz);
DROP FUNCTION IF EXISTS lakets._prune_change_log(lakets._chronotable_registry);
