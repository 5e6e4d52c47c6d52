"""Rows that LakeTS moves between tables arrive, or none is moved, whatever is on the tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.sandbox import Sandbox

SWALLOW = (
    "CREATE FUNCTION public.swallow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;"
    "CREATE FUNCTION public.postpone() RETURNS trigger LANGUAGE plpgsql AS"
    " $$ BEGIN NEW.ts := NEW.ts + interval '1 s'; RETURN NEW; END $$;"
)
TRIGGER = "CREATE TRIGGER odd BEFORE {} ON {} FOR EACH ROW EXECUTE FUNCTION public.{}()"
POLICY = "ALTER TABLE {} ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY"
# A tool that does something to every new table, which is {}.
TOOL = (
    "CREATE FUNCTION public.tool() RETURNS event_trigger LANGUAGE plpgsql AS $tool$ DECLARE new record; BEGIN"
    " FOR new IN SELECT * FROM pg_event_trigger_ddl_commands() WHERE object_type = 'table' LOOP"
    "   IF (SELECT relkind = '%(kind)s' FROM pg_class WHERE oid = new.objid) THEN"
    "     EXECUTE replace($$%(do)s$$, '{}', new.objid::regclass::text); END IF;"
    " END LOOP; END $tool$;"
    " CREATE EVENT TRIGGER tool ON ddl_command_end WHEN TAG IN ('CREATE TABLE')"
    " EXECUTE FUNCTION public.tool()"
)
SWALLOWS, POSTPONES = (TRIGGER.format("INSERT", "{}", does) for does in ("swallow", "postpone"))
RULE = "CREATE RULE odd AS ON INSERT TO {} DO INSTEAD NOTHING"


def tool(db: Sandbox, kind: str, do: str) -> None:
    db.conn.execute((TOOL % {"kind": kind, "do": do}).encode())


@pytest.fixture
def waiting(db: Sandbox) -> Sandbox:
    """Make a synced ChronoTable with rows that wait for their chunks."""
    db.run(SWALLOW)
    db.chronotable("ts timestamptz, value int", synced=True)
    db.run(
        "INSERT INTO metrics SELECT '2024-01-01'::timestamptz + n * interval '1 h', n FROM"
        " generate_series(1, 50) AS n"
    )
    return db


PARTITIONS = "SELECT lakets._ensure_partitions(id) FROM lakets._chronotable_registry"
ROWS = "SELECT count(*), sum(value), min(ts)::text, max(ts)::text FROM metrics"


@pytest.mark.parametrize("where", ["metrics", "metrics_default"])
@pytest.mark.parametrize("event", ["INSERT", "DELETE", "INSERT OR DELETE"])
@pytest.mark.parametrize("does", ["swallow", "postpone"])
def test_rows_move_to_their_chunks_whatever_triggers_there_are(
    waiting: Sandbox, where: str, event: str, does: str
) -> None:
    before = waiting.run(ROWS)
    waiting.run(TRIGGER.format(event, where, does))

    waiting.run(PARTITIONS)

    assert waiting.run(ROWS) == before
    assert waiting.value("SELECT count(*) FROM metrics_default") == 0
    assert waiting.mirror_difference() == []


@pytest.mark.parametrize("do", [SWALLOWS, POSTPONES])
def test_rows_move_to_chunks_on_which_a_tool_puts_a_trigger(waiting: Sandbox, do: str) -> None:
    before = waiting.run(ROWS)
    tool(waiting, "r", do)

    waiting.run(PARTITIONS)

    assert waiting.run(ROWS) == before
    assert waiting.value("SELECT count(*) FROM metrics_default") == 0


REDIRECTS = "CREATE RULE odd AS ON {} TO {} DO INSTEAD {} RETURNING *"


@pytest.mark.parametrize(
    "rule",
    [
        "CREATE RULE odd AS ON DELETE TO metrics_default DO INSTEAD NOTHING",
        "CREATE RULE odd AS ON DELETE TO metrics_default DO ALSO DELETE FROM elsewhere",
        REDIRECTS.format("DELETE", "metrics_default", "DELETE FROM elsewhere"),
    ],
    ids=["nothing", "also", "redirects"],
)
def test_rows_that_a_rule_keeps_stay_and_other_chunks_are_made(waiting: Sandbox, rule: str) -> None:
    waiting.run("CREATE TABLE elsewhere (LIKE metrics)")
    before = waiting.run(ROWS)
    waiting.run(rule)
    partitions = PARTITIONS.replace("id", "id, p_range_start => '2024-01-01', p_range_end => '2024-01-09'")

    assert waiting.value(partitions) == 5
    with waiting.refused("raise_exception", match=r"because of: rule odd on public.metrics_default\."):
        waiting.run(partitions)

    assert waiting.run(ROWS) == before
    waiting.run("DROP RULE odd ON metrics_default")
    assert waiting.value(partitions) == 3
    assert waiting.run(ROWS) == before


@pytest.mark.parametrize(
    "rule", [RULE, REDIRECTS.format("INSERT", "{}", "INSERT INTO public.elsewhere VALUES (NEW.*)")]
)
def test_no_row_moves_to_a_chunk_on_which_a_tool_puts_a_rule(waiting: Sandbox, rule: str) -> None:
    waiting.run("CREATE TABLE elsewhere (LIKE metrics)")
    before = waiting.run(ROWS)
    tool(waiting, "r", rule)

    with waiting.refused("raise_exception", match=r"because of: rule odd on public.metrics_2"):
        waiting.run(PARTITIONS)

    assert waiting.run(ROWS) == before


# Of a partition no rule is used: the statement names the table.
@pytest.mark.parametrize(
    ("kind", "do"), [("p", SWALLOWS), ("p", POSTPONES), ("p", RULE), ("r", SWALLOWS), ("r", POSTPONES)]
)
def test_a_table_is_not_converted_if_a_tool_would_discard_its_rows(db: Sandbox, kind: str, do: str) -> None:
    db.run(SWALLOW)
    db.run("CREATE TABLE metrics (ts timestamptz, value int)")
    db.run(
        "INSERT INTO metrics SELECT '2024-01-01'::timestamptz + n * interval '1 h', n FROM"
        " generate_series(1, 50) AS n"
    )
    before = db.run(ROWS)
    tool(db, kind, do)

    with db.refused(
        "raise_exception", match="rows of public.metrics cannot be copied: .* (trigger|rule) odd"
    ):
        db.run("SELECT lakets.create_chronotable('metrics', 'ts')")

    assert db.run(ROWS) == before
    db.run("ALTER EVENT TRIGGER tool DISABLE")
    db.run("SELECT lakets.create_chronotable('metrics', 'ts')")
    assert db.run(ROWS) == before


def test_an_empty_table_is_converted_though_a_tool_puts_triggers_on_new_tables(db: Sandbox) -> None:
    db.run(SWALLOW)
    db.run("CREATE TABLE metrics (ts timestamptz, value int)")
    tool(db, "p", TRIGGER.format("INSERT", "{}", "postpone"))

    db.run("SELECT lakets.create_chronotable('metrics', 'ts')")


def test_a_default_partition_whose_rows_a_policy_hides_is_compared_with_its_mirror(db: Sandbox) -> None:
    """Of a role that the policy applies to: it does not to a superuser."""
    db.run(
        "CREATE ROLE tables_owner;"
        " GRANT ALL ON SCHEMA public, lakets, lakets_cdf TO tables_owner;"
        " GRANT ALL ON ALL TABLES IN SCHEMA lakets TO tables_owner;"
        " GRANT ALL ON ALL SEQUENCES IN SCHEMA lakets TO tables_owner"
    )
    db.run(f"GRANT CREATE ON DATABASE {db.conn.info.dbname} TO tables_owner")
    db.run("SET LOCAL ROLE tables_owner")
    table_id = db.chronotable("ts timestamptz, value int", synced=True)
    db.run("INSERT INTO metrics VALUES ('2024-01-01', 1)")
    db.run(f"DELETE FROM {db.shadow()}; INSERT INTO lakets._mirror_gap VALUES ('{db.shadow()}')")
    db.run(POLICY.format("metrics_default"))

    db.run("SELECT lakets.compare_chunks('metrics')")

    compared = "SELECT compared @> '2024-01-01+00'::timestamptz FROM lakets._mirror_check"
    assert db.column(compared) == [False]
    # The job says that rows are hidden; it drops none.
    with db.refused("insufficient_privilege", match="affected by row-level security policy"):
        db.run(
            "SELECT lakets._ensure_partitions(%s, p_range_start => '2024-01-01+00',"
            " p_range_end => '2024-01-02+00')",
            table_id,
        )
