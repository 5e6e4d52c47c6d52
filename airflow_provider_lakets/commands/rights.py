"""Find rights that the role of the jobs needs and lacks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airflow_provider_lakets.hooks.lakets import LakeTSHook


@dataclass(frozen=True)
class MissingRight:
    """A right that the role lacks, and the statement that grants it."""

    lacks: str
    grant: str


# One row for each missing right. Only a member of the owner may attach or drop a partition.
MISSING = """
WITH wanted_schema AS (
    SELECT nspname FROM pg_catalog.pg_namespace WHERE nspname IN ('lakets', 'lakets_cdf', 'public')
    UNION SELECT schema_name FROM lakets._chronotable_registry
), chronotable AS (
    SELECT cls.oid::regclass AS name, cls.relowner::regrole AS owner
      FROM lakets._chronotable_registry AS tab
      JOIN pg_catalog.pg_namespace AS nsp ON nsp.nspname = tab.schema_name
      JOIN pg_catalog.pg_class AS cls ON cls.relnamespace = nsp.oid AND cls.relname = tab.table_name
)
SELECT pg_catalog.format('%s on schema %s', priv, nspname) AS lacks,
       pg_catalog.format('GRANT %s ON SCHEMA %I TO %I', priv, nspname, current_user) AS grant
  FROM wanted_schema, pg_catalog.unnest(ARRAY['USAGE', 'CREATE']) AS priv
 WHERE NOT pg_catalog.has_schema_privilege(nspname, priv)
UNION ALL
SELECT pg_catalog.format('%s on table %s', priv, cls.oid::regclass),
       pg_catalog.format('GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA lakets TO %I',
                         current_user)
  FROM pg_catalog.pg_class AS cls, pg_catalog.unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) AS priv
 WHERE cls.relnamespace = 'lakets'::regnamespace AND cls.relkind IN ('r', 'p')
   AND NOT pg_catalog.has_table_privilege(cls.oid, priv)
UNION ALL
SELECT pg_catalog.format('USAGE on sequence %s', cls.oid::regclass),
       pg_catalog.format('GRANT USAGE ON ALL SEQUENCES IN SCHEMA lakets TO %I', current_user)
  FROM pg_catalog.pg_class AS cls
 WHERE cls.relnamespace = 'lakets'::regnamespace
   AND CASE WHEN cls.relkind = 'S' THEN NOT pg_catalog.has_sequence_privilege(cls.oid, 'USAGE') END
UNION ALL
SELECT pg_catalog.format('EXECUTE on function %s', fun.oid::regprocedure),
       pg_catalog.format('GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA lakets TO %I', current_user)
  FROM pg_catalog.pg_proc AS fun
 WHERE fun.pronamespace = 'lakets'::regnamespace AND NOT pg_catalog.has_function_privilege(fun.oid, 'EXECUTE')
   AND fun.prorettype <> 'trigger'::regtype  -- nobody needs that right to fire a trigger
UNION ALL
SELECT pg_catalog.format('membership in %s, the owner of %s', owner, name),
       pg_catalog.format('GRANT %s TO %I', owner, current_user)
  FROM chronotable WHERE NOT pg_catalog.pg_has_role(owner::oid, 'USAGE')
"""

# Missing rights for policies that trim. 0.1.x has neither such policies nor this table.
MISSING_TO_TRIM = """
SELECT pg_catalog.format('%s on table %s', priv, cls.oid::regclass) AS lacks,
       pg_catalog.format('GRANT SELECT, INSERT ON %s TO %I', cls.oid::regclass, current_user) AS grant
  FROM pg_catalog.pg_class AS cls
  JOIN pg_catalog.pg_namespace AS nsp ON nsp.oid = cls.relnamespace,
       pg_catalog.unnest(ARRAY['SELECT', 'INSERT']) AS priv
 WHERE nsp.nspname = 'lakets_cdf' AND cls.relname = '_trim_log'
   AND NOT pg_catalog.has_table_privilege(cls.oid, priv)
   AND EXISTS (SELECT FROM lakets._policy_registry AS pol WHERE (pol.config ->> 'trim_shadow')::boolean)
"""


def missing_rights(hook: LakeTSHook) -> list[MissingRight]:
    """
    Return the rights that the role of the session lacks, in the order to grant them.

    :param hook: A hook whose connection logs in and whose database has LakeTS.
    """
    rows = hook.query(MISSING, doing="Looking up the rights of the role")
    if "SELECT on table lakets._policy_registry" not in {row["lacks"] for row in rows}:
        rows += hook.query(MISSING_TO_TRIM, doing="Looking up the rights of the role")
    return [MissingRight(row["lacks"], row["grant"]) for row in rows]
