-- Row by row; a row that the shadow lacks is nobody's concern.
CREATE FUNCTION lakets._sync_trigger_fn() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    v_shadow text := (lakets._table_of_trigger(TG_RELID)).shadow_table_name;
BEGIN
    v_shadow := coalesce(v_shadow, (SELECT shadow_table_name FROM lakets._rollup_registry WHERE rollup_table = TG_TABLE_NAME));
    IF v_shadow IS NULL THEN RETURN NULL; END IF;
    IF TG_OP <> 'INSERT' THEN
        EXECUTE format('DELETE FROM lakets_cdf.%1$I WHERE ctid = (SELECT s.ctid FROM lakets_cdf.%1$I s
                         WHERE ROW(s.*) IS NOT DISTINCT FROM ROW(($1).*) LIMIT 1)', v_shadow) USING OLD;
    END IF;
    IF TG_OP <> 'DELETE' THEN
        EXECUTE format('INSERT INTO lakets_cdf.%I SELECT ($1).*', v_shadow) USING NEW;
    END IF;
    RETURN NULL;
END $$;

-- Copies nothing: what is there before is not mirrored.
CREATE FUNCTION lakets._mirror(p_relation regclass, p_shadow text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('CREATE TABLE IF NOT EXISTS lakets_cdf.%I (LIKE %s)', p_shadow, p_relation);
    EXECUTE format('ALTER TABLE lakets_cdf.%I REPLICA IDENTITY FULL', p_shadow);
    EXECUTE format('CREATE OR REPLACE TRIGGER trg_lakets_sync AFTER INSERT OR UPDATE OR DELETE ON %s
                    FOR EACH ROW EXECUTE FUNCTION lakets._sync_trigger_fn()', p_relation);
END $$;

CREATE FUNCTION lakets.enable_sync(p_table_name text, p_schema_name text DEFAULT 'public') RETURNS void
    LANGUAGE plpgsql AS $$
DECLARE
    v_table lakets._chronotable_registry;
    v_rollup lakets._rollup_registry;
BEGIN
    SELECT * INTO v_table FROM lakets._chronotable_registry WHERE schema_name = p_schema_name AND table_name = p_table_name;
    SELECT * INTO v_rollup FROM lakets._rollup_registry WHERE name = p_table_name;
    IF to_regclass('wal2delta.tables') IS NULL THEN
        RAISE WARNING 'Lakebase CDF (wal2delta) is not enabled on this database';
    END IF;
    IF v_table.id IS NOT NULL AND v_rollup.id IS NOT NULL THEN
        RAISE EXCEPTION 'Ambiguous: % is both a ChronoTable and a RollUp', p_table_name;
    ELSIF v_table.sync_enabled OR v_rollup.sync_enabled THEN
        RAISE NOTICE '% is already synced', p_table_name;
    ELSIF v_table.id IS NOT NULL THEN
        PERFORM lakets._mirror(format('%I.%I', p_schema_name, p_table_name)::regclass, '_shadow_' || p_table_name);
        UPDATE lakets._chronotable_registry SET shadow_table_name = '_shadow_' || p_table_name, sync_enabled = true WHERE id = v_table.id;
    ELSIF v_rollup.id IS NOT NULL THEN
        PERFORM lakets._mirror(format('public.%I', v_rollup.rollup_table)::regclass, '_shadow_rollup_' || p_table_name);
        UPDATE lakets._rollup_registry SET shadow_table_name = '_shadow_rollup_' || p_table_name, sync_enabled = true WHERE id = v_rollup.id;
    ELSE
        RAISE EXCEPTION '% is not a registered ChronoTable or RollUp', p_table_name;
    END IF;
EXCEPTION WHEN insufficient_privilege THEN
    RAISE WARNING '%', SQLERRM;
END $$;

CREATE FUNCTION lakets.disable_sync(p_table_name text, p_schema_name text DEFAULT 'public') RETURNS void
    LANGUAGE plpgsql AS $$
DECLARE
    v_relation regclass := to_regclass(format('%I.%I', p_schema_name, p_table_name));
    v_shadow text;
BEGIN
    SELECT shadow_table_name INTO v_shadow FROM lakets._chronotable_registry WHERE schema_name = p_schema_name AND table_name = p_table_name;
    IF NOT FOUND THEN
        SELECT shadow_table_name, format('public.%I', rollup_table)::regclass INTO v_shadow, v_relation
          FROM lakets._rollup_registry WHERE name = p_table_name;
        IF NOT FOUND THEN RAISE EXCEPTION '% is not a registered ChronoTable or RollUp', p_table_name; END IF;
    END IF;
    EXECUTE format('DROP TRIGGER IF EXISTS trg_lakets_sync ON %s', v_relation);
    EXECUTE format('DROP TABLE IF EXISTS lakets_cdf.%I', v_shadow);
    UPDATE lakets._chronotable_registry SET shadow_table_name = NULL, sync_enabled = false WHERE schema_name = p_schema_name AND table_name = p_table_name;
    UPDATE lakets._rollup_registry SET shadow_table_name = NULL, sync_enabled = false WHERE name = p_table_name;
END $$;
