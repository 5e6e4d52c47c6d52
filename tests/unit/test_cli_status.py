"""`lakets status`: problems come first, in 80 columns, with rounded numbers."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from rich.console import Console
from typer.testing import CliRunner

from airflow_provider_lakets.cli import app
from airflow_provider_lakets.commands import status
from airflow_provider_lakets.exceptions import LakebaseConnectionError, LakeTSArgumentError
from airflow_provider_lakets.hooks.lakets import LakeTSHook

if TYPE_CHECKING:
    from collections.abc import Callable

    from typer.testing import Result

    from airflow_provider_lakets.hooks.results import Status
    from tests.lab import Lab


@pytest.fixture
def engine() -> str:
    return "ours"


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give the commands a terminal of 80 columns."""
    monkeypatch.setattr(status, "console", lambda: Console(width=80, highlight=False))


def test_what_needs_attention_comes_first_with_its_next_step(in_lab: Callable[..., Result], lab: Lab) -> None:
    lab.synced(days=8)
    lab.flush(status="SKIPPED")

    lines = in_lab("status").stdout.splitlines()

    start = lines.index("Needs attention:")
    assert lines[start + 1].startswith("fail public.metrics: the change feed is not streaming")
    assert "`lakets doctor`" in " ".join(" ".join(lines[start + 1 : start + 6]).split())
    assert start < next(number for number, line in enumerate(lines) if "ChronoTables" in line)


def test_what_many_tables_have_in_common_is_said_once_and_hides_nothing_else(
    in_lab: Callable[..., Result], lab: Lab
) -> None:
    for number in range(13):
        lab.synced(f"metrics_{number:02}", days=3)
        lab.flush(f"metrics_{number:02}", status="SKIPPED")
    lab.table("readings")
    lab.conn.execute("INSERT INTO readings VALUES ('1990-01-01', 'a', 1)")

    words = " ".join(in_lab("status").stdout.partition("ChronoTables")[0].split())

    assert words.count("the change feed is not streaming") == 1
    assert "fail 13 tables: public.metrics_00, public.metrics_01," in words
    assert "and 8 more: the change feed is not streaming (SKIPPED)" in words
    assert "public.readings: 1 row lies outside all chunks" in words
    assert "lakets status --json" in words


def test_nothing_needs_attention_where_all_is_well(in_lab: Callable[..., Result], lab: Lab) -> None:
    lab.table()
    lab.hook().partition()

    assert "Nothing needs attention." in in_lab("status").stdout


def test_a_job_that_failed_is_said_with_the_reason(in_lab: Callable[..., Result], lab: Lab) -> None:
    lab.table("metrics", days=2)
    lab.rollup("hourly")
    lab.hook().partition()
    lab.break_rollup("hourly")
    lab.hook().refresh()

    found, *_ = json.loads(in_lab("status", "--json").stdout)["attention"]

    assert (found["severity"], found["subject"]) == ("fail", "hourly")
    assert "violates check constraint" in found["said"]
    assert "\n" not in found["said"]
    assert "lakets run refresh" in found["advice"]


def test_what_failed_once_and_went_well_since_is_over(in_lab: Callable[..., Result], lab: Lab) -> None:
    lab.table("metrics", days=2)
    lab.rollup("hourly")
    lab.hook().partition()
    lab.break_rollup("hourly")
    lab.hook().refresh()
    lab.conn.execute('ALTER TABLE public."_rollup_hourly" DROP CONSTRAINT "_rollup_hourly_total_check"')
    lab.hook().refresh()

    assert json.loads(in_lab("status", "--json").stdout)["attention"] == []


def test_chunks_that_stay_unproved_run_after_run_are_said(in_lab: Callable[..., Result], lab: Lab) -> None:
    lab.synced(days=4)
    lab.flush()
    lab.conn.execute("UPDATE metrics SET value = value + 1")
    for _ in range(3):
        lab.hook().tier(lab.old_chunks())
        lab.conn.execute("UPDATE lakets._job_run SET started_at = started_at - interval '1 day'")

    said = [one["said"] for one in json.loads(in_lab("status", "--json").stdout)["attention"]]

    assert any("not proved durable in 3 runs" in one for one in said)


@pytest.mark.usefixtures("narrow")
def test_nothing_is_wider_than_80_columns_and_each_name_is_whole(
    in_lab: Callable[..., Result], lab: Lab
) -> None:
    lab.synced("metrics", days=8)
    lab.flush(status="SKIPPED")
    lab.table("readings")
    lab.rollup("hourly")
    long = ["n" * 60 + end for end in ("one", "two")]
    for name in long:
        lab.table(name)

    done = in_lab("status")

    assert [line for line in done.stdout.splitlines() if len(line) > 80] == []
    for name in ("public.metrics", "public.readings", "hourly", "UTC"):
        assert name in done.stdout
    rows = [line for line in done.stdout.splitlines() if line.startswith("│")]
    first_column = "".join(row[2:].partition("│")[0].strip() for row in rows)
    for name in long:
        assert f"public.{name}" in first_column


@pytest.mark.parametrize(
    "command",
    [
        ["status"],
        ["doctor", "--wait", "0"],
        ["run", "partitions", "--dry-run"],
        ["explain", "public.a\x1b[31m\u202e[red]_19990101_000000"],
    ],
    ids=lambda command: command[0] + command[1][:4] if len(command) > 1 else command[0],
)
def test_a_name_cannot_paint_the_terminal(
    in_lab: Callable[..., Result], lab: Lab, command: list[str]
) -> None:
    lab.synced("a\x1b[31m\u202e[red]", days=4)
    lab.conn.execute("DELETE FROM lakets._chunk_metadata WHERE range_start > now()")

    done = in_lab(*command)

    assert not {"\x1b", "\u202e"} & {*done.output}
    assert "[red]" in done.output


def test_a_name_is_shown_where_the_terminal_lacks_its_characters(lab: Lab) -> None:
    lab.table("mesures_à_l'heure")

    done = CliRunner(charset="ascii").invoke(app, ["status"])

    assert (done.exit_code, r"mesures_\xe0_l'heure" in done.stdout) == (0, True)


def test_names_are_listed_as_people_count(in_lab: Callable[..., Result], lab: Lab) -> None:
    for number in (10, 2, 1):
        lab.synced(f"sensors_{number}", days=4)
        lab.rollup(f"of_{number}", reads=f"sensors_{number}")

    found = json.loads(in_lab("status", "--json").stdout)
    partitions = json.loads(in_lab("run", "partitions", "--dry-run", "--json").stdout)
    for number in (10, 2, 1):
        lab.flush(f"sensors_{number}")
    candidates = [one.chunk_name.rsplit("_", 2)[0] for one in lab.hook().tier_candidates()]

    wanted = ["public.sensors_1", "public.sensors_2", "public.sensors_10"]
    assert [f"public.{one['table_name']}" for one in found["tables"]] == wanted
    assert [one["name"] for one in found["rollups"]] == ["of_1", "of_2", "of_10"]
    assert [one["subject"] for one in found["attention"]] == wanted
    assert [one["name"] for one in partitions] == wanted
    assert [*dict.fromkeys(candidates)] == wanted


def test_watching_shows_it_again_and_again(
    in_lab: Callable[..., Result], lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab.table()
    pauses: list[float] = []

    def interrupt(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr("airflow_provider_lakets.cli.time.sleep", interrupt)

    done = in_lab("status", "--watch", "7")

    assert pauses == [7, 7]
    assert done.stdout.count("public.metrics") >= 2
    assert "Traceback" not in done.output


def test_watching_goes_on_when_lakebase_goes_away_and_comes_back(
    in_lab: Callable[..., Result], lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab.table()
    rounds: list[float] = []

    def between(seconds: float) -> None:
        rounds.append(seconds)
        if len(rounds) == 1:
            monkeypatch.setattr(LakeTSHook, "status", is_gone)
        elif len(rounds) == 2:
            monkeypatch.setattr(LakeTSHook, "status", whole)
        else:
            raise KeyboardInterrupt

    def is_gone(_: LakeTSHook) -> Status:
        raise LakebaseConnectionError("Lakebase does not answer.")

    whole = LakeTSHook.status
    monkeypatch.setattr("airflow_provider_lakets.cli.time.sleep", between)

    done = in_lab("status", "--watch", "7")

    assert done.stdout.count("Lakebase does not answer.") == 1
    assert done.stdout.count("Not seen since") == 1
    assert done.stdout.count("ChronoTables") == 3
    assert "Traceback" not in done.output


def test_watching_in_json_is_refused(in_lab: Callable[..., Result]) -> None:
    done = in_lab("status", "--watch", "7", "--json")

    assert (done.exit_code, "do not go together" in done.stderr) == (2, True)


@pytest.mark.parametrize(
    "gone", ["DROP TABLE old", "ALTER TABLE old RENAME TO older; CREATE TABLE old (n integer)"]
)
def test_table_that_is_gone_does_not_hide_the_others(
    in_lab: Callable[..., Result], lab: Lab, gone: str
) -> None:
    lab.table("old", days=2)
    lab.synced(days=3)
    lab.flush()
    lab.conn.execute(gone)

    done = in_lab("status")

    assert done.exit_code == 0, done.output
    assert "public.metrics" in done.stdout
    assert "public.old" in done.stdout.partition("Needs attention")[2]


def test_name_of_a_rollup_is_no_markup(in_lab: Callable[..., Result], lab: Lab) -> None:
    lab.table(days=2)
    lab.rollup("[/]")
    lab.rollup("[red]x")

    shown = in_lab("status").stdout

    assert "[/]" in shown
    assert "[red]x" in shown


def test_metrics_leave_out_what_a_locked_table_does_not_tell(in_lab: Callable[..., Result], lab: Lab) -> None:
    lab.synced(days=3)
    with lab.conn.transaction():
        lab.conn.execute("LOCK TABLE metrics IN ACCESS EXCLUSIVE MODE")
        done = in_lab("metrics")

    assert done.exit_code == 0, done.output
    assert "# TYPE lakets_" in done.stdout
    assert "None" not in done.stdout


def test_table_that_is_gone_does_not_stop_the_tiering_of_the_others(
    in_lab: Callable[..., Result], lab: Lab
) -> None:
    lab.synced("old", days=5)
    lab.synced(days=5)
    lab.flush()
    lab.conn.execute("DROP TABLE old")

    found = lab.hook().tier_candidates()

    assert {one.chunk_name.partition("_2")[0] for one in found} == {"public.metrics"}
    with pytest.raises(LakeTSArgumentError, match="old"):
        lab.hook().tier_candidates(["old"])
    assert in_lab("run", "tier").exit_code == 0


def test_any_other_error_of_a_table_ends_tiering_and_reports(lab: Lab) -> None:
    lab.synced(days=5)
    lab.flush()
    hook = lab.hook(options=r"-c default_transaction_isolation=serializable")

    with pytest.raises(LakeTSArgumentError, match="serializable"):
        hook.tier_candidates()
