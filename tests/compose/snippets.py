"""Code that runs in the services: SQL, or Python that prints JSON on the last line."""

from __future__ import annotations

SLOW = (
    "CREATE TABLE public.pace AS SELECT 0::float8 AS seconds",
    """CREATE FUNCTION public.pause() RETURNS trigger LANGUAGE plpgsql AS
       'BEGIN PERFORM pg_catalog.pg_sleep(pace.seconds) FROM public.pace; RETURN NULL; END'""",
    """SELECT lakets.create_rollup('paced', $$
       SELECT lakets.time_bucket('1 day', observed) AS bucket, count(*) AS readings FROM public.weather
        GROUP BY 1 $$, '1 day', 'weather')""",
    "SELECT lakets.set_refresh_lag('paced', interval '0')",
    """CREATE TRIGGER pause BEFORE INSERT ON public._rollup_paced
       FOR EACH STATEMENT EXECUTE FUNCTION public.pause()""",
    "UPDATE public.pace SET seconds = 300",
    """DELETE FROM public.weather
        WHERE observed > (SELECT max(observed) FROM public.weather) - interval '9 hours'""",
)
REFRESHING = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND usename <> 'postgres'"
# The buckets whose rows are all still resident.
DIFFERENCE = """
WITH fresh AS (
    SELECT lakets.time_bucket('1 day', observed) AS bucket, count(*) AS readings
      FROM public.weather GROUP BY 1
), whole AS (
    SELECT max(range_end) AS begin FROM lakets._chunk_metadata
     WHERE status = 'dropped' AND chunk_name LIKE 'public.weather%'
)
SELECT count(fresh), count(kept), count(*) FILTER (WHERE fresh.readings IS DISTINCT FROM kept.readings)
  FROM fresh FULL JOIN public._rollup_paced AS kept USING (bucket), whole WHERE bucket >= whole.begin
"""
DATABRICKS = """
import json, os
os.environ["_AIRFLOW_PROCESS_CONTEXT"] = "server"
from airflow.providers.databricks.hooks.databricks import DatabricksHook
hook = DatabricksHook("databricks_default")
print(json.dumps(hook._do_api_call(("GET", "2.0/preview/scim/v2/Me"))["userName"]))
"""
# It exits at once, because remaining threads of Arrow may abort a process that ends normally.
INSERTED = """
import json, os, sys
from deltalake import DeltaTable
rows = DeltaTable(sys.argv[1]).to_pyarrow_table(columns=["_pg_change_type"])
print(json.dumps(rows["_pg_change_type"].to_pylist().count("insert")), flush=True)
os._exit(0)
"""
AIRFLOW_SECRETS = """
import json, pathlib
found = {}
for path in pathlib.Path("/opt/lakets/secrets").iterdir():
    found[path.name] = path.read_text()
found["users.json"] = json.loads(found["users.json"])["admin"]
connections = json.loads(pathlib.Path("/opt/lakets/client/connections.json").read_text())
found["databricks_default"] = connections["databricks_default"]["password"]
print(json.dumps(found))
"""
LAKEBASE_SECRETS = """
import json, pathlib
state = json.loads(pathlib.Path("/var/lib/lakebase/lakebase.json").read_text())
key = pathlib.Path("/var/lib/lakebase/ca.key").read_text().splitlines()[1]
secrets = {"owner": state["owner"]["client_secret"], "admin token": state["admin_token"], "authority": key}
print(json.dumps(secrets))
"""
SQL = """
import json, sys
import psycopg
query, role = sys.argv[1:]
place = "host=/var/lib/lakebase/pg port=5432 user=postgres dbname=databricks_postgres"
with psycopg.connect(place, autocommit=True) as conn:
    conn.execute(f"SET ROLE {role}")
    cursor = conn.execute(query)
    rows = cursor.fetchall() if cursor.description else []
print(json.dumps([[None if value is None else str(value) for value in row] for row in rows]))
"""

API = """
import json, sys, urllib.request
method, path, body = sys.argv[1:]
def ask(method, path, body, **headers):
    data = None if body == "null" else body.encode()
    headers = {"Content-Type": "application/json", **headers}
    url = "http://localhost:8080" + path
    request = urllib.request.Request(url, method=method, data=data, headers=headers)
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)
((user, password),) = json.load(open("/opt/lakets/secrets/users.json")).items()
login = json.dumps({"username": user, "password": password})
token = ask("POST", "/auth/token", login)["access_token"]
print(json.dumps(ask(method, path, body, Authorization=f"Bearer {token}")))
"""
