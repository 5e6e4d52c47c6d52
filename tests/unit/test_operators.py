"""Constructors of the operators: they do nothing except refuse invalid arguments."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_lakets.operators._arguments import as_bool, as_instant, as_names, as_range
from airflow_provider_lakets.operators.alerts import LakeTSAlertOperator
from airflow_provider_lakets.operators.approval import LakeTSForceApprovalOperator
from airflow_provider_lakets.operators.install import LakeTSInstallOperator
from airflow_provider_lakets.operators.partitions import LakeTSPartitionOperator
from airflow_provider_lakets.operators.retention import LakeTSRetentionOperator
from airflow_provider_lakets.operators.rollups import LakeTSRollupRefreshOperator
from airflow_provider_lakets.operators.tables import LakeTSTablesOperator
from airflow_provider_lakets.operators.tiering import LakeTSTierCandidatesOperator, LakeTSTierOperator

if TYPE_CHECKING:
    from collections.abc import Callable

OPERATORS: dict[str, tuple[type[Any], dict[str, Any]]] = {
    "install": (LakeTSInstallOperator, {}),
    "partitions": (LakeTSPartitionOperator, {}),
    "candidates": (LakeTSTierCandidatesOperator, {}),
    "tier": (LakeTSTierOperator, {"chunks": ["public.metrics_20250101_000000"]}),
    "retention": (LakeTSRetentionOperator, {"table": "metrics"}),
    "rollups": (LakeTSRollupRefreshOperator, {}),
    "tables": (LakeTSTablesOperator, {}),
    "approval": (LakeTSForceApprovalOperator, {"tables": ["public.metrics"]}),
    "alert": (LakeTSAlertOperator, {"name": "hot", "query": "SELECT 1"}),
}
DRY = {name: OPERATORS[name] for name in OPERATORS if name not in ("install", "tables", "alert")}

every = pytest.mark.parametrize(("operator", "arguments"), OPERATORS.values(), ids=OPERATORS)


@every
def test_the_connection_may_be_another_or_a_template(operator: type[Any], arguments: dict[str, Any]) -> None:
    task = operator(task_id="x", lakebase_conn_id="{{ params.conn }}", **arguments)

    assert "lakebase_conn_id" in task.template_fields
    task.render_template_fields({"params": {"conn": "other"}})
    assert task.lakebase_conn_id == "other"


@every
def test_every_template_field_is_an_argument(operator: type[Any], arguments: dict[str, Any]) -> None:
    task = operator(task_id="x", **arguments)

    assert all(hasattr(task, name) for name in task.template_fields)


@every
def test_arguments_are_given_by_name(operator: type[Any], arguments: dict[str, Any]) -> None:
    with pytest.raises(TypeError):
        operator("x", *arguments.values())


@every
def test_a_task_that_never_ran_can_be_killed(operator: type[Any], arguments: dict[str, Any]) -> None:
    operator(task_id="x", **arguments).on_kill()


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (
            lambda: LakeTSTierCandidatesOperator(task_id="x", batch_size=0),
            "batch_size must be 1 or more, not 0",
        ),
        (lambda: LakeTSTierCandidatesOperator(task_id="x", max_batches=0), "max_batches must be 1 or more"),
        (lambda: LakeTSRollupRefreshOperator(task_id="x", parallelism=0), "parallelism must be 1 or more"),
        (lambda: LakeTSPartitionOperator(task_id="x", future_count=-1), "future_count must be 0 or more"),
        (lambda: LakeTSPartitionOperator(task_id="x", past_count=-1), "past_count must be 0 or more"),
        (lambda: LakeTSPartitionOperator(task_id="x", range_end="2025-01-01"), "range_start and range_end"),
        (lambda: LakeTSRollupRefreshOperator(task_id="x", range_start="2025-01-01"), "range_start and"),
        (lambda: LakeTSTablesOperator(task_id="x", policy="retain"), "policy must be 'tiering', 'retention'"),
        (
            lambda: LakeTSAlertOperator(task_id="x", name="a", query="SELECT 1", on_alert="mail"),  # type: ignore[arg-type]
            "on_alert must be one of fail, skip, branch, report",
        ),
        (lambda: LakeTSAlertOperator(task_id="x", name="a"), "give either query, or table"),
        (
            lambda: LakeTSAlertOperator(task_id="x", name="a", query="SELECT 1", table="t"),
            "give either query, or table",
        ),
        (
            lambda: LakeTSAlertOperator(task_id="x", name="a", table="t", group_by="device"),
            "give either query, or table",
        ),
        (
            lambda: LakeTSAlertOperator(task_id="x", name="a", query="SELECT 1", on_alert="branch"),
            "if_alert or if_quiet",
        ),
        (
            lambda: LakeTSAlertOperator(task_id="x", name="a", query="SELECT 1", if_alert="mend"),
            "if_alert or if_quiet",
        ),
    ],
    ids=[
        "batch_size",
        "max_batches",
        "parallelism",
        "future_count",
        "past_count",
        "half a range of chunks",
        "half a range of buckets",
        "policy",
        "on_alert",
        "no alert",
        "two alerts",
        "half an alert",
        "no branch",
        "a branch for nothing",
    ],
)
def test_what_cannot_be_meant_is_refused_when_the_dag_is_parsed(wrong: Callable[[], Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        wrong()


def test_force_is_off_by_default() -> None:
    assert LakeTSRetentionOperator(task_id="x", table="metrics").force is False


@pytest.mark.parametrize(
    ("chunks", "label"),
    [
        (["a.b"], "a.b"),
        ("a.b", "a.b"),
        (["a.b", "a.c", "a.d"], "a.b and 2 more"),
        ([], "nothing"),
        (
            ["s.flights_20260725_000000", "s.weather_20260725_000000", "s.flights_20260726_000000"],
            "s.flights: 2 chunk(s), s.weather: 1 chunk(s)",
        ),
        ([f"s.t{table}_20260725_000000" for table in range(5)], "and 2 more table(s)"),
    ],
    ids=["one", "text", "many", "none", "two tables", "many tables"],
)
def test_a_tier_task_is_named_after_its_chunks(chunks: Any, label: str) -> None:
    assert LakeTSTierOperator(task_id="x", chunks=chunks).label.endswith(label)


@pytest.mark.parametrize("tables", [1, 2, 3, 4])
def test_the_name_of_a_task_fits_into_the_database_of_airflow(tables: int) -> None:
    names = [f"{'s' * 63}.{'t' * 46}{table}_20260725_000000" for table in range(tables)]
    both = [*names, *(name.replace("20260725", "20260726") for name in names)]

    labels = [
        LakeTSTierOperator(task_id="x", chunks=both).label,
        LakeTSRetentionOperator(task_id="x", table=names).label,
        LakeTSRetentionOperator(task_id="x", table="s" * 1000).label,
        LakeTSTierOperator(task_id="x", chunks=f"s{'s' * 1000}").label,
    ]

    assert all(label.startswith("sss") for label in labels)
    assert max(map(len, labels)) <= 250


def test_a_retention_task_shows_names_without_the_quotes_of_sql() -> None:
    task = LakeTSRetentionOperator(task_id="x", table=['"Plant"."Metrics"', "other"])

    assert task.label == "Plant.Metrics and 1 more"


# Dry runs and force


@pytest.mark.parametrize(("operator", "arguments"), DRY.values(), ids=DRY)
def test_every_job_changes_things_unless_told_not_to(operator: type[Any], arguments: dict[str, Any]) -> None:
    assert operator(task_id="x", **arguments).is_dry_run is False
    assert operator(task_id="x", dry_run=True, **arguments).is_dry_run is True


@pytest.mark.parametrize(("operator", "arguments"), DRY.values(), ids=DRY)
@pytest.mark.parametrize(("value", "dry"), [(True, True), (False, False), ("yes", True), ("off", False)])
def test_dry_run_may_be_a_template(
    operator: type[Any], arguments: dict[str, Any], value: object, dry: bool
) -> None:
    task = operator(task_id="x", dry_run="{{ params.dry }}", **arguments)

    task.render_template_fields({"params": {"dry": value}})

    assert task.is_dry_run is dry


@pytest.mark.parametrize("value", ["maybe", "{{ params.force }}", "[]", "2"])
def test_a_switch_that_is_neither_on_nor_off_fails_for_good(value: str) -> None:
    with pytest.raises(Exception, match="force must be true or false, not") as caught:
        as_bool(value, "force")

    assert type(caught.value).__name__ == "AirflowFailException"


@pytest.mark.parametrize("value", [True, "True", "true", " ON ", "1", 1])
def test_a_switch_is_on(value: Any) -> None:
    assert as_bool(value, "x") is True


@pytest.mark.parametrize("value", [False, "False", "off", "0", 0])
def test_a_switch_is_off(value: Any) -> None:
    assert as_bool(value, "x") is False


# Names and ranges


@pytest.mark.parametrize(
    ("value", "names"),
    [
        ("a.b", ["a.b"]),
        (["a.b", "c.d"], ["a.b", "c.d"]),
        ("['a.b', 'c.d']", ["a.b", "c.d"]),
        (2024, ["2024"]),
        ([2024, "a"], ["2024", "a"]),
        ('"2024"', ["2024"]),
    ],
)
def test_names_survive_what_a_template_makes_of_them(value: Any, names: list[str]) -> None:
    assert as_names(value, "tables") == names


@pytest.mark.parametrize(
    "value", [True, 1.5, b"a", {"a": 1}, ["a", 1.5], ["a", ["b"]], "['a'", [None], "[1, "]
)
def test_what_is_no_name_fails_for_good(value: Any) -> None:
    with pytest.raises(Exception, match=r"tables (must be|was rendered to)") as caught:
        as_names(value, "tables")

    assert type(caught.value).__name__ == "AirflowFailException"


@pytest.mark.parametrize(
    "value",
    [
        "2025-03-01",
        "2025-03-01T00:00:00Z",
        "2025-03-01 01:00:00+01:00",
        "2025-03-01 00:00 UTC",
        "20250301T000000+0000",
        datetime(2025, 3, 1),
        20250301,
    ],
)
def test_an_instant_without_a_zone_is_utc(value: Any) -> None:
    assert as_instant(value, "x") == datetime(2025, 3, 1, tzinfo=timezone.utc)


@pytest.mark.parametrize(
    "value",
    [
        *("soon", 1.5, True, "2025-03-01/2025-03-02", ["2025-03-01"]),
        # Airflow adds today's date to these, reads them as in America, or takes them for UTC.
        *("12:30", "5", "March", "01/02/2025", "2025-03-01 00:00 EST"),
    ],
)
def test_what_is_no_instant_fails_for_good(value: Any) -> None:
    with pytest.raises(Exception, match="which is not a time") as caught:
        as_instant(value, "x")

    assert type(caught.value).__name__ == "AirflowFailException"


def test_a_range_from_its_end_to_its_start_fails_for_good() -> None:
    with pytest.raises(Exception, match="Give the earlier one first"):
        as_range("2025-03-02", "2025-03-01")


def test_an_empty_range_fails_for_good() -> None:
    with pytest.raises(Exception, match="The range is empty: it begins and ends at 2025-03-01") as caught:
        as_range("2025-03-01", "2025-03-01")

    assert type(caught.value).__name__ == "AirflowFailException"


def test_half_a_range_at_run_time_fails_for_good() -> None:
    with pytest.raises(Exception, match="range_start and range_end go together") as caught:
        as_range("2025-03-01", "*")

    assert type(caught.value).__name__ == "AirflowFailException"


@pytest.mark.parametrize("nothing", [None, "", "None", {}])
def test_approved_chunks_that_are_nothing_are_not_all(nothing: Any) -> None:
    task = LakeTSRetentionOperator(task_id="x", table="metrics", force=True, approved_chunks=["a"])
    task.approved_chunks = nothing  # as a template or XCom gives it

    with pytest.raises(Exception, match="approved_chunks was rendered to") as caught:
        task.execute({})

    assert type(caught.value).__name__ == "AirflowFailException"


def test_approval_waits_for_a_day_and_then_rejects() -> None:
    task = LakeTSForceApprovalOperator(task_id="x", tables=["public.metrics"], force=True)

    limit = getattr(task, "response_timeout", None) or task.execution_timeout
    assert (limit, task.defaults) == (timedelta(days=1), ["Reject"])
