"""A RollUp's table, or one in its query, is renamed or replaced: refreshes stop and report it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.stage import Raises, Stage


STRANGER = (
    "CREATE TABLE _rollup_hourly (LIKE {like} INCLUDING ALL);"
    "INSERT INTO _rollup_hourly VALUES ('2024-01-01 12:00+00', 7, 7), (NULL, 8, 8)"
)
CHANGES = {
    "renamed": "ALTER TABLE _rollup_hourly RENAME TO mine",
    "swapped": f"ALTER TABLE _rollup_hourly RENAME TO mine; {STRANGER.format(like='mine')}",
    "dropped": "DROP TABLE _rollup_hourly",
    "made again": "CREATE TABLE copy AS TABLE _rollup_hourly; DROP TABLE _rollup_hourly;"
    + STRANGER.format(like="copy"),
}
FOUND = {
    "renamed": "The table of RollUp hourly is now called public.mine.",
    "swapped": "The table of RollUp hourly is now called public.mine,"
    " and public._rollup_hourly is another one.",
    "dropped": "The table of RollUp hourly was dropped.",
    "made again": "The table of RollUp hourly was dropped, and public._rollup_hourly is another one.",
}
JOBS = {
    "refresh": "SELECT lakets.refresh_rollup('hourly', true)",
    "refresh of one above": "SELECT lakets.refresh_rollup('daily', true)",
    "mirror": "SELECT lakets.enable_sync('hourly')",
    "mirror no more": "SELECT lakets.disable_sync('hourly')",
    "view": "SELECT lakets.create_rollup_view('hourly', (SELECT query_text FROM lakets._rollup_registry"
    " WHERE name = 'hourly'))",
}


@pytest.fixture
def kept(stage: Stage) -> Stage:
    stage.once(make_kept)
    return stage


def make_kept(stage: Stage) -> None:
    stage.table()
    stage.rollup("hourly")


def tables(stage: Stage) -> dict[str, list[Any]]:
    """Return the rows of the RollUp's table by its old name, and of the table by its new name."""
    return {
        name: stage.run(f"SELECT * FROM {name} ORDER BY bucket, n")
        for name in ("_rollup_hourly", "mine")
        if stage.value("SELECT to_regclass(%s)", name)
    }


@pytest.mark.parametrize("job", JOBS)
@pytest.mark.parametrize("change", CHANGES)
def test_no_job_touches_what_is_not_the_table_of_the_rollup(
    kept: Stage, raises: Raises, change: str, job: str
) -> None:
    kept.rollup("daily", reads="hourly", every="1 day")
    kept.run(CHANGES[change])
    kept.run("UPDATE metrics SET value = value + 1")
    before = tables(kept)

    with raises("P0001") as refused:
        kept.run(JOBS[job])

    assert refused.value.diag.message_primary == FOUND[change]
    assert tables(kept) == before


def test_table_of_a_rollup_cannot_become_a_chronotable(kept: Stage, raises: Raises) -> None:
    with raises("P0001", match="public._rollup_hourly is the table of RollUp hourly"):
        kept.run("SELECT lakets.create_chronotable('_rollup_hourly', 'bucket')")

    assert kept.refresh("hourly")


@pytest.mark.parametrize("change", ["swapped", "made again"])
def test_no_rollup_is_built_on_another_table_of_that_name(kept: Stage, raises: Raises, change: str) -> None:
    kept.run(CHANGES[change])

    with raises("P0001", match="public._rollup_hourly is another one"):
        kept.run(
            "SELECT lakets.create_rollup('more', 'SELECT lakets.time_bucket(''1 day'', bucket) AS bucket,"
            " sum(n) AS n FROM _rollup_hourly GROUP BY 1', '1 day', p_depends_on => ARRAY['hourly'])"
        )


@pytest.mark.parametrize("drop", ["lakets.drop_rollup('hourly')", "lakets.drop_chronotable('metrics')"])
@pytest.mark.parametrize("synced", [False, True], ids=["", "synced"])
@pytest.mark.parametrize("change", CHANGES)
def test_a_drop_leaves_what_is_not_the_table_of_the_rollup(
    kept: Stage, change: str, synced: bool, drop: str
) -> None:
    if synced:
        kept.run("SELECT lakets.enable_sync('hourly')")
    kept.run(CHANGES[change])
    before = tables(kept)

    kept.run(f"SELECT {drop}")

    assert tables(kept) == before
    assert kept.run("SELECT name FROM lakets._rollup_registry") == []
    assert kept.run("SELECT proname FROM pg_proc WHERE proname ~ '^_track_rollup_[0-9]'") == []
    if "mine" in before:
        kept.run("DELETE FROM mine")  # an ordinary table now


def test_a_rollup_whose_table_has_its_name_back_goes_on(kept: Stage, raises: Raises) -> None:
    kept.run(CHANGES["swapped"])
    with raises("P0001"):
        kept.refresh("hourly")
    kept.run("DROP TABLE _rollup_hourly; ALTER TABLE mine RENAME TO _rollup_hourly")
    kept.run("UPDATE metrics SET value = value + 1")

    assert kept.refresh("hourly")
    assert kept.difference("hourly") == []


def test_an_install_passes_over_a_rollup_whose_table_is_another_one(kept: Stage) -> None:
    from airflow_provider_lakets.engine import install_script

    kept.rollup("other")
    kept.run(CHANGES["swapped"])
    before = tables(kept)

    kept.run(install_script())

    assert tables(kept) == before
    assert kept.refresh("other")


# What a query names


RENAMES = {
    "table": (
        "ALTER TABLE metrics RENAME TO counts",
        "Column at of public.metrics, which the query of RollUp hourly reads, is now called at of"
        " public.counts.",
    ),
    "value column": (
        "ALTER TABLE metrics RENAME COLUMN value TO amount",
        "Column value of public.metrics, which the query of RollUp hourly reads, is now called amount of"
        " public.metrics.",
    ),
    "time column": (
        'ALTER TABLE metrics RENAME COLUMN at TO "the time"',
        'Column at of public.metrics, which the query of RollUp hourly reads, is now called "the time" of'
        " public.metrics.",
    ),
    "dropped column": (
        "ALTER TABLE metrics DROP COLUMN value",
        "Column value of public.metrics, which the query of RollUp hourly reads, is not there any more.",
    ),
}


@pytest.mark.parametrize("what", RENAMES)
def test_a_refresh_says_what_was_renamed(kept: Stage, raises: Raises, what: str) -> None:
    change, found = RENAMES[what]
    kept.run(change)
    before = tables(kept)

    with raises("P0001") as refused:
        kept.refresh("hourly")

    assert refused.value.diag.message_primary == found
    assert "Give the table or the column its name back" in refused.value.diag.message_hint
    assert tables(kept) == before


@pytest.mark.parametrize(
    ("change", "back"),
    [
        ("RENAME TO counts", "ALTER TABLE counts RENAME TO metrics"),
        ("RENAME COLUMN value TO amount", "ALTER TABLE metrics RENAME COLUMN amount TO value"),
    ],
    ids=["table", "column"],
)
def test_nothing_written_meanwhile_is_lost_when_a_name_is_given_back(
    kept: Stage, raises: Raises, change: str, back: str
) -> None:
    kept.run(f"ALTER TABLE metrics {change}")
    name = "counts" if "counts" in change else "metrics"
    kept.run(f"INSERT INTO {name} VALUES (9, '2024-01-02 12:10+00', 9)")
    with raises("P0001"):
        kept.refresh("hourly")
    kept.run(back)

    assert kept.refresh("hourly")
    assert kept.difference("hourly") == []


def test_columns_that_changed_names_with_each_other_are_read_by_their_names(stage: Stage) -> None:
    stage.run("CREATE TABLE metrics (at timestamptz, value int, other int)")
    stage.run("SELECT lakets.create_chronotable('metrics', 'at', '1 day')")
    stage.run("INSERT INTO metrics VALUES ('2024-01-01', 1, 20)")
    stage.rollup("hourly")
    stage.run(
        "ALTER TABLE metrics RENAME COLUMN value TO x; ALTER TABLE metrics RENAME COLUMN other TO value;"
        "ALTER TABLE metrics RENAME COLUMN x TO other"
    )

    stage.refresh("hourly")

    assert stage.difference("hourly") == []
    assert stage.totals("hourly") == {"1 0": 20}
