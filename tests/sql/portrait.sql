-- What the catalog says of a table, aspect by aspect; %(rel)s is its oid.

-- aspect: table
SELECT pg_get_userbyid(relowner), relacl::text[], obj_description(oid, 'pg_class'), relrowsecurity, relforcerowsecurity
  FROM pg_class WHERE oid = %(rel)s;

-- aspect: columns
SELECT row_number() OVER (ORDER BY attnum), attname, format_type(atttypid, atttypmod), attnotnull, attidentity,
       attgenerated, attstorage, attcompression, coalesce(attstattarget, -1), attcollation::regcollation::text,
       attoptions, attacl::text[], pg_get_expr(adbin, adrelid), col_description(attrelid, attnum)
  FROM pg_attribute LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
 WHERE attrelid = %(rel)s AND attnum > 0 AND NOT attisdropped ORDER BY attnum;

-- aspect: constraints
SELECT conname, contype, condeferrable, condeferred, convalidated, pg_get_constraintdef(oid), obj_description(oid, 'pg_constraint')
  FROM pg_constraint WHERE conrelid = %(rel)s AND conparentid = 0 ORDER BY conname;

-- aspect: indexes
SELECT replace(pg_get_indexdef(indexrelid), ' ON ONLY ', ' ON '), obj_description(indexrelid, 'pg_class'), reloptions
  FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid WHERE indrelid = %(rel)s ORDER BY 1;

-- aspect: triggers
SELECT pg_get_triggerdef(oid), tgenabled, obj_description(oid, 'pg_trigger')
  FROM pg_trigger WHERE tgrelid = %(rel)s AND NOT tgisinternal AND tgname NOT LIKE 'lakets%%' ORDER BY tgname;

-- aspect: policies
SELECT polname, polpermissive, polcmd, ARRAY(SELECT pg_get_userbyid(role) FROM unnest(polroles) AS role ORDER BY 1)::text[],
       pg_get_expr(polqual, polrelid), pg_get_expr(polwithcheck, polrelid), obj_description(oid, 'pg_policy')
  FROM pg_policy WHERE polrelid = %(rel)s ORDER BY polname;

-- aspect: statistics
SELECT pg_get_statisticsobjdef(oid), pg_get_userbyid(stxowner), obj_description(oid, 'pg_statistic_ext'), stxstattarget::integer
  FROM pg_statistic_ext WHERE stxrelid = %(rel)s ORDER BY 1;

-- aspect: sequences
SELECT seq.relname, att.attname, dep.deptype, pg_get_userbyid(seq.relowner), seqstart, seqincrement, pg_sequence_last_value(seq.oid),
       seqtypid::regtype::text, seqmin, seqmax, seqcache, seqcycle,
       seq.relacl::text[], obj_description(seq.oid, 'pg_class')
  FROM pg_depend AS dep
  JOIN pg_class AS seq ON seq.oid = dep.objid AND seq.relkind = 'S'
  JOIN pg_sequence ON seqrelid = seq.oid
  JOIN pg_attribute AS att ON att.attrelid = refobjid AND att.attnum = refobjsubid
 WHERE dep.refobjid = %(rel)s ORDER BY 1;
