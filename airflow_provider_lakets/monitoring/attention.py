"""What needs attention, each with its next step, for page, `status` and `doctor`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_provider_lakets.monitoring.finding import ORDER, Attention
from airflow_provider_lakets.monitoring.of_jobs import of_jobs
from airflow_provider_lakets.monitoring.of_policies import of_policies
from airflow_provider_lakets.monitoring.of_tables import of_table
from airflow_provider_lakets.monitoring.words import ago

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_provider_lakets.monitoring.data import Snapshot

# What a repair names first, and how the page calls it.
KINDS = {"ChronoTable": "table", "RollUp": "rollup"}


def needs_attention(snapshot: Snapshot) -> list[Attention]:
    """Return what somebody should look at, the worst first."""
    found: list[Attention] = []
    for table in snapshot.tables:
        found += [*of_table(table, snapshot), *of_policies(table)]
    found += _of_rollups(snapshot)
    found += of_jobs(snapshot)
    found += _of_repairs(snapshot)
    return sorted(found, key=lambda one: ORDER[one.severity])


def _of_rollups(snapshot: Snapshot) -> Iterator[Attention]:
    for rollup in snapshot.rollups:
        if rollup.is_refused:
            said = "its query cannot be kept right, and was refused by the install; it is not refreshed"
            advice = "Drop it with lakets.drop_rollup, and create it again with a query that is taken."
            yield Attention("fail", rollup.name, said, advice, "rollup", "rollup-refused")
        elif rollup.is_late:
            when = f"refreshed {ago(rollup.last_refreshed_at, snapshot.at)}"
            when = when if rollup.last_refreshed_at else "never refreshed"
            said = f"{when}; its refresh_lag is {rollup.refresh_lag}"
            advice = "See whether the RollUp job runs; `lakets run refresh` shows why a refresh fails."
            yield Attention("warn", rollup.name, said, advice, "rollup", "rollup-late")


def _of_repairs(snapshot: Snapshot) -> Iterator[Attention]:
    """Yield what an upgrade or a change of the schema left to mend."""
    refused = {rollup.name for rollup in snapshot.rollups if rollup.is_refused}
    for repair in snapshot.troubles.repairs:
        first, _, name = repair.object.partition(" ")
        kind = KINDS.get(first)
        if kind is None:  # a function of 0.1.x that is still used: the doctor says so
            continue
        if kind == "rollup" and name in refused:
            continue
        remedy = repair.remedy
        advice = f"Run {remedy}" if remedy.startswith("SELECT ") else remedy
        yield Attention("warn", name, repair.problem, advice, kind, "repair")
