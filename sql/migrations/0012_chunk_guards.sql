-- Their results or arguments change.
DROP FUNCTION IF EXISTS lakets._guard_partitions(regclass);
DROP FUNCTION IF EXISTS lakets._lvc_trigger(text);
DROP FUNCTION IF EXISTS lakets._write_tracker(regclass, text, text, text);
