"""The limits of partitioned tables are as docs/limits.md says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import psycopg
import pytest

if TYPE_CHECKING:
    from tests.stage import Stage

DOCUMENT = Path(__file__).parents[2] / "docs/limits.md"
CONVERT = "SELECT lakets.create_chronotable('plain', 'at', '1 day')"


class Limit(NamedTuple):
    """What Postgres refuses on a ChronoTable, and what it allows instead."""

    message: str
    refused: str
    instead: str = "SELECT 1"
    until: int = 99  # the last version that refuses it
    before: str = "SELECT 1"


MOVER = (
    "CREATE FUNCTION later() RETURNS trigger LANGUAGE plpgsql AS"
    " $$ BEGIN NEW.at := NEW.at + interval '1 day'; RETURN NEW; END $$;"
    " CREATE TRIGGER later BEFORE INSERT ON metrics FOR EACH ROW EXECUTE FUNCTION later()"
)
EACH_CHUNK = (
    "CREATE INDEX by_value ON ONLY metrics (value);"
    "CREATE INDEX CONCURRENTLY by_value_1 ON metrics_20240101_000000 (value);"
    "ALTER INDEX by_value ATTACH PARTITION by_value_1"
)
LIMITS = {
    "a primary or unique key": Limit(
        "unique constraint on partitioned table must include all partitioning columns",
        "ALTER TABLE metrics ADD UNIQUE (id)",
        "ALTER TABLE metrics ADD UNIQUE (id, at)",
    ),
    "`ON CONFLICT`": Limit(
        "no unique or exclusion constraint matching the ON CONFLICT specification",
        "INSERT INTO metrics VALUES (1, '2024-01-01', 1) ON CONFLICT (id) DO NOTHING",
        "ALTER TABLE metrics ADD UNIQUE (id, at);"
        "INSERT INTO metrics VALUES (1, '2024-01-01', 1) ON CONFLICT (id, at) DO NOTHING",
    ),
    "an exclusion constraint": Limit(
        "exclusion constraints are not supported on partitioned tables"
        "|unique constraint on partitioned table must include all partitioning columns",
        "ALTER TABLE metrics ADD EXCLUDE USING btree (id WITH =)",
    ),
    "a foreign key": Limit(
        "cannot be partitioned while foreign keys point at it",
        CONVERT,
        "ALTER TABLE pointer DROP CONSTRAINT pointer_id_at_fkey;" + CONVERT,
        before="CREATE TABLE plain (id int, at timestamptz, PRIMARY KEY (id, at));"
        " CREATE TABLE pointer (id int, at timestamptz, FOREIGN KEY (id, at) REFERENCES plain)",
    ),
    "`CREATE INDEX CONCURRENTLY`": Limit(
        "cannot create index on partitioned table .* concurrently",
        "CREATE INDEX CONCURRENTLY ON metrics (value)",
        EACH_CHUNK,
    ),
    "`ADD FOREIGN KEY": Limit(
        "cannot add NOT VALID foreign key on partitioned table",
        "ALTER TABLE metrics ADD FOREIGN KEY (id) REFERENCES devices NOT VALID",
        "ALTER TABLE metrics ADD FOREIGN KEY (id) REFERENCES devices",
        until=17,
        before="CREATE TABLE devices (id int PRIMARY KEY); INSERT INTO devices VALUES (1)",
    ),
    "`CHECK ... NO INHERIT`": Limit(
        "cannot add NO INHERIT constraint to partitioned table",
        "ALTER TABLE metrics ADD CHECK (value > 0) NO INHERIT",
        "ALTER TABLE metrics ADD CHECK (value > 0)",
    ),
    "`ALTER COLUMN": Limit(
        "because it is part of the partition key",
        "ALTER TABLE metrics ALTER at TYPE timestamp",
    ),
    "storage parameters": Limit(
        "cannot specify storage parameters for a partitioned table|is not supported for partitioned tables"
        "|cannot be performed",
        "ALTER TABLE metrics SET (fillfactor = 70)",
        "ALTER TABLE metrics_default SET (fillfactor = 70)",
    ),
    "a row trigger": Limit(
        "transition tables",
        "CREATE TRIGGER t AFTER INSERT ON metrics REFERENCING NEW TABLE AS added"
        " FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()",
        "CREATE TRIGGER t AFTER INSERT ON metrics REFERENCING NEW TABLE AS added"
        " FOR EACH STATEMENT EXECUTE FUNCTION suppress_redundant_updates_trigger()",
    ),
    "a BEFORE row trigger": Limit(
        "moving row to another partition during a BEFORE FOR EACH ROW trigger is not supported",
        "INSERT INTO metrics VALUES (2, '2024-01-01 12:00+00', 2)",
        before=MOVER,
    ),
    "`COPY metrics TO`": Limit(
        "cannot copy from partitioned table",
        "COPY metrics TO '/dev/null'",
        "COPY (SELECT * FROM metrics) TO '/dev/null'",
    ),
}
ROWS = re.findall(r"^\| (.+?) \|.*\|$", DOCUMENT.read_text(), re.MULTILINE)[1:]


def test_each_documented_limit_is_tested() -> None:
    assert [[name for name in LIMITS if row.startswith(name)] for row in ROWS] == [[name] for name in LIMITS]


@pytest.mark.parametrize("name", LIMITS)
def test_a_chronotable_has_the_limit(stage: Stage, postgres_version: int, name: str) -> None:
    limit = LIMITS[name]
    stage.table(days=range(1, 3), keyed=False)
    stage.run("TRUNCATE metrics; INSERT INTO metrics VALUES (1, '2024-01-02 12:00+00', 1)")
    stage.run(limit.before)

    if postgres_version <= limit.until:
        with pytest.raises(psycopg.Error, match=limit.message):
            stage.run(limit.refused)
    else:
        stage.run(limit.refused)

    for statement in limit.instead.split(";"):
        stage.run(statement)


def test_storage_parameters_of_the_default_partition_go_to_new_chunks(stage: Stage) -> None:
    table_id = stage.table(days=[1])

    stage.run("ALTER TABLE metrics_default SET (fillfactor = 70)")
    stage.run(
        "SELECT lakets._ensure_partitions(%s, p_range_start => %s, p_range_end => %s)",
        table_id,
        stage.at(2),
        stage.at(3),
    )

    assert stage.run("SELECT reloptions FROM pg_class WHERE relname = 'metrics_20240102_000000'") == [
        (["fillfactor=70"],)
    ]
