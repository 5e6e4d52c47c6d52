"""Sensors and deferrable operators: what they refuse, when they defer, how they end."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from airflow.sdk.execution_time.context import OutletEventAccessors

from airflow_provider_lakets.compat import (
    AirflowRescheduleException,
    AirflowSensorTimeout,
    AirflowSkipException,
    AirflowTaskTimeout,
    TaskDeferralTimeout,
)
from airflow_provider_lakets.exceptions import LakebaseConnectionError, LakeTSError
from airflow_provider_lakets.operators.retention import LakeTSRetentionOperator
from airflow_provider_lakets.operators.tiering import LakeTSTierOperator
from airflow_provider_lakets.sensors.durability import LakeTSDurabilitySensor
from airflow_provider_lakets.sensors.rollups import LakeTSRollupFreshSensor
from tests.triggering import instead_of_explaining

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.lab import Lab
    from tests.pauses import Pauses
    from tests.stage import HandFeed, Stage

COLD = 1
CHUNK = "public.metrics_20240101_000000"


@pytest.fixture
def engine() -> str:
    return "ours"


@pytest.fixture
def feed(lake: Stage, pauses: Pauses) -> HandFeed:
    """A synced table with a change to be flushed."""
    feed = lake.synced()
    lake.run("INSERT INTO metrics VALUES (9, %s, 9)", lake.at(COLD, 1))
    return feed


def context() -> Any:
    """Return the part of Airflow's context that a task needs outside of Airflow."""
    stored: dict[str, Any] = {}
    task = SimpleNamespace(
        task_id="x",
        map_index=-1,
        try_number=1,
        xcom_push=lambda key, value: stored.update({key: value}),
        xcom_pull=lambda task_ids, key, map_indexes: stored[key],
    )
    return {"ti": task, "outlet_events": OutletEventAccessors()}


def rescheduled(**more: Any) -> Any:
    """Return the same for a sensor that frees its worker between two checks."""
    ti = SimpleNamespace(try_number=1, get_first_reschedule_date=lambda _: datetime.now(timezone.utc))
    return {**context(), "ti": ti, **more}


def deferral(task: Any, context: Any) -> Any:
    """Return the TaskDeferred that a task raises."""
    with pytest.raises(BaseException) as caught:  # noqa: PT011 - it is elsewhere in Airflow 3.1
        task.execute(context)
    assert type(caught.value).__name__ == "TaskDeferred", caught.value
    return caught.value


# Invalid arguments


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda: LakeTSDurabilitySensor(task_id="x"), "give table or chunks"),
        (lambda: LakeTSDurabilitySensor(task_id="x", table="a", chunks="b"), "give table or chunks"),
        (lambda: LakeTSRollupFreshSensor(task_id="x", rollup="daily"), "give watermark or max_lag"),
        (
            lambda: LakeTSDurabilitySensor(task_id="x", table="a", poke_interval=0, deferrable=True),
            "poll_interval must be more than 0 seconds, not 0",
        ),
        (
            lambda: LakeTSTierOperator(task_id="x", chunks=CHUNK, poll_interval=0),
            "poll_interval must be more than 0 seconds, not 0",
        ),
    ],
    ids=["nothing", "both", "no bound", "busy sensor", "busy operator"],
)
def test_what_cannot_be_meant_is_refused_when_the_dag_is_parsed(wrong: Callable[[], Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        wrong()


@pytest.mark.parametrize(
    ("kind", "arguments"),
    [
        (LakeTSDurabilitySensor, {"table": "{{ params.it }}"}),
        (LakeTSDurabilitySensor, {"chunks": ["{{ params.it }}"]}),
        (LakeTSRollupFreshSensor, {"rollup": "{{ params.it }}", "max_lag": "{{ params.it }}"}),
        (LakeTSRollupFreshSensor, {"rollup": "{{ params.it }}", "watermark": "{{ params.it }}"}),
    ],
    ids=["table", "chunks", "lag", "watermark"],
)
def test_everything_that_names_a_thing_is_templated(kind: type[Any], arguments: dict[str, Any]) -> None:
    sensor = kind(task_id="x", lakebase_conn_id="{{ params.it }}", **arguments)

    sensor.render_template_fields({"params": {"it": "rendered"}})

    found = {name: getattr(sensor, name) for name in [*arguments, "lakebase_conn_id"]}
    assert [value for value in found.values() if value not in ("rendered", ["rendered"])] == []


# When they defer

TASKS: dict[str, Callable[..., Any]] = {
    "durability": lambda **how: LakeTSDurabilitySensor(task_id="x", table="metrics", **how),
    "rollup": lambda **how: LakeTSRollupFreshSensor(task_id="x", rollup="r", max_lag="1 h", **how),
    "tier": lambda **how: LakeTSTierOperator(task_id="x", chunks=CHUNK, **how),
    "retention": lambda **how: LakeTSRetentionOperator(task_id="x", table="metrics", **how),
}


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
@pytest.mark.parametrize("default", ["True", "False"])
def test_airflows_configuration_decides_unless_the_task_does(
    task: Callable[..., Any], default: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__OPERATORS__DEFAULT_DEFERRABLE", default)

    choices = [task().deferrable, task(deferrable=True).deferrable, task(deferrable=False).deferrable]

    assert choices == [default == "True", True, False]


def test_sensor_hands_over_what_it_waits_for_and_how_long(feed: HandFeed) -> None:
    before = datetime.now(timezone.utc)
    sensor = LakeTSDurabilitySensor(
        task_id="x", table="metrics", deferrable=True, poke_interval=90, timeout=timedelta(hours=2)
    )

    deferred = deferral(sensor, context())

    trigger = deferred.trigger
    assert (trigger.table, trigger.chunks, trigger.poll_interval) == ("metrics", None, 90)
    assert timedelta(hours=2) <= trigger.deadline - before < timedelta(hours=2, minutes=1)
    assert deferred.timeout > timedelta(hours=2)  # the trigger gives up first, because it can say why
    assert deferred.method_name == "execute_complete"


@pytest.mark.parametrize("kind", [LakeTSDurabilitySensor, LakeTSRetentionOperator])
def test_a_deferred_task_waits_no_longer_than_its_execution_timeout(feed: HandFeed, kind: type[Any]) -> None:
    before = datetime.now(timezone.utc)
    task = kind(task_id="x", table="metrics", deferrable=True, execution_timeout=timedelta(minutes=2))

    deferred = deferral(task, context())

    assert timedelta(minutes=2) <= deferred.trigger.deadline - before < timedelta(minutes=3)


def test_the_execution_timeout_of_a_rescheduled_sensor_is_for_one_check(feed: HandFeed) -> None:
    before = datetime.now(timezone.utc)
    limit = timedelta(minutes=2)
    sensor = LakeTSDurabilitySensor(
        task_id="x", table="metrics", deferrable=True, mode="reschedule", execution_timeout=limit, timeout=600
    )

    deferred = deferral(sensor, rescheduled())

    assert timedelta(minutes=10) <= deferred.trigger.deadline - before < timedelta(minutes=11)


def test_a_sensor_that_defers_again_has_the_rest_of_its_timeout_left(lake: Stage, feed: HandFeed) -> None:
    sensor = LakeTSDurabilitySensor(task_id="x", table="metrics", silent_fail=True, deferrable=True)
    event = {"status": "failed", "message": "disk on fire", "retryable": True}
    first = deferral(sensor, context())

    again = resumed(sensor, {**first.kwargs, "event": event})

    assert type(again).__name__ == "TaskDeferred"
    assert abs(again.trigger.deadline - first.trigger.deadline) < timedelta(seconds=1)

    passed = (datetime.now(timezone.utc) - timedelta(seconds=1)).isoformat()
    end = resumed(sensor, {**first.kwargs, "until": passed, "event": event})

    assert isinstance(end, AirflowSensorTimeout)


def resumed(sensor: Any, arguments: dict[str, Any]) -> Any:
    """Return the error with which a sensor ends after a wait."""
    with pytest.raises(BaseException) as caught:  # noqa: PT011 - it is elsewhere in Airflow 3.1
        sensor.resume_execution("execute_complete", arguments, context())
    return caught.value


def test_sensor_whose_wait_is_over_before_it_began_does_not_defer(lake: Stage, feed: HandFeed) -> None:
    feed.flush()
    sensor = LakeTSDurabilitySensor(task_id="x", table="metrics", deferrable=True)

    sensor.execute(context())  # deferring would raise an error


def test_sensor_in_a_worker_never_defers(lake: Stage, feed: HandFeed, pauses: Pauses) -> None:
    pauses.then(lambda: None, feed.flush)
    sensor = LakeTSDurabilitySensor(task_id="x", chunks=lake.chunk(COLD), deferrable=False, poke_interval=7)

    sensor.execute(context())

    assert pauses.lengths == [7, 7]


@pytest.mark.parametrize("mode", ["poke", "reschedule"])
def test_a_lost_connection_does_not_end_the_wait_in_a_worker(
    lake: Stage,
    feed: HandFeed,
    lab: Lab,
    pauses: Pauses,
    impatient: None,
    monkeypatch: pytest.MonkeyPatch,
    mode: str,
) -> None:
    def reach(**where: Any) -> None:
        monkeypatch.setenv("AIRFLOW_CONN_LAKEBASE_DEFAULT", lab.connection(**where))

    def come_back() -> None:
        reach()
        feed.flush()

    sensor = LakeTSDurabilitySensor(task_id="x", table="metrics", deferrable=False, mode=mode)
    if mode == "poke":
        pauses.then(lambda: reach(host="127.0.0.1", port=1), lambda: None, come_back)
        sensor.execute(context())
        return
    reach(host="127.0.0.1", port=1)
    with pytest.raises(BaseException) as caught:  # noqa: PT011 - it is elsewhere in Airflow 3.1
        sensor.execute(rescheduled(task_reschedule_count=1))
    assert type(caught.value).__name__ == "AirflowRescheduleException"


@pytest.mark.parametrize("deferrable", [True, False], ids=["triggerer", "worker"])
def test_a_connection_that_does_not_work_fails_the_sensor_before_it_waits(
    lab: Lab, impatient: None, monkeypatch: pytest.MonkeyPatch, deferrable: bool
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_LAKEBASE_DEFAULT", lab.connection(host="127.0.0.1", port=1))
    sensor = LakeTSDurabilitySensor(task_id="x", table="metrics", deferrable=deferrable)

    with pytest.raises(LakebaseConnectionError, match="the login to 127"):
        sensor.execute(context())


@pytest.mark.parametrize("deferrable", [True, False], ids=["triggerer", "worker"])
def test_a_lock_does_not_end_the_wait(lake: Stage, feed: HandFeed, lab: Lab, deferrable: bool) -> None:
    instead_of_explaining(lab, "RAISE EXCEPTION 'busy' USING ERRCODE = '55P03';")
    sensor = LakeTSDurabilitySensor(
        task_id="x", chunks=lake.chunk(COLD), deferrable=deferrable, mode="reschedule"
    )

    with pytest.raises(BaseException) as caught:  # noqa: PT011 - it is elsewhere in Airflow 3.1
        sensor.execute(rescheduled())

    expected = "TaskDeferred" if deferrable else "AirflowRescheduleException"
    assert type(caught.value).__name__ == expected


def test_watermark_without_a_zone_is_utc_and_the_same_in_every_session(
    lake: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake.table(days=[1])
    lake.rollup("hourly")
    monkeypatch.setenv("AIRFLOW__OPERATORS__DEFAULT_DEFERRABLE", "True")
    sensor = LakeTSRollupFreshSensor(
        task_id="x",
        rollup="hourly",
        watermark="2024-01-01 13:00",
        max_lag=timedelta(minutes=90),
        deferrable=True,
    )

    trigger = deferral(sensor, context()).trigger

    assert (trigger.watermark, trigger.max_lag) == ("2024-01-01T13:00:00+00:00", "5400.0 seconds")


@pytest.mark.parametrize("rendered", ["None", ""])
def test_watermark_of_a_run_that_has_none_fails_for_good(lab: Lab, rendered: str) -> None:
    sensor = LakeTSRollupFreshSensor(task_id="x", rollup="hourly", watermark=rendered)

    with pytest.raises(Exception, match="this run has no such time") as caught:
        sensor.execute(context())

    assert type(caught.value).__name__ == "AirflowFailException"


def test_force_has_nothing_to_wait_for(lake: Stage, feed: HandFeed) -> None:
    task = LakeTSRetentionOperator(task_id="x", table="metrics", force=True, deferrable=True)

    result = task.execute(context())

    assert (len(result["dropped"]), result["deferred"]) == (4, [])


# How they end


def test_sensor_tells_what_was_waited_for_and_what_was_in_the_way() -> None:
    sensor = LakeTSDurabilitySensor(task_id="x", table="metrics", timeout=60)
    event = {"status": "timed_out", "waiting": {"metrics": "lags"}, "message": "no answer."}

    with pytest.raises(AirflowSensorTimeout) as caught:
        sensor.execute_complete(context(), event)

    assert str(caught.value) == "Timed out after 0:01:00.\nmetrics: lags\nno answer."


def test_a_sensor_may_be_tried_again_after_its_execution_timeout() -> None:
    sensor = LakeTSDurabilitySensor(task_id="x", table="metrics", execution_timeout=timedelta(seconds=60))

    with pytest.raises(AirflowTaskTimeout, match="Timed out after 0:01:00"):
        sensor.execute_complete(context(), {"status": "timed_out"})


@pytest.mark.parametrize("how", ["soft_fail", "never_fail"])
@pytest.mark.parametrize("limit", [None, timedelta(seconds=60)], ids=["timeout", "execution_timeout"])
@pytest.mark.parametrize(
    "resumed",
    [
        ("execute_complete", {"event": {"status": "timed_out"}}),
        ("__fail__", {"error": "Trigger timeout"}),
    ],
    ids=["of the trigger", "without a triggerer"],
)
def test_a_timeout_ends_a_deferred_sensor_as_its_author_wants(
    how: str, limit: timedelta | None, resumed: tuple[str, dict[str, Any]]
) -> None:
    wanted: dict[str, Any] = {how: True}
    sensor = LakeTSDurabilitySensor(task_id="x", table="metrics", execution_timeout=limit, **wanted)

    with pytest.raises(AirflowSkipException):
        sensor.resume_execution(*resumed, context())


def test_a_soft_and_silent_sensor_may_be_rescheduled_after_a_wait(lake: Stage, lab: Lab) -> None:
    lake.synced()
    sensor = LakeTSDurabilitySensor(
        task_id="x",
        chunks=lake.chunk(COLD),
        soft_fail=True,
        silent_fail=True,
        deferrable=True,
        mode="reschedule",
    )
    instead_of_explaining(lab, "RAISE EXCEPTION 'disk on fire' USING ERRCODE = '58030';")
    event = {"status": "failed", "message": "disk on fire", "retryable": True}

    with pytest.raises(AirflowRescheduleException):
        sensor.resume_execution("execute_complete", {"event": event}, rescheduled())


@pytest.mark.parametrize(
    ("how", "retryable", "outcome"),
    [
        ({}, False, "AirflowFailException"),
        ({}, True, "LakeTSError"),
        ({"soft_fail": True}, False, "AirflowSkipException"),
        ({"never_fail": True}, False, "AirflowSkipException"),
        ({"never_fail": True}, True, "AirflowSkipException"),
        ({"silent_fail": True}, False, "AirflowFailException"),
    ],
    ids=["for good", "for a retry", "soft", "never, for good", "never, for a retry", "silent, for good"],
)
def test_error_of_the_trigger_ends_the_sensor_as_its_author_wants(
    how: dict[str, Any], retryable: bool, outcome: str
) -> None:
    sensor = LakeTSDurabilitySensor(task_id="x", table="metrics", **how)
    event = {"status": "failed", "message": "LakeTS is gone", "retryable": retryable}

    with pytest.raises((LakeTSError, AirflowSkipException, Exception)) as caught:
        sensor.resume_execution("execute_complete", {"event": event}, context())

    assert type(caught.value).__name__ == outcome


@pytest.mark.parametrize("deferrable", [True, False], ids=["triggerer", "worker"])
@pytest.mark.parametrize("soft", [True, False], ids=["soft", "never"])
def test_error_of_the_first_check_ends_the_sensor_as_its_author_wants(
    lab: Lab, soft: bool, deferrable: bool
) -> None:
    sensor = LakeTSDurabilitySensor(
        task_id="x", table="nowhere", deferrable=deferrable, soft_fail=soft, never_fail=not soft
    )

    with pytest.raises(AirflowSkipException):
        sensor.execute(context())


def test_a_silent_sensor_waits_on_after_an_error_of_the_trigger(lake: Stage, feed: HandFeed) -> None:
    sensor = LakeTSDurabilitySensor(task_id="x", table="metrics", silent_fail=True, deferrable=True)
    event = {"status": "failed", "message": "disk on fire", "retryable": True}

    with pytest.raises(BaseException) as caught:  # noqa: PT011 - it is elsewhere in Airflow 3.1
        sensor.resume_execution("execute_complete", {"event": event}, context())

    assert type(caught.value).__name__ == "TaskDeferred"


def no_answer(task: Any, context: Any) -> Any:
    """Resume a task as the scheduler does when no triggerer took it in time."""
    return task.resume_execution("__fail__", {"error": "Trigger timeout"}, context)


def test_without_a_triggerer_the_operator_looks_again_itself(lake: Stage, feed: HandFeed) -> None:
    task = LakeTSTierOperator(task_id="x", chunks=lake.chunk(COLD), deferrable=True)
    shared = context()
    deferral(task, shared)
    feed.flush()

    (result,) = no_answer(task, shared)

    assert result["outcome"] == "tiered"


@pytest.mark.parametrize("kind", ["tier", "retention"])
def test_what_another_version_stored_before_the_wait_is_understood(
    lake: Stage, feed: HandFeed, kind: str
) -> None:
    chunk = lake.chunk(COLD)
    task: Any = LakeTSTierOperator(task_id="x", chunks=chunk, deferrable=True)
    if kind == "retention":
        task = LakeTSRetentionOperator(task_id="x", table="metrics", deferrable=True)
    shared = context()
    deferral(task, shared)
    stored = shared["ti"].xcom_pull(None, "return_value", None)
    for one in stored if kind == "tier" else [stored]:
        one["of_tomorrow"] = 1
    feed.flush()

    done = task.resume_execution("execute_complete", {"event": {"status": "reached"}}, shared)

    assert done[0]["outcome"] == "tiered" if kind == "tier" else chunk in done["dropped"]


def test_without_a_triggerer_the_sensor_times_out(lake: Stage, feed: HandFeed) -> None:
    sensor = LakeTSDurabilitySensor(task_id="x", table="metrics", deferrable=True)

    with pytest.raises(AirflowSensorTimeout):
        no_answer(sensor, context())


def test_a_trigger_that_broke_fails_the_operator(lake: Stage, feed: HandFeed) -> None:
    task = LakeTSTierOperator(task_id="x", chunks=lake.chunk(COLD), deferrable=True)

    with pytest.raises(Exception, match="Trigger failure") as caught:
        task.resume_execution("__fail__", {"error": "Trigger failure"}, context())

    assert not isinstance(caught.value, TaskDeferralTimeout)
