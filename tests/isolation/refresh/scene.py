"""Shared helpers of the races of refreshes."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.isolation.conftest import Session


REFRESH = "SELECT lakets.refresh_rollup(%s, true)"
# So many that a refresh lets go of them once it has absorbed them.
MANY_CHANGES = (
    "DO $$ BEGIN FOR turn IN 1 .. 100 LOOP UPDATE metrics SET value = value WHERE id = 4; END LOOP; END $$"
)


def change_all(writer: Session) -> None:
    """Change the source in every way: insert, new bucket, move within and across chunks, delete."""
    writer.run("INSERT INTO metrics VALUES (10, '2024-01-01 12:30+00', 10), (11, '2024-01-04 23:00+00', 11)")
    writer.run("UPDATE metrics SET at = at + interval '3 hours' WHERE id = 2")
    writer.run("UPDATE metrics SET at = at - interval '2 days' WHERE id = 3")
    writer.run("UPDATE metrics SET value = -1 WHERE id = 1")
    writer.run("DELETE FROM metrics WHERE id = 4")
    with writer.conn.cursor().copy("COPY metrics FROM STDIN") as copy:
        copy.write_row((12, "2024-01-02 01:00+00", 12))
