"""`lakets run`, `explain` and `metrics`, as a user or a cron job types them."""

from __future__ import annotations

import io
import json
import re
from typing import TYPE_CHECKING

import psycopg
import pytest
from rich.console import Console

from airflow_provider_lakets.commands import progress, run

if TYPE_CHECKING:
    from collections.abc import Callable

    from typer.testing import Result

    from tests.lab import Lab

SAMPLE = re.compile(r'[a-z_]+(\{([a-z]+="([^"\\\n]|\\.)*")(,[a-z]+="([^"\\\n]|\\.)*")*\})? [-+0-9.e]+')


@pytest.fixture
def engine() -> str:
    return "ours"


@pytest.fixture
def world(lab: Lab) -> Lab:
    """Yield a table of six days, tiered after two and dropped after four, and a RollUp."""
    lab.synced(days=6)
    lab.rollup("hourly")
    lab.flush()
    lab.conn.execute("SELECT lakets.set_chunk_interval('metrics', '30 days')")  # so there is a chunk to make
    return lab


def test_a_night_of_jobs(in_lab: Callable[..., Result], world: Lab) -> None:
    made = in_lab("run", "partitions")
    refreshed = in_lab("run", "refresh")
    tiered = in_lab("run", "tier")
    dropped = in_lab("run", "retain")

    assert [made.exit_code, refreshed.exit_code, tiered.exit_code, dropped.exit_code] == [0, 0, 0, 0]
    assert made.stdout.startswith("public.metrics: created (")
    assert "hourly: refreshed" in refreshed.stdout
    assert re.search(r"^[3-9] tiered$", tiered.stdout, re.MULTILINE)
    assert re.search(r"^public.metrics: dropped \(\d chunks? dropped", dropped.stdout)


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """Make standard error a terminal of 80 columns; return its output."""
    painted = io.StringIO()
    monkeypatch.setattr(progress, "console", lambda: Console(file=painted, force_terminal=True, width=80))
    return painted


@pytest.mark.parametrize(
    ("job", "count"), [("partitions", "3 of 3"), ("refresh", "2 of 2")], ids=["in batches", "in one call"]
)
def test_on_a_terminal_a_bar_shows_how_far_a_job_is(
    in_lab: Callable[..., Result],
    world: Lab,
    terminal: io.StringIO,
    monkeypatch: pytest.MonkeyPatch,
    job: str,
    count: str,
) -> None:
    monkeypatch.setattr(run, "BATCH", 1)
    for name in ("b", "c"):
        world.table(name)
    world.rollup("daily", reads="hourly")

    done = in_lab("run", job)

    assert count in terminal.getvalue()
    assert "\N{BOX DRAWINGS HEAVY HORIZONTAL}" in terminal.getvalue()  # the bar
    assert (done.exit_code, done.stderr) == (0, "")
    assert "\N{BOX DRAWINGS HEAVY HORIZONTAL}" not in done.stdout


@pytest.mark.parametrize(("job", "count"), [("partitions", 3), ("refresh", 2)])
def test_elsewhere_a_line_says_how_far_a_job_is(
    in_lab: Callable[..., Result], world: Lab, monkeypatch: pytest.MonkeyPatch, job: str, count: int
) -> None:
    monkeypatch.setattr(run, "BATCH", 1)
    for name in ("b", "c"):
        world.table(name)
    world.rollup("daily", reads="hourly")

    done = in_lab("run", job, "--json")

    assert done.stderr.splitlines() == [f"Progress: {number} of {count}" for number in range(1, count)]
    assert len(json.loads(done.stdout)) == count


def test_a_dry_run_changes_nothing(in_lab: Callable[..., Result], world: Lab) -> None:
    done = [in_lab("run", job, "--dry-run") for job in ("partitions", "refresh", "tier", "retain")]

    assert [one.exit_code for one in done] == [0, 0, 0, 0]
    assert all("planned" in one.stdout for one in done)
    assert set(world.values("SELECT status FROM lakets._chunk_metadata")) == {"active"}


def test_json_is_all_that_a_program_reads(in_lab: Callable[..., Result], world: Lab) -> None:
    done = in_lab("run", "tier", "--table", "metrics", "--json")

    assert {one["outcome"] for one in json.loads(done.stdout)} == {"tiered"}


def test_what_a_later_run_can_do_has_an_exit_code_of_its_own(
    in_lab: Callable[..., Result], world: Lab
) -> None:
    key = "hashtext('lakets'), ('metrics'::regclass::oid::bigint - 2147483648)::integer"
    world.conn.execute(f"SELECT pg_advisory_lock({key})")

    done = in_lab("run", "retain")

    assert (done.exit_code, "public.metrics: contended" in done.stdout) == (75, True)


def test_a_lock_that_all_tables_need_is_temporary_too(in_lab: Callable[..., Result], world: Lab) -> None:
    with psycopg.connect(world.conninfo) as holder:
        holder.execute("LOCK TABLE lakets._policy_registry IN ACCESS EXCLUSIVE MODE")

        done = in_lab("run", "tier")

    assert (done.exit_code, "another session holds a lock" in done.stderr) == (75, True)


def test_what_fails_for_good_ends_with_1(in_lab: Callable[..., Result], world: Lab) -> None:
    done = in_lab("run", "tier", "--table", "public.nothing")

    assert done.exit_code == 1
    assert "'public.nothing' is not a ChronoTable" in done.stderr


@pytest.mark.parametrize(
    ("job", "outcome"),
    [
        (["partitions"], "public.metrics: created"),
        (["tier"], ": tiered"),
        (["tier", "--dry-run"], ": planned"),
        (["retain"], "public.metrics: dropped"),
    ],
)
def test_a_table_that_does_not_exist_does_not_stop_the_others(
    in_lab: Callable[..., Result], world: Lab, job: list[str], outcome: str
) -> None:
    in_lab("run", "refresh")

    done = in_lab("run", *job, "--table", "public.nothing", "--table", "metrics")

    assert done.exit_code == 1
    assert "public.nothing: failed ('public.nothing' is not a ChronoTable" in done.stdout
    assert outcome in done.stdout


def test_with_nothing_due_it_says_so(in_lab: Callable[..., Result], lab: Lab) -> None:
    done = in_lab("run", "tier")

    assert (done.exit_code, done.stdout) == (0, "Nothing is due.\n")


def test_force_wants_the_tables_by_name(in_lab: Callable[..., Result], world: Lab) -> None:
    refused = in_lab("run", "retain", "--force")
    done = in_lab("run", "retain", "--force", "--table", "public.metrics")

    assert (refused.exit_code, done.exit_code) == (2, 0)
    assert "--force needs --table" in re.sub(r"\W*\n\W*", " ", refused.stderr)
    assert "public.metrics: dropped" in done.stdout


def test_a_chunk_is_explained(in_lab: Callable[..., Result], world: Lab) -> None:
    oldest = world.old_chunks()[0]

    before = json.loads(in_lab("explain", oldest, "--json").stdout)
    in_lab("run", "refresh")
    world.flush()
    after = json.loads(in_lab("explain", oldest, "--json").stdout)
    in_lab("run", "retain")
    dropped = in_lab("explain", oldest)

    assert before["of"] == "public.metrics"
    assert (after["durable in Unity Catalog"], after["retention"]) == ("yes", "the next run drops it")
    assert "no longer in Lakebase" in dropped.stdout


def test_a_chunk_that_is_not_durable_is_explained(in_lab: Callable[..., Result], world: Lab) -> None:
    world.conn.execute("UPDATE metrics SET value = value + 1")

    said = json.loads(in_lab("explain", world.old_chunks()[0], "--json").stdout)

    assert said["durable in Unity Catalog"].startswith("no: ")
    assert said["retention"] not in ("not due", "the next run drops it")


def test_a_rollup_is_explained(in_lab: Callable[..., Result], world: Lab) -> None:
    said = json.loads(in_lab("explain", "hourly", "--json").stdout)

    assert said["reads"] == "public.metrics"
    assert said["next refresh"].startswith("planned: ")


def test_what_is_neither_is_named(in_lab: Callable[..., Result], world: Lab) -> None:
    done = in_lab("explain", "hurly")

    assert done.exit_code == 1
    assert "'hurly' is neither a RollUp nor a chunk" in done.stderr


def test_metrics_are_in_the_format_of_prometheus(in_lab: Callable[..., Result], world: Lab) -> None:
    world.conn.execute('CREATE TABLE "we""ird\\ \n" (at timestamptz NOT NULL)')
    world.value("SELECT lakets.create_chronotable(%s, 'at')", 'we"ird\\ \n')

    done = in_lab("metrics")

    names = re.findall(r"^# TYPE (\w+) gauge$", done.stdout, re.MULTILINE)
    samples = [line for line in done.stdout.splitlines() if not line.startswith("#")]
    assert len(names) == len(set(names)) > 8
    assert [line for line in samples if not SAMPLE.fullmatch(line)] == []
    assert 'lakets_tiering_pending_chunks{table="public.metrics"}' in done.stdout
    assert r'table="public.we\"ird\\ \n"' in done.stdout


def test_every_metric_says_what_it_is(in_lab: Callable[..., Result], world: Lab) -> None:
    world.flush()
    in_lab("run", "refresh")

    lines = in_lab("metrics").stdout.splitlines()

    described = [line.split()[2] for line in lines if line.startswith("# HELP ")]
    assert described == [line.split()[2] for line in lines if line.startswith("# TYPE ")]
    assert {"lakets_job_last_run_timestamp_seconds", "lakets_feed_lag_bytes"} <= {*described}
