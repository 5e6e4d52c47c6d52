"""Find what needs attention, with the next step, for the page, `status` and `doctor`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_provider_lakets import __version__
from airflow_provider_lakets.monitoring.finding import ORDER, Attention
from airflow_provider_lakets.monitoring.of_jobs import of_jobs
from airflow_provider_lakets.monitoring.of_policies import of_policies
from airflow_provider_lakets.monitoring.of_slots import of_slots
from airflow_provider_lakets.monitoring.of_tables import of_table
from airflow_provider_lakets.monitoring.words import ago

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_provider_lakets.monitoring.data import Snapshot

# The kind with which a repair begins, and its name on the page. Repairs of functions have none.
KINDS = {"ChronoTable": "table", "RollUp": "rollup"}


def needs_attention(snapshot: Snapshot) -> list[Attention]:
    """Return the problems, the most severe first."""
    found: list[Attention] = [*of_engine(snapshot.version)]
    for table in snapshot.tables:
        found += [*of_table(table, snapshot), *of_policies(table)]
    stands_still = any(one.code == "feed-stands-still" for one in found)
    found += of_slots(snapshot.troubles.slots, stands_still=stands_still)
    found += _of_rollups(snapshot)
    found += of_jobs(snapshot)
    found += _of_repairs(snapshot)
    return sorted(found, key=lambda one: ORDER[one.severity])


def of_engine(version: str | None) -> Iterator[Attention]:
    """Yield a problem if the LakeTS of the database is older than that of this provider."""
    if version is None or _numbers(version) >= _numbers(__version__):
        return
    said = f"version {version}; this provider includes {__version__}"
    advice = "It works; `lakets install` upgrades it to the engine of this provider."
    yield Attention("LakeTS", said, advice, "engine-older", "engine")


def _numbers(version: str) -> tuple[int, ...]:
    """Return the numbers of a version, for comparison."""
    return tuple(int(part) for part in version.split(".") if part.isdigit())


def _of_rollups(snapshot: Snapshot) -> Iterator[Attention]:
    for rollup in snapshot.rollups:
        if rollup.is_refused:
            said = "the install refused its query, which cannot be kept correct; it is not refreshed"
            advice = "Drop it with lakets.drop_rollup, and create it again with a supported query."
            yield Attention(rollup.name, said, advice, "rollup-refused", "rollup")
        elif rollup.is_late:
            when = f"refreshed {ago(rollup.last_refreshed_at, snapshot.at)}"
            when = when if rollup.last_refreshed_at else "never refreshed"
            said = f"{when}; its refresh_lag is {rollup.refresh_lag}"
            advice = "Check whether the RollUp job runs; `lakets run refresh` shows why a refresh fails."
            yield Attention(rollup.name, said, advice, "rollup-late", "rollup")


def _of_repairs(snapshot: Snapshot) -> Iterator[Attention]:
    """Yield the repairs that are pending after an upgrade or a change of the schema."""
    if why := snapshot.troubles.repairs_unknown:
        said = f"the pending repairs cannot be read now: {why}"
        yield Attention("LakeTS", said, "Try again later.", "repairs-unknown", "engine")
    refused = {rollup.name for rollup in snapshot.rollups if rollup.is_refused}
    for repair in snapshot.troubles.repairs:
        first, _, name = repair.object.partition(" ")
        kind = KINDS.get(first, "function")
        if kind == "function":
            name = repair.object
        if kind == "rollup" and name in refused:
            continue
        remedy = repair.remedy
        advice = f"Run {remedy}" if remedy.startswith("SELECT ") else remedy
        yield Attention(name, repair.problem, advice, "repair", kind, remedy)
