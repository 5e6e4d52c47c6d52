-- What a RollUp's query was found to be takes the place of what its rows were guessed from.
ALTER TABLE lakets._rollup_registry
    ADD COLUMN definition jsonb,  -- see sql/80_rollup_definition.sql; null: the query is yet to be looked at
    DROP COLUMN bucket_origin,
    DROP COLUMN on_grid;

DROP FUNCTION IF EXISTS lakets._qualified_query(text, text);
DROP FUNCTION IF EXISTS lakets._bucket_column(text, name[], oid[]);
DROP FUNCTION IF EXISTS lakets._rollup_sources(integer, integer[]);
DROP FUNCTION IF EXISTS lakets._is_syntax(text);
DROP FUNCTION IF EXISTS lakets._window_query(text, text, text, integer, integer[]);
DROP FUNCTION IF EXISTS lakets._bucket_of(lakets._rollup_registry, timestamptz);
DROP FUNCTION IF EXISTS lakets._longest_bucket(lakets._rollup_registry);
DROP FUNCTION IF EXISTS lakets._bucket_end(lakets._rollup_registry, timestamptz);
DROP FUNCTION IF EXISTS lakets._buckets_of(lakets._rollup_registry, timestamptz, timestamptz);
DROP FUNCTION IF EXISTS lakets._learn_grid(lakets._rollup_registry);
DROP FUNCTION IF EXISTS lakets._check_bucket_length(lakets._rollup_registry, timestamptz, integer);
DROP FUNCTION IF EXISTS lakets._check_newest_buckets(lakets._rollup_registry);
DROP FUNCTION IF EXISTS lakets._buckets_within(lakets._rollup_registry, timestamptz, timestamptz);
