"""A shadow that was renamed, moved or dropped by hand: writes fail, and nothing is lost."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.sql.mirror.scene import mirror, missed, problem

if TYPE_CHECKING:
    from tests.sandbox import Sandbox

CHANGES = {
    "renamed": (
        "ALTER TABLE lakets_cdf._shadow_metrics RENAME TO mine",
        "ALTER TABLE lakets_cdf.mine RENAME TO _shadow_metrics",
    ),
    "moved": (
        "ALTER TABLE lakets_cdf._shadow_metrics SET SCHEMA public",
        "ALTER TABLE public._shadow_metrics SET SCHEMA lakets_cdf",
    ),
    "schema renamed": (
        "ALTER SCHEMA lakets_cdf RENAME TO mine; CREATE SCHEMA lakets_cdf",
        "DROP SCHEMA lakets_cdf; ALTER SCHEMA mine RENAME TO lakets_cdf",
    ),
}
WRITES = (
    "INSERT INTO metrics (id, ts) VALUES (71, '2024-01-09')",
    "UPDATE metrics SET v = 'x' WHERE id < 9",
    "DELETE FROM metrics WHERE id < 9",
)
TRACK = "SELECT lakets._track_chronotable(id) FROM lakets._chronotable_registry"


@pytest.mark.parametrize("shape", ["key", "no key"])
@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("write", WRITES)
def test_writes_fail_until_the_shadow_has_its_name_again(
    db: Sandbox, shape: str, change: str, write: str
) -> None:
    mirror(db, shape)
    there, back = CHANGES[change]
    db.run(there)
    with db.refused("42P01", "lakets_cdf._shadow_metrics"):
        db.run(write)

    db.run(back)
    db.run(write)

    assert db.mirror_difference() == []
    assert missed(db) == 0


@pytest.mark.parametrize("again", [None, TRACK], ids=["only then", "then again"])
@pytest.mark.parametrize("change", CHANGES)
def test_what_is_written_while_the_triggers_know_no_shadow_is_compared(
    db: Sandbox, change: str, again: str | None
) -> None:
    mirror(db, "key")
    assert problem(db) is None
    there, back = CHANGES[change]
    db.run(there)
    db.run(TRACK)  # as an install does
    for write in WRITES:
        db.run(write)
    db.run(back)
    if again:
        db.run(again)
    assert problem(db) is not None

    db.sync()

    assert problem(db) is None
    assert db.mirror_difference() == []
    db.run("UPDATE metrics SET v = 'y'")
    assert db.mirror_difference() == []


def test_a_shadow_that_was_dropped_is_made_again(db: Sandbox) -> None:
    mirror(db, "key")
    db.run("DROP TABLE lakets_cdf._shadow_metrics")
    with db.refused("42P01", "lakets_cdf._shadow_metrics"):
        db.run(WRITES[0])

    db.sync()
    for write in WRITES:
        db.run(write)

    assert db.mirror_difference() == []
    assert missed(db) == 0
    assert problem(db) is None
