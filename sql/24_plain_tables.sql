-- Tables that belong to LakeTS, such as shadows and the tables of RollUps, must store exactly what
-- is written to them. Their owner, or a tool that adds a trigger to every table, can prevent that
-- without any error: a BEFORE trigger may discard or change a row, and the change feed does not see
-- rows of an UNLOGGED table. LakeTS writes to such a table only while it is plain.

-- Return what can discard or change rows that are written to a table, such as "trigger stamp"; null
-- if there is nothing. AFTER triggers cannot, nor can those of foreign keys and constraints. The
-- flags in pg_class may stay true after the last trigger or rule is gone.
CREATE OR REPLACE FUNCTION lakets._interference(
    p_relation regclass
) RETURNS text
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_class AS cls
                    WHERE cls.oid = p_relation::oid
                      AND (cls.relhastriggers OR cls.relhasrules OR cls.relforcerowsecurity OR cls.relpersistence = 'u')) THEN
        RETURN NULL;
    END IF;
    RETURN (
        SELECT string_agg(found.what, ', ' ORDER BY found.place, found.what)
          FROM (SELECT 1 AS place, format('trigger %I', trg.tgname) AS what
                  FROM pg_trigger AS trg
                 WHERE trg.tgrelid = p_relation AND NOT trg.tgisinternal AND trg.tgenabled <> 'D'
                   AND trg.tgtype & 1 = 1 AND trg.tgtype & 2 = 2  -- FOR EACH ROW, and BEFORE
                UNION ALL
                SELECT 2, format('rule %I', rule.rulename) FROM pg_rewrite AS rule
                 WHERE rule.ev_class = p_relation AND rule.ev_type <> '1' AND rule.ev_enabled <> 'D'  -- 1 is SELECT
                UNION ALL
                SELECT 3, 'forced row level security' FROM pg_class AS cls
                 WHERE cls.oid = p_relation AND cls.relrowsecurity AND cls.relforcerowsecurity
                UNION ALL
                SELECT 4, 'a crash, since it is UNLOGGED' FROM pg_class AS cls
                 WHERE cls.oid = p_relation AND cls.relpersistence = 'u') AS found);
END;
$$;

-- The same as of now. The function above sees what its caller sees, which in a trigger is the start
-- of the statement.
CREATE OR REPLACE FUNCTION lakets._interference_now(
    p_relation regclass
) RETURNS text
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN lakets._interference(p_relation);
END;
$$;

-- Return whether a table stores what is written to it. Declared immutable, so that a statement with
-- a constant argument evaluates it once, when it is planned. Postgres plans that statement again
-- after each change of the table's triggers, rules or policies. Only for trigger
-- functions, at READ COMMITTED: a plan must not keep what an old snapshot shows.
CREATE OR REPLACE FUNCTION lakets._is_plain(
    p_relation regclass
) RETURNS boolean
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT lakets._interference_now(p_relation) IS NULL;
$$;

-- Raise an error if rows that are written to a table may not be there as they were written. Called
-- while the table is locked, or after the write too: otherwise a trigger may be added in between.
CREATE OR REPLACE FUNCTION lakets._check_plain(
    p_relation regclass
) RETURNS void
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_what text := lakets._interference(p_relation);
BEGIN
    IF v_what IS NOT NULL THEN
        RAISE EXCEPTION 'LakeTS cannot write to %: rows can be discarded or changed by %.', p_relation, v_what
            USING HINT = 'Nothing was changed. Only LakeTS writes to this table: drop these triggers and rules, or call '
                         'ALTER TABLE ... NO FORCE ROW LEVEL SECURITY or SET LOGGED; AFTER triggers may stay. Then call this again.';
    END IF;
END;
$$;
