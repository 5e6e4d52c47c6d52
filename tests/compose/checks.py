"""The checks of the services; each returns a short text about what it found."""

from __future__ import annotations

import json
import re
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import quote
from urllib.request import urlopen

from tests.compose import snippets
from tests.compose.stack import IMAGE, SERVICES, STEPS, run, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.compose.stack import Stack

JOBS = ("lakets_partition_manager", "lakets_rollup_refresh", "lakets_tiering", "lakets_retention")
RUN_SECONDS = 600
UP_SECONDS = 900
LOGS = "/opt/airflow/logs"
PRIVATE = ("/opt/lakets/secrets", "/opt/lakets/client", "/var/lib/lakebase")


class WrongError(Exception):
    """A check failed."""


def hold(holds: object, otherwise: str) -> None:
    """Raise an error unless a condition is true."""
    if not holds:
        raise WrongError(otherwise)


def runs_without_rights(stack: Stack) -> str:
    """No process of a service runs as root, and only its user can read the secrets."""
    for service in SERVICES:
        _, *rows = run(["docker", "top", stack.container(service), "-eo", "pid,uid,comm"]).splitlines()
        # Processes that only forward signals, or switch to another user, are allowed.
        roots = {row.split()[2] for row in rows if row.split()[1] == "0"} - {"su", "docker-init", "tini"}
        hold(not roots, f"{service} runs as root: {roots}")
    for service, folders in {"scheduler": PRIVATE[:2], "lakebase": PRIVATE[2:]}.items():
        found = stack.execute(service, "find", *folders, "-maxdepth", "0", "-not", "-perm", "700")
        hold(not found, f"others may look into {found}")
    for service, pattern in {
        "scheduler": " ".join(f"{folder}/*" for folder in PRIVATE[:2]),
        "lakebase": "/var/lib/lakebase/*.[jk][se]*",
    }.items():
        modes = stack.execute(service, "sh", "-c", f"stat -c '%a %u' {pattern}").split("\n")[:-1]
        hold(len(modes) > 1 and {*modes} == {"600 50000"}, f"{pattern} in {service}: {modes}")
    return f"{len(SERVICES)} services, {len(PRIVATE)} private folders"


def dags_are_on(stack: Stack) -> str:
    """Every DAG is parsed, and none is paused."""
    wait_until(lambda: stack.api("GET", "/api/v2/dags")["total_entries"] >= 5, 180, "five DAGs are parsed", 3)
    broken = stack.api("GET", "/api/v2/importErrors")["import_errors"]
    dags = stack.api("GET", "/api/v2/dags")["dags"]
    hold(not broken, f"import errors: {broken}")
    hold({*JOBS} <= {dag["dag_id"] for dag in dags}, f"DAGs: {dags}")
    hold(not any(dag["is_paused"] for dag in dags), "a DAG is paused")
    return ", ".join(dag["dag_id"] for dag in dags)


def connections_work(stack: Stack) -> str:
    """Both connections log in: the provider's to a suspended endpoint, and Databricks' own."""
    asleep = ("lakets", "local", "fault", "suspended", "--times", "1", "--folder", "/var/lib/lakebase")
    stack.execute("lakebase", *asleep)
    found = stack.execute("scheduler", "lakets", "doctor")
    hold("sslmode verify-full" in found and "all that the four jobs need" in found, found)
    user = stack.python("scheduler", snippets.DATABRICKS)
    hold(user in found, "databricks_default is somebody else than lakebase_default")
    row = stack.sql(
        "SELECT rolsuper OR rolcreaterole FROM pg_roles WHERE rolname = current_user", f'"{user}"'
    )
    hold(row == [["False"]], "the jobs' role may do more than the jobs need")
    return "lakets doctor finds nothing wrong; DatabricksHook signs in as the same principal"


def jobs_succeed(stack: Stack) -> str:
    """A run of each of the four DAGs succeeds."""
    seconds = []
    for dag_id in JOBS:
        started = time.monotonic()
        path = trigger(stack, dag_id)
        state = wait_for_end(stack, path)
        tasks = stack.api("GET", f"{path}/taskInstances")["task_instances"]
        hold(state == "success", f"{dag_id} is {state}: {[(t['task_id'], t['state']) for t in tasks]}")
        seconds.append(f"{dag_id} {time.monotonic() - started:.0f} s")
    return ", ".join(seconds)


def cold_data_is_in_delta(stack: Stack) -> str:
    """Chunks are tiered and dropped, and Delta has every row, those of dropped chunks too."""
    rows = stack.sql("SELECT status, count(*) FROM lakets._chunk_metadata GROUP BY 1")
    counts = {status: int(count) for status, count in rows}
    hold(counts.get("tiered") and counts.get("dropped"), f"chunks: {counts}")
    said = [f"chunks {counts}"]
    for number, table in re.findall(r"Loaded ([\d,]+) rows into (\w+)", stack.log("sample-data")):
        loaded = int(number.replace(",", ""))
        path = f"/var/lib/lakebase/delta/databricks_postgres/lb__shadow_{table}_history"
        inserted = stack.python("lakebase", snippets.INSERTED, path)
        resident = int(stack.sql(f"SELECT count(*) FROM public.{table}")[0][0])
        said.append(f"{table}: {loaded} rows loaded, {inserted} in Delta, {resident} left in Lakebase")
        hold(resident < loaded == inserted, said[-1])
    hold(len(said) == 3, f"the log of sample-data does not tell of two tables: {said}")
    return "; ".join(said)


def dbos_is_driven(stack: Stack) -> str:
    """With the profile, the DBOS program charges an announced order once."""
    stack.compose("--profile", "dbos", "up", "--detach", "dbos-app")
    try:
        stack.wait_healthy(["dbos-app"], 180)
        assets = stack.api("GET", "/api/v2/assets?name_pattern=dbos_orders")["assets"]
        (asset,) = [one["id"] for one in assets if one["name"] == "dbos_orders"]
        stack.api("POST", "/api/v2/assets/events", {"asset_id": asset, "extra": {"order": 7}})
        runs = "/api/v2/dags/dbos_orders/dagRuns"
        wait_until(lambda: stack.api("GET", runs)["total_entries"], RUN_SECONDS, "dbos_orders runs")
        (started,) = stack.api("GET", runs)["dag_runs"]
        state = wait_for_end(stack, f"{runs}/{quote(started['dag_run_id'], safe='')}")
        hold(state == "success", f"the run is {state}")
        charged = stack.sql("SELECT number, count(*) FROM shop.charge GROUP BY 1")
        hold(charged == [["7", "1"]], f"charged: {charged}")
    finally:
        stack.compose("--profile", "dbos", "rm", "--stop", "--force", "dbos-app")
    return "order 7 was announced, and charged once"


def survives_its_lakebase(stack: Stack) -> str:
    """If the Lakebase is killed during a run, the task fails, and its retry succeeds."""
    for statement in snippets.SLOW:
        stack.sql(statement, "tables_owner")
    path = trigger(stack, "lakets_rollup_refresh")
    wait_until(
        lambda: stack.sql(snippets.REFRESHING) != [["0"]], RUN_SECONDS, "the refresh is under way", 0.2
    )
    run(["docker", "kill", stack.container("lakebase")])
    tried_again = wait_until(
        lambda: task(stack, path)["state"] == "up_for_retry", RUN_SECONDS, "the task is to be tried again"
    )
    stack.compose("up", "--detach", "--no-deps", "lakebase")
    stack.wait_healthy(["lakebase"], 180)
    stack.sql("UPDATE public.pace SET seconds = 0", "tables_owner")
    state = wait_for_end(stack, path)
    refresh = task(stack, path)
    hold(state == "success", f"the run is {state}")
    hold(refresh["try_number"] > 1, "the task was not tried again")
    ((resident, kept, differing),) = stack.sql(snippets.DIFFERENCE)
    hold(differing == "0" and kept != "0", f"{differing} of {kept} buckets differ from {resident} afresh")
    return f"given up after {tried_again:.0f} s, ended right at try {refresh['try_number']}"


def is_reached_from_here(stack: Stack) -> str:
    """The port is published where the documentation says."""
    with urlopen(f"http://127.0.0.1:{stack.port}/api/v2/version", timeout=30) as answer:
        return f"Airflow {json.load(answer)['version']}"


def secrets_of(stack: Stack) -> dict[str, str]:
    """Return every secret that the services created, by its kind."""
    found = dict(stack.python("scheduler", snippets.AIRFLOW_SECRETS))
    found.update(stack.python("lakebase", snippets.LAKEBASE_SECRETS))
    hold(len(found) >= 9 and all(len(value) > 10 for value in found.values()), f"secrets: {sorted(found)}")
    return found


def tells_no_secret(stack: Stack) -> str:
    """No secret is in an image, in a container's settings, or in a log."""
    secrets = secrets_of(stack)
    places = {
        "image's history": run(["docker", "history", "--no-trunc", IMAGE]),
        "image's settings": run(["docker", "image", "inspect", IMAGE]),
        "compose file": stack.compose("config"),
        "logs of tasks": stack.execute("scheduler", "find", LOGS, "-type", "f", "-exec", "cat", "{}", "+"),
    }
    for service in (*SERVICES, *STEPS):
        places[f"settings of {service}"] = json.dumps(stack.state(service))
        places[f"log of {service}"] = stack.log(service)
    for place, text in places.items():
        told = [name for name, secret in secrets.items() if secret in text]
        told += ["a token"] * ("log" in place and "eyJ" in text)
        hold(not told, f"the {place} tells {told}")
    suspect = re.findall(
        r'"[A-Z_]*(?:PASSWORD|SECRET|TOKEN|FERNET)[A-Z_]*=[^"]+"', places["image's settings"]
    )
    hold(not suspect, f"the image sets {suspect}")
    listed = run(["docker", "run", "--rm", "--entrypoint", "find", IMAGE, *PRIVATE, "-type", "f"])
    hold(not listed, f"the image has files where secrets are: {listed}")
    return f"{len(secrets)} secrets in none of {len(places)} places"


def stops_cleanly(stack: Stack) -> str:
    """On SIGTERM every service ends by itself, in less than its grace period."""
    started = time.monotonic()
    stack.compose("stop")
    seconds = time.monotonic() - started
    codes = {service: stack.state(service)["State"]["ExitCode"] for service in SERVICES}
    hold(137 not in codes.values(), f"killed after the grace period: {codes}")
    hold(not {*codes.values()} - {0, 143}, f"exit codes: {codes}")
    return f"in {seconds:.0f} s, exit codes {codes}"


def comes_back(stack: Stack) -> str:
    """After down and up, nothing is lost and nothing is created twice."""
    before, secrets = _memory(stack), secrets_of(stack)
    stack.compose("down")
    stack.compose("up", "--detach")
    stack.wait_healthy(SERVICES, UP_SECONDS)
    after = _memory(stack)
    hold(after["rows"] == before["rows"], f"rows: {before['rows']}, then {after['rows']}")
    hold(before["runs"] <= after["runs"], f"runs that are gone: {before['runs'] - after['runs']}")
    hold(secrets_of(stack) == secrets, "secrets were made anew")
    return f"{len(before['runs'])} runs and {before['rows']} rows are still there"


def _memory(stack: Stack) -> dict[str, Any]:
    """Return what must last: RollUp rows, but not resident rows, which may be dropped meanwhile."""
    runs = stack.api("GET", "/api/v2/dags/~/dagRuns?limit=100")["dag_runs"]
    ((rows,),) = stack.sql("SELECT sum(readings) FROM public._rollup_paced")
    return {"runs": {one["dag_run_id"] + one["dag_id"] for one in runs}, "rows": rows}


def trigger(stack: Stack, dag_id: str) -> str:
    """Trigger a DAG, and return the path of the run."""
    path = f"/api/v2/dags/{dag_id}/dagRuns"
    run_id = stack.api("POST", path, {"logical_date": None})["dag_run_id"]
    return f"{path}/{quote(run_id, safe='')}"


def wait_for_end(stack: Stack, path: str) -> str:
    """Return how a run ended."""
    states: Iterator[str] = iter(lambda: str(stack.api("GET", path)["state"]), "")
    wait_until(lambda: next(states) in ("success", "failed"), RUN_SECONDS, f"{path} has ended", 2)
    return next(states)


def task(stack: Stack, path: str) -> dict[str, Any]:
    """Return the one task of a run."""
    (found,) = stack.api("GET", f"{path}/taskInstances")["task_instances"]
    return dict(found)
