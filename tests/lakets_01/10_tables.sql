-- A stand-in for LakeTS 0.1.3: what its public interface is known to be (tests/sql/interface_0_1_3.txt), written anew
-- and as plain as can be. Where 0.1.3 is at fault in a way that a client or an upgrade must live with, so is this.
CREATE SCHEMA lakets;
CREATE SCHEMA lakets_cdf;

CREATE TABLE lakets._version (
    version text NOT NULL, installed_at timestamptz NOT NULL DEFAULT now(), modules text[] NOT NULL DEFAULT '{}'
);
INSERT INTO lakets._version (version) VALUES ('0.1.3');

CREATE TABLE lakets._chronotable_registry (
    id serial PRIMARY KEY, schema_name text NOT NULL, table_name text NOT NULL, time_column text NOT NULL,
    chunk_interval interval NOT NULL DEFAULT '7 days', space_column text, space_partitions int DEFAULT 1,
    tiering_enabled boolean DEFAULT false, retention_interval interval, shadow_table_name text,
    sync_enabled boolean DEFAULT false, last_synced_lsn bigint, created_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (schema_name, table_name)
);

CREATE TABLE lakets._chunk_metadata (
    id serial PRIMARY KEY,
    chronotable_id int NOT NULL REFERENCES lakets._chronotable_registry (id) ON DELETE CASCADE,
    chunk_name text NOT NULL, range_start timestamptz NOT NULL, range_end timestamptz NOT NULL,
    status text NOT NULL DEFAULT 'active' CONSTRAINT valid_status CHECK (status IN ('active', 'tiered', 'dropped')),
    row_count bigint, size_bytes bigint, tiered_at timestamptz, last_write_lsn pg_lsn,
    created_at timestamptz NOT NULL DEFAULT now(), last_modified_at timestamptz,
    CONSTRAINT uq_chunk_metadata_ct_range UNIQUE (chronotable_id, range_start)
);
CREATE UNIQUE INDEX idx_chunk_metadata_chunk_name ON lakets._chunk_metadata (chunk_name);
CREATE INDEX idx_chunk_metadata_hypertable ON lakets._chunk_metadata (chronotable_id);

CREATE TABLE lakets._policy_registry (
    id serial PRIMARY KEY,
    chronotable_id int NOT NULL REFERENCES lakets._chronotable_registry (id) ON DELETE CASCADE,
    policy_type text NOT NULL
        CONSTRAINT valid_policy_type CHECK (policy_type IN ('tiering', 'retention', 'tiered_retention')),
    config jsonb NOT NULL DEFAULT '{}', enabled boolean DEFAULT true, last_run_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE lakets._rollup_registry (
    id serial PRIMARY KEY, name text NOT NULL UNIQUE,
    source_chronotable_id int NOT NULL REFERENCES lakets._chronotable_registry (id) ON DELETE CASCADE,
    rollup_table text NOT NULL, realtime_view text, bucket_interval interval NOT NULL,
    refresh_lag interval DEFAULT '1 hour', watermark timestamptz, query_text text NOT NULL,
    last_refreshed_at timestamptz, created_at timestamptz NOT NULL DEFAULT now(),
    sync_enabled boolean NOT NULL DEFAULT false, shadow_table_name text, bucket_column text DEFAULT 'bucket',
    source_time_column text, predicate_injection boolean DEFAULT true, depends_on int[] DEFAULT '{}'
);

CREATE TABLE lakets._rollup_invalidation_log (
    id serial PRIMARY KEY, rollup_id int NOT NULL REFERENCES lakets._rollup_registry (id) ON DELETE CASCADE,
    bucket_start timestamptz NOT NULL, invalidated_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT uq_rollup_invalidation UNIQUE (rollup_id, bucket_start)
);

CREATE TABLE lakets._lvc_registry (
    id serial PRIMARY KEY,
    chronotable_id int NOT NULL UNIQUE REFERENCES lakets._chronotable_registry (id) ON DELETE CASCADE,
    cache_table_name text NOT NULL, key_columns text[] NOT NULL, value_columns text[] NOT NULL DEFAULT '{}',
    enabled boolean NOT NULL DEFAULT true, created_at timestamptz NOT NULL DEFAULT now()
);

-- The id of a ChronoTable by its name, or an error.
CREATE FUNCTION lakets._table_id(p_table_name text, p_schema_name text) RETURNS int LANGUAGE plpgsql AS $$
DECLARE
    v_id int;
BEGIN
    SELECT id INTO v_id FROM lakets._chronotable_registry
     WHERE schema_name = p_schema_name AND table_name = p_table_name;
    IF v_id IS NULL THEN
        RAISE EXCEPTION 'Table %.% is not a registered ChronoTable', p_schema_name, p_table_name;
    END IF;
    RETURN v_id;
END $$;

-- The ChronoTable that a trigger fires for: its own table, or the parent of its partition.
CREATE FUNCTION lakets._table_of_trigger(p_relation oid) RETURNS lakets._chronotable_registry LANGUAGE sql STABLE AS $$
    SELECT t.* FROM lakets._chronotable_registry t
     WHERE to_regclass(format('%I.%I', t.schema_name, t.table_name))
         = coalesce((SELECT inhparent FROM pg_inherits WHERE inhrelid = p_relation), p_relation)
$$;
