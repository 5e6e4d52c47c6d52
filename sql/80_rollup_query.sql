-- A RollUp's query: parsed once into a statement that means the same in every session, and checked
-- for everything that could change its rows while the source does not change.

-- Refuse text that is not one query. This plans the query, which may call functions, so it must run
-- as the query's author.
CREATE OR REPLACE FUNCTION lakets._check_one_query(
    p_name        text,
    p_query       text,
    p_search_path text
) RETURNS void
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_query  text := regexp_replace(p_query, '[\s;]+$', '');
    v_cursor refcursor;
BEGIN
    IF coalesce(p_query, '') ~ '^[\s;]*$' THEN
        RAISE invalid_cursor_definition;
    END IF;
    PERFORM set_config('search_path', p_search_path, true);  -- from here on names are resolved as for the caller
    OPEN v_cursor FOR EXECUTE v_query;  -- Postgres opens a cursor for one query only, and reads nothing yet
    CLOSE v_cursor;
EXCEPTION WHEN invalid_cursor_definition THEN
    RAISE EXCEPTION 'The query of RollUp % is not one SELECT.', p_name
        USING HINT = 'Pass a single SELECT statement that changes nothing.';
END;
$$;

-- Refuse a stored query that somebody changed into several statements. A query as stored by LakeTS
-- has no semicolon, comment or dollar quote outside of literals and names.
CREATE OR REPLACE FUNCTION lakets._check_stored_query(
    p_name  text,
    p_query text
) RETURNS void
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF regexp_replace(p_query, '(?<![\w$])[eE]''(?:[^''\\]|\\.|'''')*''|''(?:[^'']|'''')*''|"(?:[^"]|"")*"', '', 'g') ~ ';|--|/\*|\$(?!\d)|''|"' THEN
        RAISE EXCEPTION 'The stored query of RollUp % is not one SELECT: lakets._rollup_registry was changed by hand.', p_name
            USING HINT = 'Drop the RollUp and create it again.';
    END IF;
END;
$$;

-- A view's query as text that means the same in every session.
CREATE OR REPLACE FUNCTION lakets._view_query(
    p_view regclass
) RETURNS text
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
    SET datestyle = 'ISO, YMD'
    SET intervalstyle = 'postgres'
    SET timezone = 'UTC'
    SET extra_float_digits = 1
    SET lc_monetary = 'C'
    SET quote_all_identifiers = off
AS $$
BEGIN
    RETURN regexp_replace(pg_get_viewdef(p_view, false), ';\s*$', '');
END;
$$;

-- Refuse a query whose qualified text means something else. p_tree is the query as it was written,
-- p_again its qualified text, as the catalog has them. CASE x WHEN, NULLIF, IS DISTINCT FROM, USING
-- and NATURAL JOIN compare by the = that the search_path finds first, and cannot name another one:
-- those of citext and other extensions are not found in pg_catalog.
CREATE OR REPLACE FUNCTION lakets._check_operators(
    p_name  text,
    p_tree  text,
    p_again text
) RETURNS void
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_lost text;
BEGIN
    SELECT string_agg(DISTINCT lost.op::oid::regoperator::text, ', ') INTO v_lost
      FROM (SELECT hit[1] FROM regexp_matches(p_tree, ':opno (\d+)', 'g') AS hit
            EXCEPT ALL
            SELECT hit[1] FROM regexp_matches(p_again, ':opno (\d+)', 'g') AS hit) AS lost (op)
     WHERE EXISTS (SELECT FROM pg_operator AS opr WHERE opr.oid = lost.op::oid AND opr.oprnamespace <> 'pg_catalog'::regnamespace);
    IF v_lost IS NULL THEN  -- what is found in pg_catalog is found there again
        RETURN;
    END IF;
    RAISE EXCEPTION 'The query of RollUp % cannot be stored with the same meaning: it compares by % where SQL cannot name the operator.',
        p_name, v_lost
        USING HINT = 'Write CASE WHEN a = b instead of CASE a WHEN b, JOIN ... ON a = b instead of USING or NATURAL, and = instead of'
                     ' NULLIF, IS DISTINCT FROM and IN with several columns. Or cast to a type of Postgres, such as text.';
END;
$$;

-- Return whether a query, written for p_search_path, has a text that is no time where a time is
-- expected; null if something else is wrong with it.
CREATE OR REPLACE FUNCTION lakets._lacks_a_time(
    p_query       text,
    p_search_path text
) RETURNS boolean
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_view   text := format('lakets.%I', '_other_times_' || pg_current_xact_id());
    v_create text := format('CREATE VIEW %s AS %s', v_view, regexp_replace(p_query, '[\s;]+$', ''));
    v_drop   text := format('DROP VIEW %s', v_view);
BEGIN
    PERFORM set_config('search_path', p_search_path, true);
    EXECUTE v_create;
    EXECUTE v_drop;
    RETURN false;
EXCEPTION WHEN invalid_datetime_format THEN
    RETURN true;
WHEN data_exception OR syntax_error_or_access_rule_violation THEN
    RETURN NULL;  -- such as a text that is no value of an enum
END;
$$;

-- Refuse a query in which a text stands for the current time, such as 'now'::text::date. Where a
-- time is expected, Postgres replaces 'yesterday' by a date when it parses the query. Another word
-- in its place is then an error, but not where it is text. p_written: the query as it was written
-- for p_search_path; p_query: its qualified text.
CREATE OR REPLACE FUNCTION lakets._check_current_time(
    p_name        text,
    p_written     text,
    p_search_path text,
    p_query       text
) RETURNS void
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    -- Literals, and what may contain a quote that begins none.
    v_tokens   constant text := '\m[Ee]''(?:[^''\\]|\\.|'''')*''|''(?:[^'']|'''')*''|\$\w*\$[^$]*\$\w*\$|"(?:[^"]|"")*"|--[^\n]*|/\*(?:[^*]|\*(?!/))*\*/';
    -- Only times, alone, in a range or in an array: a literal with other words is text.
    v_words    constant text := '(?:now|today|tomorrow|yesterday)';
    v_other    constant text := '(?:[^''\w$]|\d|[TZ]|\m(?:[A-Z]{2,4}|infinity|epoch|allballs|[A-Z]+(?:/[A-Z_]+)+)\M)*';
    v_times    constant text := format('%1$s(?:%2$s%1$s)+', v_other, v_words);
    v_literals text[];
    v_texts    text[];     -- the same with another word
    v_places   integer[];  -- among the tokens
    v_all      text := p_written;
    v_literal  text := (SELECT quote_literal(hit[1]) FROM regexp_matches(
        p_query, format('''(%s)''(?:::[\w ".\[\]]+(?:\(\d+\))?[)\]]+)+::(?:date|time|ts)', v_times), 'i') AS hit);
BEGIN
    SELECT array_agg(lit.token), array_agg(regexp_replace(lit.token, v_words, 'lakets', 'gi')), array_agg(lit.place)
      INTO v_literals, v_texts, v_places
      FROM (SELECT found.hit[1], found.place FROM regexp_matches(p_written, v_tokens, 'g') WITH ORDINALITY AS found (hit, place)) AS lit (token, place)
     WHERE lit.token ~* format('^(?:E?''%1$s''|\$\w*\$%1$s\$\w*\$)$', v_times);
    FOR v_number IN 1 .. coalesce(cardinality(v_texts), 0) LOOP
        v_all := replace(v_all, v_literals[v_number], v_texts[v_number]);
    END LOOP;
    IF v_texts IS NOT NULL AND lakets._lacks_a_time(v_all, p_search_path) IS DISTINCT FROM false THEN
        FOR v_number IN 1 .. cardinality(v_texts) LOOP
            IF lakets._lacks_a_time(
                regexp_replace(p_written, v_tokens, replace(v_texts[v_number], '\', '\\'), 1, v_places[v_number]), p_search_path)
            THEN
                v_literal := v_literals[v_number];
                EXIT;
            END IF;
        END LOOP;
    END IF;
    IF v_literal IS NOT NULL THEN
        RAISE EXCEPTION 'The query of RollUp % cannot be kept up to date: it uses the current time (%).', p_name, v_literal
            USING HINT = 'Leave it out of the query and use it when you read the RollUp, or write the time that you mean.';
    END IF;
END;
$$;

-- The settings under which a query runs, in a refresh and in a real-time view, as the clauses of a
-- function. Not timezone_abbreviations, which costs a third of a millisecond: see _zone_settings.
CREATE OR REPLACE FUNCTION lakets._query_settings() RETURNS text
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT 'SET search_path = pg_catalog, pg_temp SET timezone = ''UTC'' SET datestyle = ''ISO, MDY'' SET intervalstyle = ''postgres'''
           ' SET extra_float_digits = 1 SET bytea_output = ''hex'' SET lc_time = ''C'' SET lc_numeric = ''C'' SET lc_monetary = ''C'''
           ' SET xmlbinary = ''base64'' SET xmloption = ''content'' SET array_nulls = on SET quote_all_identifiers = off';
$$;

-- The same for names of zones in texts that a query reads as times, such as IST: empty unless it
-- does that, or casts to a type of a user, such as a domain. p_query: its qualified text, in which
-- a literal before a cast is read already.
CREATE OR REPLACE FUNCTION lakets._zone_settings(
    p_query text
) RETURNS text
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE WHEN p_query ~ '(?<!'')::(time(stamp)?(\(\d\))? with time zone|tstz|[\w$"]+\.)|to_timestamp\(|to_record|populate_record|_TABLE\(|XMLTABLE'
                THEN ' SET timezone_abbreviations = ''Default''' ELSE '' END;
$$;

-- Parse a query under a search_path. Return its text with every name qualified, its tree, the
-- relations in it (each as often as it is named), its columns with their types, and whether
-- settings of a session could change its result. The caller has checked that it is one query
-- (_check_one_query). The query is not planned.
CREATE OR REPLACE FUNCTION lakets._read_query(
    p_name        text,
    p_query       text,
    p_search_path text,
    OUT query      text,
    OUT tree       jsonb,
    OUT relations  oid[],
    OUT returns    jsonb,
    OUT is_settled boolean
)
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_view   text := format('lakets.%I', '_definition_' || pg_current_xact_id());
    v_create text := format('CREATE VIEW %s AS %s', v_view, regexp_replace(p_query, '[\s;]+$', ''));
    v_tree   text;
    v_again  text;
BEGIN
    PERFORM set_config('search_path', p_search_path, true);
    EXECUTE v_create;  -- names are resolved as for the caller
    PERFORM pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
    query := lakets._view_query(v_view::regclass);
    SELECT rule.ev_action::text INTO v_tree FROM pg_rewrite AS rule WHERE rule.ev_class = v_view::regclass;
    SELECT jsonb_agg(jsonb_build_object('column', att.attname, 'type', format_type(att.atttypid, att.atttypmod)) ORDER BY att.attnum)
      INTO returns FROM pg_attribute AS att WHERE att.attrelid = v_view::regclass AND att.attnum > 0;
    EXECUTE format('CREATE OR REPLACE VIEW %s AS %s', v_view, query);
    SELECT rule.ev_action::text INTO v_again FROM pg_rewrite AS rule WHERE rule.ev_class = v_view::regclass;
    EXECUTE format('DROP VIEW %s', v_view);
    PERFORM lakets._check_operators(p_name, v_tree, v_again);
    PERFORM lakets._check_current_time(p_name, p_query, p_search_path, query);

    relations := ARRAY(SELECT hit[1]::oid FROM regexp_matches(v_tree, ':rtekind 0 :relid (\d+)', 'g') AS hit);
    is_settled := lakets._check_functions(p_name, v_tree);
    tree := lakets._query_tree(v_tree);
EXCEPTION WHEN undefined_function THEN
    IF v_tree IS NULL THEN  -- the query does not mean anything under p_search_path
        RAISE;
    END IF;
    PERFORM lakets._check_operators(p_name, v_tree, '');
    RAISE;
WHEN feature_not_supported THEN  -- SELECT INTO, or a statement in WITH that changes something
    RAISE EXCEPTION 'The query of RollUp % is not one SELECT that changes nothing: %.', p_name, SQLERRM
        USING HINT = 'Pass a single SELECT statement without INTO and without INSERT, UPDATE or DELETE in WITH.';
END;
$$;

-- Refuse queries that can return other rows or values while the source does not change. Returns
-- false when settings of a session (its time zone, how it writes dates) could change the result; a
-- refresh fixes these.
CREATE OR REPLACE FUNCTION lakets._check_functions(
    p_name text,
    p_tree text  -- as the catalog has it
) RETURNS boolean
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_hint text := 'Leave it out of the query and use it when you read the RollUp.';
    v_what text;
    v_clock  constant oid := 'timezone(text, timetz)'::regprocedure;
    v_search constant text := '^(.*to_ts(query|vector)|ts_(headline|debug|match_t[tq]))$';  -- STABLE without one
    v_used oid[] := ARRAY(SELECT DISTINCT hit[1]::oid FROM regexp_matches(p_tree, ':(?:funcid|opfuncid|aggfnoid|winfnoid) (\d+)', 'g') AS hit);
BEGIN
    -- The functions of a user's own aggregates. Those of Postgres and LakeTS are known to read no
    -- tables.
    v_used := v_used || ARRAY(
        SELECT unnest(ARRAY[agg.aggtransfn, agg.aggfinalfn])::oid
          FROM pg_aggregate AS agg
          JOIN pg_proc AS fn ON fn.oid = agg.aggfnoid
         WHERE agg.aggfnoid = ANY (v_used) AND fn.pronamespace NOT IN ('pg_catalog'::regnamespace, 'lakets'::regnamespace));
    IF p_tree LIKE '%:hasForUpdate true%' THEN
        v_what := 'it locks rows (FOR UPDATE or FOR SHARE)';
        v_hint := 'Leave the locking clause out.';
    ELSIF p_tree LIKE '%:tablesample {%' THEN
        v_what := 'it reads a sample (TABLESAMPLE)';
        v_hint := 'Read the whole table, or keep rows by a condition on their values.';
    ELSIF p_tree ~ ':varattno -[1-5] ' THEN
        v_what := 'it reads a system column (ctid, xmin, cmin, xmax or cmax), which changes when Postgres stores a row elsewhere';
        v_hint := 'Leave it out, or keep what it stands for in a column of the table.';
    ELSIF p_tree LIKE '%{SQLVALUEFUNCTION%' THEN
        v_what := 'it uses the current time or user';
    ELSE
        SELECT CASE WHEN fn.provolatile = 'v' THEN format('function %s is volatile: its result changes from call to call', fn.oid::regprocedure)
                    WHEN fn.pronamespace <> 'pg_catalog'::regnamespace THEN format('function %s is STABLE: it may read tables', fn.oid::regprocedure)
                    WHEN fn.proname ~ v_search THEN format('the result of function %s depends on default_text_search_config', fn.oid::regprocedure)
                    WHEN fn.oid = v_clock THEN 'AT TIME ZONE gives a time of day the offset that the zone has today'
                    ELSE format('the result of function %s depends on when, where and by whom it is called', fn.oid::regprocedure) END,
               CASE WHEN fn.pronamespace <> 'pg_catalog'::regnamespace
                    THEN 'If its result depends on its arguments only, declare it IMMUTABLE; else leave it out of the query.'
                    WHEN fn.oid = v_clock THEN 'Convert first and take the time of day then, as in (at AT TIME ZONE ''Europe/Paris'')::time.'
                    WHEN fn.proname ~ v_search THEN 'Pass the configuration as the first argument, as in to_tsvector(''english'', text).' ELSE v_hint END
          INTO v_what, v_hint
          FROM pg_proc AS fn
         WHERE fn.oid = ANY (v_used) AND fn.prokind <> 'a' AND (
               fn.provolatile = 'v' OR fn.provolatile = 's' AND (
               fn.pronamespace <> 'pg_catalog'::regnamespace
               OR fn.proname = 'age' AND fn.pronargs = 1
               OR fn.oid = v_clock
               OR fn.proname ~ v_search
               OR fn.proname ~ '^(now|(transaction|statement)_timestamp|current_.*|(session|system)_user|getpgusername|get_current_ts_config|getdatabaseencoding|version|pg_.*|has_.*_privilege|inet_(client|server)_.*|txid_.*|(obj|col|shobj)_description|to_reg.*|row_security_active|(query|table|schema|database|cursor)_to_.*xml.*|.*_is_visible)$'))
         ORDER BY fn.oid LIMIT 1;
    END IF;
    IF v_what IS NOT NULL THEN
        RAISE EXCEPTION 'The query of RollUp % cannot be kept up to date: %.', p_name, v_what
            USING HINT = v_hint;
    END IF;
    RETURN p_tree !~ '\{(COERCEVIAIO|TABLEFUNC|JSONEXPR|XML)'
       AND NOT EXISTS (SELECT FROM pg_proc AS fn WHERE fn.oid = ANY (v_used) AND fn.provolatile = 's');
END;
$$;

-- Refuse a query that reads a source in a way that cannot be tracked, and warn of tables whose
-- changes are not tracked.
CREATE OR REPLACE FUNCTION lakets._check_relations(
    p_name      text,
    p_relations oid[],
    p_sources   oid[]
) RETURNS void
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_others oid[] := ARRAY(SELECT DISTINCT named FROM unnest(p_relations) AS named WHERE named <> ALL (p_sources));
    v_around record;
BEGIN
    WITH RECURSIVE reached (named, relation) AS (
        SELECT other, other FROM unnest(v_others) AS other
        UNION
        SELECT reached.named, next.relation
          FROM reached
         CROSS JOIN LATERAL (
               SELECT dep.refobjid  -- what a view reads
                 FROM pg_rewrite AS rule
                 JOIN pg_depend AS dep ON dep.classid = 'pg_rewrite'::regclass AND dep.objid = rule.oid AND dep.refclassid = 'pg_class'::regclass
                WHERE rule.ev_class = reached.relation
                UNION ALL
               SELECT inh.inhparent FROM pg_inherits AS inh WHERE inh.inhrelid = reached.relation) AS next (relation)
    )
    SELECT reached.named::regclass AS relation, reached.relation::regclass AS source INTO v_around
      FROM reached WHERE reached.relation = ANY (p_sources) LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'The query of RollUp % reads rows of % by way of %.', p_name, v_around.source, v_around.relation
            USING HINT = format('Name %s itself in the query.', v_around.source);
    END IF;
    IF v_others <> '{}' THEN
        RAISE WARNING 'Changes of % are not tracked: RollUp % takes them in only where its source changes too.',
            (SELECT string_agg(other::regclass::text, ', ' ORDER BY other::regclass::text) FROM unnest(v_others) AS other), p_name
            USING HINT = format('After such a change call lakets.invalidate_rollup_range(%L, <from>, <to>) and refresh it.', p_name);
    END IF;
END;
$$;
