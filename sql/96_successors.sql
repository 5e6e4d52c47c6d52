-- Replace the functions of LakeTS 0.1.x, which 0001_older_functions.sql has renamed, by the
-- functions of this version. Views and functions of others, and granted rights, then use these.
-- Called by the install only.

-- Return whether anything depends on a routine.
CREATE OR REPLACE FUNCTION lakets._is_used(
    p_routine regprocedure
) RETURNS boolean
    LANGUAGE sql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT EXISTS (SELECT FROM pg_depend AS dep
                    WHERE dep.refclassid = 'pg_proc'::regclass AND dep.refobjid = p_routine AND dep.deptype IN ('n', 'a'));
$$;

-- Return as text what uses a function; null if nothing does.
CREATE OR REPLACE FUNCTION lakets._users_of(
    p_routine regprocedure
) RETURNS text
    LANGUAGE sql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT string_agg(DISTINCT coalesce(
               'view ' || rewrite.ev_class::regclass,
               'table ' || attr.adrelid::regclass,
               pg_describe_object(dep.classid, dep.objid, dep.objsubid)), ', ')
      FROM pg_depend AS dep
      LEFT JOIN pg_rewrite AS rewrite ON dep.classid = 'pg_rewrite'::regclass AND rewrite.oid = dep.objid
      LEFT JOIN pg_attrdef AS attr ON dep.classid = 'pg_attrdef'::regclass AND attr.oid = dep.objid
     WHERE dep.refclassid = 'pg_proc'::regclass AND dep.refobjid = p_routine AND dep.deptype IN ('n', 'a');
$$;

-- Give a routine the rights that were granted on another.
CREATE OR REPLACE FUNCTION lakets._inherit_grants(
    p_from regprocedure,
    p_to   regprocedure
) RETURNS void
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_acl   aclitem[] := (SELECT fn.proacl FROM pg_proc AS fn WHERE fn.oid = p_from);
    v_grant record;
BEGIN
    IF v_acl IS NULL THEN
        RETURN;  -- nobody granted or revoked anything
    END IF;
    IF NOT EXISTS (SELECT FROM aclexplode(v_acl) AS acl WHERE acl.grantee = 0) THEN
        EXECUTE format('REVOKE EXECUTE ON ROUTINE %s FROM PUBLIC', p_to);
    END IF;
    FOR v_grant IN SELECT acl.grantee, acl.is_grantable FROM aclexplode(v_acl) AS acl LOOP
        EXECUTE format('GRANT EXECUTE ON ROUTINE %s TO %s%s', p_to,
                       CASE v_grant.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(v_grant.grantee)) END,
                       CASE WHEN v_grant.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END);
    END LOOP;
END;
$$;

-- SQL text that creates a function or an aggregate with its current definition.
CREATE OR REPLACE FUNCTION lakets._definition(
    p_routine regprocedure
) RETURNS text
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_aggregate text;
BEGIN
    SELECT format('CREATE OR REPLACE AGGREGATE lakets.%I(%s) (SFUNC = %s, STYPE = %s%s%s%s%s, PARALLEL = %s)',
                  fn.proname, pg_get_function_arguments(fn.oid), agg.aggtransfn, format_type(agg.aggtranstype, NULL),
                  ', FINALFUNC = ' || nullif(agg.aggfinalfn, 0)::regproc::text,
                  CASE WHEN agg.aggfinalextra THEN ', FINALFUNC_EXTRA' END,
                  ', COMBINEFUNC = ' || nullif(agg.aggcombinefn, 0)::regproc::text,
                  ', INITCOND = ' || quote_literal(agg.agginitval),
                  CASE fn.proparallel WHEN 's' THEN 'SAFE' ELSE 'UNSAFE' END)
      INTO v_aggregate
      FROM pg_aggregate AS agg JOIN pg_proc AS fn ON fn.oid = agg.aggfnoid WHERE agg.aggfnoid = p_routine;
    RETURN coalesce(v_aggregate, pg_get_functiondef(p_routine));
END;
$$;

-- The function of this version that takes the arguments of an older one, and perhaps more; null if
-- there is none.
CREATE OR REPLACE FUNCTION lakets._successor(
    p_old regprocedure
) RETURNS regprocedure
    LANGUAGE sql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT new.oid::regprocedure
      FROM pg_proc AS old
      JOIN pg_proc AS new ON new.pronamespace = old.pronamespace AND new.proname = substr(old.proname, 6)
     WHERE old.oid = p_old AND new.pronargs - new.pronargdefaults <= old.pronargs
       AND (new.proargtypes::oid[])[0:old.pronargs - 1] = (old.proargtypes::oid[])[0:old.pronargs - 1]
     ORDER BY new.pronargs LIMIT 1;
$$;

-- Replace the older function by ours in its place, if it has the same arguments and result.
-- Everything that uses the older one then uses ours without a change.
CREATE OR REPLACE FUNCTION lakets._succeed(
    p_old regprocedure
) RETURNS boolean
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_name    text;
    v_new     regprocedure;
    v_made    text;
    v_comment text;
BEGIN
    SELECT substr(old.proname, 6), new.oid INTO v_name, v_new
      FROM pg_proc AS old
      JOIN pg_proc AS new ON new.pronamespace = old.pronamespace AND new.proname = substr(old.proname, 6)
     WHERE old.oid = p_old AND new.prokind = old.prokind AND new.proargtypes = old.proargtypes
       AND new.prorettype = old.prorettype AND new.proretset = old.proretset
       AND new.proallargtypes IS NOT DISTINCT FROM old.proallargtypes AND new.proargmodes IS NOT DISTINCT FROM old.proargmodes
       AND coalesce(old.proargnames, new.proargnames) IS NOT DISTINCT FROM new.proargnames
       AND new.pronargdefaults >= old.pronargdefaults;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    v_made := lakets._definition(v_new);
    v_comment := obj_description(v_new, 'pg_proc');
    BEGIN
        PERFORM lakets._inherit_grants(v_new, p_old);
        EXECUTE format('DROP ROUTINE %s', v_new);
    EXCEPTION WHEN dependent_objects_still_exist THEN
        RETURN false;
    END;
    EXECUTE format('ALTER ROUTINE %s RENAME TO %I', p_old, v_name);
    EXECUTE v_made;
    EXECUTE format('COMMENT ON ROUTINE %s IS %L', p_old, v_comment);
    RETURN true;
END;
$$;

-- Let an older function that is still used call ours, if ours has the same arguments and result.
-- Returns null if it does, else the reason why not.
CREATE OR REPLACE FUNCTION lakets._delegate(
    p_old regprocedure,
    p_new regprocedure
) RETURNS text
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_old     pg_proc;
    v_results text;
BEGIN
    SELECT fn.* INTO STRICT v_old FROM pg_proc AS fn WHERE fn.oid = p_old;
    IF p_new IS NULL THEN
        RETURN 'this version has no such function';
    END IF;
    SELECT string_agg(format('s.%I::%s', v_old.proargnames[n], format_type(v_old.proallargtypes[n], NULL)), ', ' ORDER BY n)
      INTO v_results
      FROM generate_subscripts(v_old.proallargtypes, 1) AS n WHERE v_old.proargmodes[n] IN ('t', 'o');
    EXECUTE format('CREATE OR REPLACE FUNCTION lakets.%I(%s) RETURNS %s LANGUAGE sql %s SET search_path = pg_catalog, pg_temp AS %L',
                   v_old.proname, pg_get_function_arguments(p_old), pg_get_function_result(p_old),
                   CASE v_old.provolatile WHEN 'i' THEN 'IMMUTABLE' WHEN 's' THEN 'STABLE' ELSE 'VOLATILE' END,
                   format('SELECT %s FROM %s(%s) AS s', coalesce(v_results, 's'), p_new::regproc,
                          (SELECT string_agg('$' || n, ', ') FROM generate_series(1, v_old.pronargs) AS n)));
    RETURN NULL;
EXCEPTION WHEN syntax_error_or_access_rule_violation THEN
    RETURN SQLERRM;
END;
$$;

DO $$
DECLARE
    v_old   record;
    v_found boolean := true;
    v_why   text;
    v_other record;
BEGIN
    FOR v_old IN SELECT fn.oid::regprocedure AS routine FROM pg_catalog.pg_proc AS fn
                  WHERE fn.pronamespace = 'lakets'::regnamespace AND fn.proname LIKE '\_0\_1\_%' LOOP
        PERFORM lakets._succeed(v_old.routine);
    END LOOP;

    WHILE v_found LOOP  -- again, because the functions of an aggregate can be dropped only after it
        v_found := false;
        FOR v_old IN
            SELECT fn.oid::regprocedure AS routine, lakets._successor(fn.oid) AS successor
              FROM pg_catalog.pg_proc AS fn
             WHERE fn.pronamespace = 'lakets'::regnamespace AND fn.proname LIKE '\_0\_1\_%' AND NOT lakets._is_used(fn.oid)
        LOOP
            PERFORM lakets._inherit_grants(v_old.routine, v_old.successor) WHERE v_old.successor IS NOT NULL;
            EXECUTE pg_catalog.format('DROP ROUTINE %s', v_old.routine);
            v_found := true;
        END LOOP;
    END LOOP;

    FOR v_old IN
        SELECT fn.oid::regprocedure AS routine, pg_catalog.substr(fn.proname, 6) AS name,
               lakets._successor(fn.oid) AS successor, lakets._users_of(fn.oid) AS users
          FROM pg_catalog.pg_proc AS fn
         WHERE fn.pronamespace = 'lakets'::regnamespace AND fn.proname LIKE '\_0\_1\_%'
           AND fn.prorettype <> 'trigger'::regtype  -- see 48_older_triggers.sql
    LOOP
        PERFORM lakets._inherit_grants(v_old.routine, v_old.successor) WHERE v_old.successor IS NOT NULL;
        v_why := lakets._delegate(v_old.routine, v_old.successor);
        CONTINUE WHEN v_old.successor IS NULL AND v_old.name LIKE '\_%';  -- the function that it is a part of is reported
        RAISE WARNING 'lakets.% is used by %, which now uses %: %.', v_old.name, v_old.users, v_old.routine,
            coalesce('that is the older function, unchanged, since ' || v_why, 'that calls the new one')
            USING HINT = pg_catalog.format('Rewrite it to use lakets.%I, then install again.', v_old.name);
    END LOOP;

    IF pg_catalog.to_regtype('lakets._first_last_state') IS NOT NULL THEN
        BEGIN
            DROP TYPE lakets._first_last_state;
        EXCEPTION WHEN dependent_objects_still_exist THEN
            NULL;  -- it is still used, so it stays
        END;
    END IF;

    FOR v_other IN
        SELECT fn.oid::regprocedure AS routine
          FROM pg_catalog.json_each_text(coalesce(nullif(pg_catalog.current_setting('lakets.others', true), ''), '{}')::json) AS other (id, body)
          JOIN pg_catalog.pg_proc AS fn ON fn.oid = other.id::oid
         WHERE pg_catalog.md5(fn.prosrc) <> other.body
    LOOP
        RAISE EXCEPTION '% is not part of LakeTS 0.1.x, and has the name and arguments of a function of this version.', v_other.routine
            USING HINT = pg_catalog.format('Give it another name or schema, for example ALTER FUNCTION %s SET SCHEMA public; then install again.',
                                           v_other.routine);
    END LOOP;
END
$$;
