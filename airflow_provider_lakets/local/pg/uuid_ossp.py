"""
A replacement for the extension uuid-ossp, which Lakebase has and the embedded Postgres lacks.

DBOS 2.x creates the extension when it starts. It cannot be added to the Postgres installation,
which is shared. So the catalog lists it as installed, and one function does what DBOS needs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import psycopg

_IS_NEEDED = """
SELECT NOT EXISTS (SELECT FROM pg_available_extensions WHERE name = 'uuid-ossp')
   AND NOT EXISTS (SELECT FROM pg_extension WHERE extname = 'uuid-ossp')
"""
_STAND_IN = """
CREATE FUNCTION public.uuid_generate_v4() RETURNS uuid LANGUAGE sql VOLATILE PARALLEL SAFE
    RETURN pg_catalog.gen_random_uuid();
INSERT INTO pg_catalog.pg_extension (oid, extname, extowner, extnamespace, extrelocatable, extversion)
SELECT pg_catalog.pg_nextoid('pg_catalog.pg_extension', 'oid', 'pg_catalog.pg_extension_oid_index'),
       'uuid-ossp', role.oid, 'public'::regnamespace, true, '1.1'
  FROM pg_catalog.pg_roles AS role WHERE role.rolname = current_user
"""


def ensure_uuid_ossp(conn: psycopg.Connection) -> None:
    """Let ``CREATE EXTENSION IF NOT EXISTS "uuid-ossp"`` succeed in a database, as a superuser."""
    row = conn.execute(_IS_NEEDED).fetchone()
    if row and row[0]:
        with conn.transaction():
            conn.execute(_STAND_IN)
