"""Manual runs of the sample DAGs: selected tables, dry runs, and force, which must be approved."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_lakets.jobs import lakets_dags

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow.sdk import DAG

    from tests.dags.conftest import Run
    from tests.lab import Lab

    RunDag = Callable[..., Run]


@pytest.fixture
def engine() -> str:
    """Use only our engine; tests of the hook cover the differences of LakeTS 0.1.x."""
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


# The value of an empty field in the trigger form


@pytest.mark.parametrize("tables", [None, ["  ", ""]], ids=repr)
def test_no_table_in_the_form_is_all_tables(
    samples: dict[str, DAG], run: RunDag, lab: Lab, tables: Any
) -> None:
    for name in ("flights", "weather"):
        lab.synced(name, days=8)

    partitions = run(samples["lakets_partition_manager"], tables=tables)
    candidates = run(samples["lakets_tiering"], tables=tables)
    retention = run(samples["lakets_retention"], tables=tables)

    both = ["public.flights", "public.weather"]
    assert [one["name"] for one in partitions.result("ensure_partitions")] == both
    assert candidates.state == "success"
    assert retention.names["drop_expired"] == both


def test_an_empty_line_in_the_form_is_no_table(samples: dict[str, DAG], run: RunDag, lab: Lab) -> None:
    for name in ("flights", "weather"):
        lab.synced(name, days=8)

    done = run(samples["lakets_retention"], tables=["public.weather ", ""])

    assert done.names["drop_expired"] == ["public.weather"]


@pytest.mark.parametrize("rollup", [None, " "], ids=repr)
def test_no_rollup_in_the_form_is_every_rollup(
    samples: dict[str, DAG], run: RunDag, lab: Lab, rollup: str | None
) -> None:
    lab.table("metrics", days=2)
    lab.rollup("hourly")
    lab.rollup("apart")

    done = run(samples["lakets_rollup_refresh"], rollup=rollup)

    assert {one["name"] for one in done.result("refresh")} == {"hourly", "apart"}


@pytest.mark.parametrize("name", ["007", "it's"])
def test_a_rollup_may_be_called_like_a_number_or_anything_else(
    samples: dict[str, DAG], run: RunDag, lab: Lab, name: str
) -> None:
    lab.table("metrics", days=2)
    lab.rollup(name)
    lab.rollup("apart")

    done = run(samples["lakets_rollup_refresh"], rollup=name)

    assert [one["name"] for one in done.result("refresh")] == [name]


def test_switches_that_are_sent_as_null_are_off(samples: dict[str, DAG], run: RunDag, lab: Lab) -> None:
    lab.table("metrics", days=8)
    lab.conn.execute("SELECT lakets.add_retention_policy('metrics', '4 days')")

    done = run(samples["lakets_retention"], force=None, dry_run=None)

    assert done.result("drop_expired")["outcome"] == "dropped"


@pytest.mark.parametrize(
    "job", ["lakets_partition_manager", "lakets_tiering", "lakets_retention", "lakets_rollup_refresh"]
)
def test_every_field_of_the_form_has_a_title_and_none_is_marked_as_required(
    samples: dict[str, DAG], job: str
) -> None:
    dag: Any = samples[job]
    params = [dag.params.get_param(name) for name in dag.params]

    schemas = [param.schema for param in params]
    assert all(schema["title"] and schema["section"] and "null" in schema["type"] for schema in schemas)
    assert all("null" not in str(param.description) for param in params)


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
    """Records the request of the approval task, and responds to it."""

    def __init__(self, answer: str) -> None:
        self.answer = answer
        self.asked: list[str] = []
        self.form: list[dict[str, Any]] = []
        self.meanwhile: Callable[[], object] = bool

    def ask(self, task: Any, context: Any) -> Any:
        self.meanwhile()
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
    """Respond at once where Airflow would wait for a user."""
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
    first, *_ = lab.old_chunks()
    (line,) = [line for line in question.splitlines() if f"`{first}`" in line]
    assert " to 2" in line
    assert "kB" in line
    assert "row" in line
    assert "Connection: `lakebase_default`. Without an answer by 2" in question


@pytest.mark.parametrize("where", ["sample", "made"])
def test_chunks_that_become_due_while_the_approval_waits_stay(
    samples: dict[str, DAG], run: RunDag, lab: Lab, human: Human, where: str
) -> None:
    lab.synced(days=8)
    made = lakets_dags("made", jobs=["retention"])
    dag = samples["lakets_retention"] if where == "sample" else made["retention"]
    human.meanwhile = lambda: lab.conn.execute(
        "SELECT lakets.remove_retention_policy('metrics');"
        " SELECT lakets.add_tiered_retention_policy('metrics', '1 day', '2 days')"
    )

    done = run(dag, force=True)

    task = "drop_expired"
    result = done.result(task)
    assert (len(result["dropped"]), len(result["deferred"])) == (4, 2)
    assert all("no force is approved" in stays["reason"] for stays in result["deferred"])


def test_the_question_is_bounded_and_begins_with_what_is_unsafe(
    samples: dict[str, DAG], run: RunDag, lab: Lab, human: Human
) -> None:
    lab.table("a_safe", days=30)
    lab.conn.execute("SELECT lakets.add_retention_policy('a_safe', '4 days')")
    lab.synced(days=8)

    run(samples["lakets_retention"], force=True)

    (question,) = human.asked
    lines = question.splitlines()
    unsafe, safe = (lines.index(line) for line in lines if line.startswith("- `public."))
    assert "metrics" in lines[unsafe]
    assert len(lines[safe:]) == 12  # the table, ten chunks, and how many more
    assert lines[-1].endswith("more chunk(s)")


def test_nobody_is_asked_where_it_is_not_known_what_would_be_dropped(
    samples: dict[str, DAG], run: RunDag, lab: Lab, human: Human
) -> None:
    lab.synced(days=8)
    lab.conn.execute("DROP FUNCTION lakets._retention_gaps CASCADE")
    samples["lakets_retention"].get_task("approve_force").retries = 0

    done = run(samples["lakets_retention"], force=True)

    assert (done.states["approve_force"], human.asked) == ("failed", [])


def test_a_cleared_approval_fails_if_airflow_would_show_an_old_list(
    samples: dict[str, DAG], run: RunDag, clear: Callable[[DAG, Run], Run], lab: Lab, human: Human
) -> None:
    lab.synced(days=8)
    dag = samples["lakets_retention"]
    approval: Any = dag.get_task("approve_force")
    approval.assigned_users = [{"id": "ann", "name": "Ann"}]
    human.answer = "Reject"
    first = run(dag, force=True)

    again = clear(dag, first)
    human.answer = "Approve"
    lab.conn.execute("SELECT lakets.remove_retention_policy('metrics')")
    lab.conn.execute("SELECT lakets.add_tiered_retention_policy('metrics', '1 day', '2 days')")
    changed = clear(dag, first)

    assert (first.states["approve_force"], again.states["approve_force"]) == ("success", "success")
    assert changed.states["approve_force"] == "failed"
    assert "Start a new run" in str(changed.errors[0])
    assert len(human.asked) == 2
    assert lab.value("SELECT count(*) FROM metrics") == 8


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
