"""The sample DAGs run by hand: some tables only, dry runs, and force, which must be approved."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow.sdk import DAG

    from tests.dags.conftest import Run
    from tests.lab import Lab

    RunDag = Callable[..., Run]


@pytest.fixture
def engine() -> str:
    """Our engine: what differs with LakeTS 0.1.x is tried on the hook."""
    return "ours"


def state(lab: Lab) -> list[Any]:
    return [
        lab.values(f"SELECT r::text FROM lakets.{name} AS r ORDER BY 1")
        for name in ("_chunk_metadata", "_policy_registry", "_rollup_registry", "_feed_proof")
    ]


# Tables


def test_tiering_is_for_the_tables_named_only(samples: dict[str, DAG], run: RunDag, lab: Lab) -> None:
    for name in ("flights", "weather"):
        lab.synced(name, days=8)
        lab.flush(name)

    done = run(samples["lakets_tiering"], tables=["public.weather"])

    assert {one["name"].rsplit("_", 2)[0] for one in done.result("tier")} == {"public.weather"}


def test_retention_is_for_the_tables_named_only(samples: dict[str, DAG], run: RunDag, lab: Lab) -> None:
    for name in ("flights", "weather"):
        lab.synced(name, days=8)
        lab.flush(name)

    done = run(samples["lakets_retention"], tables=["weather"])

    assert done.names["drop_expired"] == ["public.weather"]


def test_a_table_without_a_policy_is_nothing_to_do(samples: dict[str, DAG], run: RunDag, lab: Lab) -> None:
    lab.table("metrics")

    done = run(samples["lakets_retention"], tables=["metrics"])

    assert (done.state, done.states["drop_expired"]) == ("success", "skipped")


def test_a_rollup_may_be_named(samples: dict[str, DAG], run: RunDag, lab: Lab) -> None:
    lab.table("metrics", days=2)
    lab.rollup("hourly")
    lab.rollup("apart")

    done = run(samples["lakets_rollup_refresh"], rollup="hourly")

    assert [one["name"] for one in done.result("refresh")] == ["hourly"]


# Dry runs


def test_dry_run_of_the_partition_manager_tells_what_is_missing(
    samples: dict[str, DAG], run: RunDag, lab: Lab
) -> None:
    lab.table("metrics")
    before = state(lab)

    done = run(
        samples["lakets_partition_manager"],
        dry_run=True,
        start="2024-02-28T00:00:00Z",
        end="2024-02-29T00:00:00Z",
    )

    (plan,) = done.result("ensure_partitions")
    assert (plan["dry_run"], plan["planned"]) == (True, ["public.metrics_20240228_000000"])
    assert state(lab) == before


def test_dry_run_of_tiering_tells_what_would_be_flagged(
    samples: dict[str, DAG], run: RunDag, lab: Lab
) -> None:
    lab.synced(days=8)
    lab.flush()
    before = state(lab)

    done = run(samples["lakets_tiering"], dry_run=True)

    plans = done.result("tier")
    assert {(plan["outcome"], plan["dry_run"]) for plan in plans} == {("planned", True)}
    assert done.result("summary")["counts"] == {"planned": len(plans)}
    assert state(lab) == before


def test_dry_run_of_retention_tells_what_would_be_dropped_and_what_not(
    samples: dict[str, DAG], run: RunDag, lab: Lab
) -> None:
    lab.synced("flights", days=8)
    lab.synced("weather", days=8)
    lab.flush("flights")
    before = state(lab)

    done = run(samples["lakets_retention"], dry_run=True)

    flights, weather = done.results("drop_expired")
    assert (flights["outcome"], weather["outcome"]) == ("planned", "deferred")
    summary = done.result("summary")
    assert summary["counts"] == {"planned": len(flights["planned"]), "deferred": len(weather["deferred"])}
    assert "not durable" in summary["reasons"][0]["reason"]
    assert state(lab) == before


def test_dry_run_of_the_rollups_tells_their_order(samples: dict[str, DAG], run: RunDag, lab: Lab) -> None:
    lab.table("metrics", days=2)
    lab.rollup("hourly")
    lab.rollup("a_daily", reads="hourly")
    lab.conn.execute("INSERT INTO metrics VALUES (now(), 'b', 1)")
    before = state(lab)

    done = run(samples["lakets_rollup_refresh"], dry_run=True)

    assert [(plan["name"], plan["outcome"]) for plan in done.result("refresh")] == [
        ("hourly", "planned"),
        ("a_daily", "planned"),
    ]
    assert state(lab) == before


# Force


class Human:
    """Whom the approval task asks: notes the question, and answers it."""

    def __init__(self, answer: str) -> None:
        self.answer = answer
        self.asked: list[str] = []
        self.form: list[dict[str, Any]] = []

    def ask(self, task: Any, context: Any) -> Any:
        self.asked.append(task.body)
        self.form.append(dict(task.params))
        event = {
            "chosen_options": [self.answer],
            "params_input": {},
            "responded_at": datetime.now(timezone.utc),
            "responded_by_user": None,
        }
        return task.execute_complete(context, event)


@pytest.fixture
def human(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Human:
    """Answer at once where Airflow would wait for somebody to click."""
    from airflow.providers.standard.operators.hitl import HITLOperator

    human = Human(getattr(request, "param", "Approve"))
    monkeypatch.setattr(HITLOperator, "execute", lambda task, context: human.ask(task, context))
    return human


def test_without_force_nobody_is_asked(samples: dict[str, DAG], run: RunDag, lab: Lab, human: Human) -> None:
    lab.synced(days=8)

    done = run(samples["lakets_retention"])

    assert (done.state, human.asked) == ("success", [])
    assert done.result("drop_expired")["dropped"] == []


def test_force_is_asked_about_with_what_would_be_lost_and_then_drops_it(
    samples: dict[str, DAG], run: RunDag, lab: Lab, human: Human
) -> None:
    lab.synced(days=8)

    done = run(samples["lakets_retention"], force=True)

    dropped = done.result("drop_expired")["dropped"]
    assert (done.state, len(dropped)) == ("success", 4)
    (question,) = human.asked
    assert "`public.metrics`: 4 chunk(s) would be dropped, **4 of them unsafe**" in question
    assert "not durable: " in question


@pytest.mark.parametrize("human", ["Reject"], indirect=True)
def test_a_rejection_leaves_everything_in_place(
    samples: dict[str, DAG], run: RunDag, lab: Lab, human: Human
) -> None:
    lab.synced(days=8)

    done = run(samples["lakets_retention"], force=True)

    assert (done.state, done.states["drop_expired"], len(human.asked)) == ("success", "skipped", 1)
    assert lab.value("SELECT count(*) FROM metrics") == 8


def test_dry_run_of_force_asks_nobody_and_drops_nothing(
    samples: dict[str, DAG], run: RunDag, lab: Lab, human: Human
) -> None:
    lab.synced(days=8)

    done = run(samples["lakets_retention"], force=True, dry_run=True)

    assert human.asked == []
    assert len(done.result("drop_expired")["planned"]) == 4
    assert lab.value("SELECT count(*) FROM metrics") == 8


def test_the_form_of_the_answer_does_not_ask_for_the_params_again(
    samples: dict[str, DAG], run: RunDag, lab: Lab, human: Human
) -> None:
    lab.synced(days=8)

    run(samples["lakets_retention"], force=True)

    assert human.form == [{}]
