"""Triggers are serialized to the triggerer, and to another one after a restart."""

from __future__ import annotations

import inspect
import pkgutil
from datetime import datetime, timedelta, timezone
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from airflow.serialization.serialized_objects import BaseSerialization

from airflow_provider_lakets.get_provider_info import get_provider_info
from airflow_provider_lakets.triggers.base import LakeTSBaseTrigger
from airflow_provider_lakets.triggers.durability import LakeTSDurabilityTrigger
from airflow_provider_lakets.triggers.retention import LakeTSRetentionTrigger
from airflow_provider_lakets.triggers.rollups import LakeTSRollupFreshTrigger
from airflow_provider_lakets.triggers.tiering import LakeTSTierTrigger

if TYPE_CHECKING:
    from collections.abc import Callable

WAIT: dict[str, Any] = {
    "deadline": datetime(2030, 1, 1, 12, tzinfo=timezone.utc),
    "poll_interval": 7.5,
    "lakebase_conn_id": "other",
}
CHUNKS = ["public.metrics_20240101_000000", "public.metrics_20240102_000000"]

TRIGGERS: dict[str, LakeTSBaseTrigger] = {
    "tiering": LakeTSTierTrigger(chunks=CHUNKS, **WAIT),
    "retention": LakeTSRetentionTrigger(table="public.metrics", chunks=CHUNKS, **WAIT),
    "table": LakeTSDurabilityTrigger(table="public.metrics", **WAIT),
    "chunks": LakeTSDurabilityTrigger(chunks=CHUNKS, **WAIT),
    "rollup": LakeTSRollupFreshTrigger(rollup="daily", watermark="2024-01-01", max_lag="1h", **WAIT),
}

every = pytest.mark.parametrize("trigger", TRIGGERS.values(), ids=TRIGGERS)


def arguments_of(kind: type[object]) -> set[str]:
    """Return the names of a constructor's arguments, including those passed to its base class."""
    named: set[str] = set()
    for ancestor in kind.__mro__:
        if issubclass(ancestor, LakeTSBaseTrigger):
            parameters = inspect.signature(ancestor.__init__).parameters.values()
            named |= {one.name for one in parameters if one.kind is inspect.Parameter.KEYWORD_ONLY}
    return named


def by_base_serialization(kwargs: dict[str, Any]) -> Any:
    return BaseSerialization.deserialize(BaseSerialization.serialize(kwargs))


def by_serde(kwargs: dict[str, Any]) -> Any:
    serde = pytest.importorskip("airflow.sdk.serde", reason="Airflow 3.1 has it not")
    return serde.deserialize(serde.serialize(kwargs))


@every
def test_what_is_stored_is_exactly_what_the_constructor_takes(trigger: LakeTSBaseTrigger) -> None:
    assert set(trigger.serialize()[1]) == arguments_of(type(trigger))


@every
@pytest.mark.parametrize("store", [by_base_serialization, by_serde])
def test_the_trip_to_the_triggerer_changes_nothing(
    trigger: LakeTSBaseTrigger, store: Callable[[dict[str, Any]], Any]
) -> None:
    path, kwargs = trigger.serialize()

    again = pkgutil.resolve_name(path)(**store(kwargs))

    assert again.serialize() == (path, kwargs)


@every
def test_arguments_that_another_version_wrote_are_no_obstacle(trigger: LakeTSBaseTrigger) -> None:
    path, kwargs = trigger.serialize()

    again = pkgutil.resolve_name(path)(**kwargs, of_another_version=1)

    assert again.serialize() == (path, kwargs)


@every
def test_trigger_is_known_to_airflow(trigger: LakeTSBaseTrigger) -> None:
    listed = [name for entry in get_provider_info()["triggers"] for name in entry["python-modules"]]

    assert type(trigger).__module__ in listed


def test_every_module_of_the_package_is_listed() -> None:
    for kind in ("triggers", "sensors"):
        (entry,) = get_provider_info()[kind]
        package = import_module(f"airflow_provider_lakets.{kind}")
        there = {path.stem for path in Path(package.__path__[0]).glob("[!_]*.py")}
        listed = [name for name in entry["python-modules"] if name.startswith(f"{package.__name__}.")]
        assert {name.rpartition(".")[2] for name in listed} == there - {"base", "waiting", "watch"}


@pytest.mark.parametrize(
    ("failures", "pause"), [(0, 30), (1, 60), (2, 120), (4, 300), (2000, 300)], ids=lambda value: str(value)
)
def test_tries_at_a_database_that_does_not_answer_come_at_longer_and_longer_intervals(
    failures: int, pause: float
) -> None:
    trigger = LakeTSTierTrigger(chunks=CHUNKS, deadline=datetime.now(timezone.utc) + timedelta(hours=1))

    assert trigger._pause(failures) == pause
