-- The columns of a table, and how a row is found again: by its key, or else by its values. Change
-- tracking and the shadows use this.

-- SQL text of a row, for comparing it whole.
CREATE OR REPLACE FUNCTION lakets._row_image(
    p_alias   text,
    p_columns name[]
) RETURNS text
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT format('ROW(%s)', string_agg(format('%s.%I', p_alias, col), ', ' ORDER BY ord))
      FROM unnest(p_columns) WITH ORDINALITY AS u (col, ord);
$$;

-- A name for use beside columns, in a generated statement: p_name, with a number if a column has
-- it.
CREATE OR REPLACE FUNCTION lakets._unlike(
    p_name    text,
    p_columns name[]
) RETURNS text
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT one.name
      FROM generate_series(0, cardinality(p_columns)) AS number
     CROSS JOIN LATERAL (SELECT p_name || coalesce(nullif(number, 0)::text, '') AS name) AS one
     WHERE one.name <> ALL (p_columns)
     ORDER BY number LIMIT 1;
$$;

-- A table's columns in order, without virtual ones, which are computed from the others.
CREATE OR REPLACE FUNCTION lakets._columns(
    p_relation regclass
) RETURNS name[]
    LANGUAGE sql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT array_agg(att.attname ORDER BY att.attnum)
      FROM pg_attribute AS att
     WHERE att.attrelid = p_relation AND att.attnum > 0 AND NOT att.attisdropped AND att.attgenerated <> 'v';
$$;

-- The same with their types, sorted by name. A shadow must have the same columns.
CREATE OR REPLACE FUNCTION lakets._shape(
    p_relation regclass
) RETURNS text[]
    LANGUAGE sql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT array_agg(att.attname || ' ' || format_type(att.atttypid, att.atttypmod) ORDER BY att.attname)
      FROM pg_attribute AS att
     WHERE att.attrelid = p_relation AND att.attnum > 0 AND NOT att.attisdropped AND att.attgenerated <> 'v';
$$;

-- Three marks of the columns of a table: their numbers and names, the versions of their rows in the
-- catalog, and the file of the default partition.
CREATE OR REPLACE FUNCTION lakets._columns_mark(
    p_relation regclass
) RETURNS text
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN (
        SELECT concat_ws('/', md5(string_agg(att.attnum || ' ' || quote_ident(att.attname), ', ' ORDER BY att.attnum)),
                         md5(string_agg(att.xmin || ' ' || att.ctid, ', ' ORDER BY att.attnum)),
                         coalesce(pg_relation_filenode((SELECT part.partdefid FROM pg_partitioned_table AS part WHERE part.partrelid = p_relation)), 0))
          FROM pg_attribute AS att
         WHERE att.attrelid = p_relation AND att.attnum > 0 AND NOT att.attisdropped);
END;
$$;

-- Return whether a table has the values that its trigger functions know of: false if a column was
-- dropped and added again, if two swapped their names, or if ALTER TABLE computed a column anew.
-- The last changes the catalog and writes new files. TRUNCATE and VACUUM FULL write new files too,
-- and SET NOT NULL changes the catalog; if both happened, chunks are compared without need. True if
-- there are no such functions, or if those of an earlier version do not say.
CREATE OR REPLACE FUNCTION lakets._knows_columns(
    p_relation regclass
) RETURNS boolean
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN NOT EXISTS (
        SELECT FROM pg_trigger AS trg
          JOIN pg_proc AS fn ON fn.oid = trg.tgfoid
         CROSS JOIN LATERAL (SELECT string_to_array(substring(fn.prosrc FROM '\n-- columns (\S+)'), '/') AS known,
                                    string_to_array(lakets._columns_mark(p_relation), '/') AS now) AS mark
         WHERE trg.tgrelid = p_relation AND trg.tgname = 'lakets_track_insert'
           AND (mark.known[1] <> mark.now[1] OR mark.known[2] <> mark.now[2] AND mark.known[3] <> mark.now[3]));
END;
$$;

-- The index of the key that identifies a row at any moment: of the replica identity, or else of the
-- primary key unless that is deferrable.
CREATE OR REPLACE FUNCTION lakets._key_index(
    p_relation oid
) RETURNS oid
    LANGUAGE sql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT coalesce(pg_get_replica_identity_index(p_relation::regclass)::oid, (
        SELECT idx.indexrelid FROM pg_index AS idx
         WHERE idx.indrelid = p_relation AND idx.indisprimary AND idx.indimmediate AND idx.indisvalid));
$$;

-- Return whether a table still has the columns and the key (null: none was needed) that its
-- tracking was written for. Declared immutable, so that a statement with constant arguments
-- evaluates it once, when it is planned. Postgres plans a statement on a transition table again
-- after its table was altered. Only for tracking triggers: see _guarded.
CREATE OR REPLACE FUNCTION lakets._has_shape(
    p_relation oid,
    p_shape    text[],
    p_key      oid
) RETURNS boolean
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE WHEN lakets._shape(p_relation) IS DISTINCT FROM p_shape THEN false  -- its shape is null if it was dropped
                WHEN p_key IS NULL THEN true
                ELSE lakets._key_index(p_relation) IS NOT DISTINCT FROM p_key END;
$$;

-- Return whether a table still has a column with that name. Declared immutable for the same reason,
-- and for the same use only.
CREATE OR REPLACE FUNCTION lakets._has_column(
    p_relation oid,
    p_column   name
) RETURNS boolean
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT EXISTS (SELECT FROM pg_attribute AS att WHERE att.attrelid = p_relation AND att.attname = p_column AND NOT att.attisdropped);
$$;

-- The columns of that key, each with its type's own equality operator; no rows without such a key.
-- A key WITHOUT OVERLAPS has a GiST index, whose operators compare otherwise: its rows differ by =
-- too.
CREATE OR REPLACE FUNCTION lakets._key_columns(
    p_relation regclass
) RETURNS TABLE (key_column name, equals text)
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN QUERY
        SELECT att.attname, format('OPERATOR(%I.%s)', coalesce(nsp.nspname, 'pg_catalog'), coalesce(opr.oprname, '='))
          FROM pg_index AS idx
         CROSS JOIN LATERAL unnest(idx.indkey::int2[], idx.indclass::oid[]) WITH ORDINALITY AS k (attnum, opclass, position)
          JOIN pg_attribute AS att ON att.attrelid = idx.indrelid AND att.attnum = k.attnum
          JOIN pg_opclass AS cls ON cls.oid = k.opclass
          LEFT JOIN (pg_amop AS amop
                     JOIN pg_am AS am ON am.oid = amop.amopmethod AND am.amname = 'btree'
                     JOIN pg_operator AS opr ON opr.oid = amop.amopopr
                     JOIN pg_namespace AS nsp ON nsp.oid = opr.oprnamespace)
                 ON amop.amopfamily = cls.opcfamily AND amop.amopstrategy = 3
                AND amop.amoplefttype = cls.opcintype AND amop.amoprighttype = cls.opcintype
         WHERE idx.indexrelid = lakets._key_index(p_relation) AND k.position <= idx.indnkeyatts
         ORDER BY k.position;
END;
$$;

-- Return whether values of a type can be hashed: those of types with a hash operator class, and of
-- enums, and of domains, arrays and ranges of such types.
CREATE OR REPLACE FUNCTION lakets._can_hash(
    p_type oid
) RETURNS boolean
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_type pg_type;
    v_of   oid;
BEGIN
    SELECT typ.* INTO v_type FROM pg_type AS typ WHERE typ.oid = p_type;
    IF v_type.typtype = 'e' OR p_type = 'varchar'::regtype THEN
        RETURN true;
    END IF;
    v_of := CASE WHEN v_type.typtype = 'd' THEN v_type.typbasetype
                 WHEN v_type.typtype IN ('r', 'm') THEN (SELECT rng.rngsubtype FROM pg_range AS rng WHERE p_type IN (rng.rngtypid, rng.rngmultitypid))
                 WHEN v_type.typsubscript = 'array_subscript_handler'::regproc THEN v_type.typelem END;
    IF v_of IS NOT NULL THEN
        RETURN lakets._can_hash(v_of);
    END IF;
    RETURN v_type.typtype = 'b' AND EXISTS (
        SELECT FROM pg_opclass AS cls
          JOIN pg_am AS am ON am.oid = cls.opcmethod AND am.amname = 'hash'
          JOIN pg_amproc AS fn ON fn.amprocfamily = cls.opcfamily AND fn.amprocnum = 2 AND fn.amproclefttype = cls.opcintype
         WHERE cls.opcdefault AND cls.opcintype = p_type);
END;
$$;

-- For a table without a key: two SQL expressions that find the copies of a row by index, its time
-- and a hash of its columns. Arrays, domains, ranges and json (as text) are hashed only where there
-- is nothing else but the time, since they cost each INSERT a tenth. Columns that cannot be hashed
-- are left out. So are all but the first 200, because the expression must fit into one row of the
-- catalog.
CREATE OR REPLACE FUNCTION lakets._find_by(
    p_relation    regclass,
    p_alias       text,
    p_time_column text,
    OUT at        text,
    OUT hash      text
)
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    at := format('coalesce(%s.%I, %L::%s)', p_alias, p_time_column, 'infinity', lakets._column_type(p_relation, p_time_column));
    WITH usable AS (
        SELECT att.attnum, att.attname, att.atttypid = 'json'::regtype AS is_json,
               att.atttypid = 'varchar'::regtype OR typ.typtype = 'e' OR typ.typtype = 'b' AND typ.typelem = 0 AND att.atttypid <> 'json'::regtype AS is_plain
          FROM pg_attribute AS att JOIN pg_type AS typ ON typ.oid = att.atttypid
         WHERE att.attrelid = p_relation AND att.attname = ANY (lakets._columns(p_relation))
           AND (att.atttypid = 'json'::regtype OR lakets._can_hash(att.atttypid))
    ), hashed AS (
        SELECT usable.*
          FROM usable
         WHERE usable.is_plain OR NOT EXISTS (SELECT FROM usable AS other WHERE other.is_plain AND other.attname <> p_time_column)
         ORDER BY usable.attnum LIMIT 200
    )
    SELECT format('hash_record_extended(ROW(%s), 0)', string_agg(
               format('%s.%I%s', p_alias, hashed.attname, CASE WHEN hashed.is_json THEN '::text' END), ', ' ORDER BY hashed.attnum))
      INTO hash FROM hashed;
END;
$$;

-- The columns or expressions of the shadow's index: the key, or the two above.
CREATE OR REPLACE FUNCTION lakets._shadow_index_columns(
    p_relation    regclass,
    p_shadow      regclass,
    p_time_column text
) RETURNS text
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN coalesce((SELECT string_agg(quote_ident(key.key_column), ', ') FROM lakets._key_columns(p_relation) AS key),
                    (SELECT format('(%s), (%s)', find.at, find.hash)
                       FROM pg_class AS cls, lakets._find_by(p_relation, quote_ident(cls.relname), p_time_column) AS find
                      WHERE cls.oid = p_shadow));
END;
$$;
