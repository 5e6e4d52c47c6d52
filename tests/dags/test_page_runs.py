"""What the page shows about the last runs of DAGs, from Airflow's own database."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_lakets.plugin.runs import last_runs, outcomes_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow.sdk import DAG

    from tests.dags.conftest import Run
    from tests.lab import Lab


@pytest.fixture
def engine() -> str:
    return "ours"


def test_the_last_run_of_a_dag_is_known_with_what_its_tasks_reported(
    samples: dict[str, Any], run: Callable[[DAG], Run], lab: Lab
) -> None:
    lab.synced(days=8)
    lab.flush()
    done = run(samples["lakets_tiering"])

    found = last_runs(["lakets_tiering"], limit=1)

    assert [(one.dag_id, str(one.state), one.path.rpartition("/")[0]) for one in found] == [
        ("lakets_tiering", "success", "dags/lakets_tiering/runs")
    ]
    # Those of the mapped tasks; the summary has counts but no outcome.
    assert found[0].outcomes == {"tiered": len(done.result("tier"))}
    assert last_runs(["lakets_tiering"], limit=0) == last_runs([]) == []


@pytest.mark.parametrize(
    ("value", "outcomes"),
    [
        ([{"outcome": "tiered"}, {"outcome": "tiered"}, {"outcome": "failed"}], {"tiered": 2, "failed": 1}),
        ({"outcome": "trimmed", "dropped": [], "deferred": []}, {"trimmed": 1}),
        (
            [
                {"outcome": "dropped", "dropped": ["a_1", "a_2"], "deferred": [{"chunk": "a_3"}]},
                {"outcome": "failed", "dropped": ["b_1"]},
            ],
            {"dropped": 3, "deferred": 1, "failed": 1},
        ),
        ({"outcome": "created", "created": ["a_1", "a_2"]}, {"created": 2}),
        ({"outcome": "planned", "planned": ["a_1", "a_2"]}, {"planned": 2}),
        ({"outcome": "theirs", "dropped": 7}, {"theirs": 1}),
        ('[{"outcome": "tiered"}]', {"tiered": 1}),  # as Airflow 3.1 stores it
        ("tiered", {}),
        ([["public.metrics_1"]], {}),
        ({"outcome": ["tiered"]}, {}),
        (None, {}),
    ],
)
def test_only_results_of_jobs_are_counted(value: Any, outcomes: dict[str, int]) -> None:
    assert outcomes_of(value) == outcomes
