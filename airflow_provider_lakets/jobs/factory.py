"""DAGs for a whole project in one line."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from airflow.sdk import DAG
from airflow.timetables.interval import CronDataIntervalTimetable

from airflow_provider_lakets.jobs import form
from airflow_provider_lakets.jobs.options import (
    JOBS,
    RETRIES,
    JobOptions,
    check_id,
    check_jobs,
    check_pool,
    check_tables,
)
from airflow_provider_lakets.jobs.tasks import MAKERS

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

# When the jobs run, in UTC.
SCHEDULES = {
    "partition_manager": "0 */6 * * *",
    "tiering": "0 2 * * *",
    "retention": "0 3 * * *",
    "rollup_refresh": "*/15 * * * *",
}

_WHAT = {
    "partition_manager": "Create the chunks that writers will need; a backfill, those of its intervals.",
    "tiering": "Flag cold chunks that are proved durable in Unity Catalog. Nothing is dropped.",
    "retention": "Drop chunks past their table's retention from Lakebase; Unity Catalog keeps every row.",
    "rollup_refresh": "Refresh the RollUps, each after those it reads; a backfill refreshes its intervals.",
}

_OUTCOMES = {
    "partition_manager": "`created`, `unchanged`",
    "tiering": "`tiered`, `deferred` (not proved yet, and why)",
    "retention": "`dropped`, `deferred` (kept, and why), `trimmed`, `unchanged`",
    "rollup_refresh": "`refreshed`, `unchanged`, `skipped` (one that it reads was not refreshed)",
}

_RANGED = ("partition_manager", "rollup_refresh")

# The fields of the trigger form.
_FIELDS = {
    "partition_manager": ("tables", "start", "end", "dry_run"),
    "rollup_refresh": ("rollup", "start", "end", "dry_run"),
    "tiering": ("tables", "dry_run"),
    "retention": ("tables", "force", "dry_run"),
}

# The option that each field of the form sets, and the template that reads the field.
_READS = {
    "tables": ("tables", form.TABLES),
    "rollup": ("rollup", form.ROLLUP),
    "start": ("range_start", form.RANGE_START),
    "end": ("range_end", form.RANGE_END),
    "force": ("force", form.FORCE),
    "dry_run": ("dry_run", form.DRY_RUN),
}


# Arguments that have no effect in default_args.
_NO_DEFAULTS = ("trigger_rule", "max_active_tis_per_dagrun", "max_active_tis_per_dag", "dry_run", "force")
_CHOICES = ("tables", "rollup", "batch_size", "max_batches", "max_active_tis", "parallelism")


def lakets_dags(
    prefix: str = "lakets",
    *,
    lakebase_conn_id: str | None = None,
    jobs: Collection[str] = JOBS,
    schedules: Mapping[str, Any] | None = None,
    tables: Sequence[str] | None = None,
    rollup: str | None = None,
    pool: str = "default_pool",
    batch_size: int = 20,
    max_batches: int = 100,
    max_active_tis: int = 4,
    parallelism: int = 4,
    deferrable: bool | None = None,
    tags: Collection[str] = (),
    default_args: Mapping[str, Any] | None = None,
    start_date: datetime = datetime(2025, 1, 1, tzinfo=timezone.utc),
) -> dict[str, DAG]:
    """
    Create the DAGs of the jobs for one project, like the sample DAGs, and return them by job.

    Their ids are ``<prefix>_<job>``. A call at the top level of a DAG file is enough::

        from airflow_provider_lakets.jobs import lakets_dags

        lakets_dags("weather", lakebase_conn_id="lakebase_weather", pool="lakebase_weather")
        lakets_dags("flights", lakebase_conn_id="lakebase_flights", schedules={"tiering": "30 1 * *
        *"})

    :param prefix: The prefix of the DAG ids; use a different one for each project.
    :param lakebase_conn_id: The connection of type ``lakebase``; the default is
        ``lakebase_default``.
    :param jobs: A selection of :data:`~airflow_provider_lakets.jobs.options.JOBS`.
    :param schedules: Schedules that replace the defaults, by job: a cron expression in UTC, any
        other schedule of Airflow, or None for manual runs only.
    :param tables: The ChronoTables as ``schema.table``, unless the conf of a run names others.
        None means all.
    :param rollup: Refresh only this RollUp and those it reads, unless the conf of a run names
        another.
    :param pool: The pool of all tasks, which limits the load on Lakebase; it must exist.
    :param batch_size: How many chunks one mapped tiering task flags.
    :param max_batches: The largest number of mapped tasks in one run; if necessary, batches grow.
    :param max_active_tis: How many mapped tasks of a job run at a time.
    :param parallelism: How many RollUps to refresh at a time.
    :param deferrable: Whether tiering and retention wait in the triggerer for the change feed.
    :param tags: Tags in addition to ``lakets`` and the prefix.
    :param default_args: Arguments of all tasks: ``owner``, ``retries``, callbacks and so on.
    :param start_date: The first date on which the DAGs can run.
    """
    check_id("prefix", prefix)
    check_tables(tables)
    chosen = check_jobs(jobs)
    if schedules:
        check_jobs(schedules, "the keys of schedules")
    check_pool(pool)
    misplaced = [name for name in default_args or () if name in (*_NO_DEFAULTS, *_CHOICES)]
    if misplaced:
        where = "the jobs set it" if misplaced[0] in _NO_DEFAULTS else "it is an argument of lakets_dags"
        raise ValueError(f"default_args must not have {misplaced[0]!r}: {where}")
    options: dict[str, Any] = {
        "lakebase_conn_id": lakebase_conn_id,
        "batch_size": batch_size,
        "max_batches": max_batches,
        "max_active_tis": max_active_tis,
        "parallelism": parallelism,
        "deferrable": deferrable,
    }
    dags: dict[str, DAG] = {}
    for job in chosen:
        with DAG(
            f"{prefix}_{job}",
            schedule=_schedule(job, {**SCHEDULES, **(schedules or {})}[job]),
            start_date=start_date,
            catchup=False,
            max_active_runs=1,
            tags=sorted({"lakets", prefix, *tags}),
            doc_md=_doc(job, lakebase_conn_id or (default_args or {}).get("lakebase_conn_id"), tables),
            render_template_as_native_obj=True,
            params=form.params(*_FIELDS[job], tables=tables or (), rollup=rollup),
            default_args={**RETRIES, "pool": pool, **(default_args or {})},
        ) as dags[job]:
            MAKERS[job](JobOptions(**{**options, **_from_params(job)}), "all_success")
    return dags


def _schedule(job: str, schedule: Any) -> Any:
    """Give runs that can be backfilled a data interval; a plain cron expression gives none."""
    if job in _RANGED and isinstance(schedule, str) and schedule not in ("@once", "@continuous"):
        return CronDataIntervalTimetable(schedule, timezone="UTC")
    return schedule


def _from_params(job: str) -> dict[str, str]:
    """Return the templates for the params of a run and the data interval of a backfill run."""
    return dict(_READS[field] for field in _FIELDS[job])


def _doc(job: str, lakebase_conn_id: str | None, tables: Sequence[str] | None) -> str:
    which = ", ".join(f"`{table}`" for table in tables) if tables else "all"
    conn = lakebase_conn_id or "lakebase_default"
    return (
        f"{_WHAT[job]}\n\nConnection: `{conn}`. ChronoTables: {which}.\n\n"
        f"A manual run takes:\n\n{form.described(*_FIELDS[job])}\n\n"
        f"Outcomes: {_OUTCOMES[job]}, `contended` (another session holds a lock), `failed`."
    )
