-- Their arguments change, or others do their work.
DROP FUNCTION IF EXISTS lakets._lock_now(regclass);
DROP FUNCTION IF EXISTS lakets._lock_against_writers_now(regclass);
DROP FUNCTION IF EXISTS lakets._compare_chunk(lakets._chronotable_registry, lakets._chunk_metadata);
DROP FUNCTION IF EXISTS lakets._compare_chunks(lakets._chronotable_registry, bigint[]);
