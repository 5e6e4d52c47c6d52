"""
The conditions that sensors and triggers wait for, as questions to a database.

A watch is a generator. It yields one question after another and receives the rows of each. It
returns what is still missing, by name, with the reason. Sensors answer the questions with the
session of a hook, triggers with an asynchronous session; the questions are the same.
"""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg.rows import dict_row

from airflow_provider_lakets import older
from airflow_provider_lakets.exceptions import LakebaseConnectionError, LakeTSArgumentError, LakeTSError
from airflow_provider_lakets.hooks._errors import translate
from airflow_provider_lakets.hooks._session import hang_up
from airflow_provider_lakets.hooks.functions.rows import unquoted

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from airflow_provider_lakets.hooks.lakets import LakeTSHook

Row = dict[str, Any]
Waiting = dict[str, str]

# Longer than the statement timeout of a trigger. If a proxy keeps a connection open whose server is
# gone, no answer and no error would ever come.
ANSWER_SECONDS = 6 * 60.0


@dataclass(frozen=True)
class Question:
    """
    A statement that runs in a separate transaction.

    :param query: The statement.
    :param parameters: Its parameters.
    :param doing: What the statement does, for error messages.
    :param may_fail: Whether to ignore an error and return no rows.
    """

    query: str
    parameters: Row = field(default_factory=dict)
    doing: str = ""
    may_fail: bool = False

    def ask(self, conn: psycopg.Connection[Any]) -> list[Row]:
        """Return the rows."""
        with conn.cursor(row_factory=dict_row) as cursor:
            return cursor.execute(self.query, self.parameters).fetchall()

    async def aask(self, conn: psycopg.AsyncConnection[Any]) -> list[Row]:
        """Return the rows, within an event loop; end the session if there is no answer."""
        # A timeout of asyncio cancels the statement, which psycopg before 3.3.9 waits for in vain.
        timer = asyncio.get_running_loop().call_later(ANSWER_SECONDS, hang_up, conn)
        try:
            async with conn.cursor(row_factory=dict_row) as cursor:
                await cursor.execute(self.query, self.parameters)
                return await cursor.fetchall()
        finally:
            timer.cancel()

    def ignores(self, error: LakeTSError) -> bool:
        """Return whether to ignore an error; a lost session is never ignored."""
        return self.may_fail and not isinstance(error, LakebaseConnectionError)


Watch = Generator[Question, list[Row], Waiting]


def look(hook: LakeTSHook, watch: Watch) -> Waiting:
    """
    Check once, and return what is still missing.

    :param hook: The hook, which logs in once and repeats an interrupted call.
    :param watch: The questions.
    """
    with hook.session():
        try:
            question = next(watch)
            while True:
                try:
                    rows = hook.run_in_session(
                        question.ask, doing=question.doing, repeatable=not question.may_fail
                    )
                except LakeTSError as err:
                    if not question.ignores(err):
                        raise
                    rows = []
                question = watch.send(rows)
        except StopIteration as done:
            return dict(done.value)


async def alook(hook: LakeTSHook, watch: Watch) -> Waiting:
    """
    Check once within an event loop, and return what is still missing; repeats no call.

    :param hook: The hook, which logs in once. The session is closed at the end or on cancellation.
    :param watch: The questions.
    """
    async with await hook.aget_conn() as conn:
        role = conn.info.user  # not available after the session is lost
        try:
            question = next(watch)
            while True:
                try:
                    rows = await question.aask(conn)
                except psycopg.Error as err:
                    failure = translate(err, doing=question.doing, role=role, conn_id=hook.get_conn_id())
                    if not question.ignores(failure):
                        raise failure from err
                    rows = []
                question = watch.send(rows)
        except StopIteration as done:
            return dict(done.value)


def _function(signature: str) -> Question:
    """Check whether the installed LakeTS has a function."""
    query = "SELECT pg_catalog.to_regprocedure(%(function)s) IS NOT NULL AS there"
    return Question(query, {"function": signature}, doing=f"Looking for {signature}")


EXPLAINED = """
SELECT wanted.chunk_name, chunk.chronotable_id,
       lakets.explain_durability(p_chunk_name => wanted.chunk_name) AS gap,
       coalesce(chunk.status = 'dropped' AND chunk.tiered_at IS NULL, false) AS is_lost
  FROM unnest(%(chunks)s::text[]) AS wanted (chunk_name)
  LEFT JOIN lakets._chunk_metadata AS chunk ON chunk.chunk_name = wanted.chunk_name
"""


def durable(chunks: Sequence[str], *, may_flag: bool = False) -> Watch:
    """
    Wait until chunks are proved durable in Unity Catalog.

    :param chunks: The names of the chunks.
    :param may_flag: Whether LakeTS 0.1.x may flag a chunk; it proves a chunk only by flagging it.
    """
    if not chunks:
        raise LakeTSArgumentError("No chunk is named: there is nothing to wait for. Name chunks, or a table.")
    (found,) = yield _function("lakets.explain_durability(text)")
    doing = f"Checking whether {len(chunks)} chunk(s) are durable, from {next(iter(chunks), None)} on"
    if found["there"]:
        rows = yield Question(EXPLAINED, {"chunks": [*chunks]}, doing)
        waiting = {row["chunk_name"]: row["gap"] for row in rows if row["gap"]}
        lost = [row["chunk_name"] for row in rows if row["gap"] and row["is_lost"]]
        if lost:
            raise LakeTSArgumentError(
                f"Chunk {lost[0]} was dropped from Lakebase before it was proved durable in Unity Catalog:"
                " there is nothing to wait for. Leave it out."
            )
        # One chunk of each table is enough, because a proof covers the whole table.
        one_each = {row["chronotable_id"]: row["chunk_name"] for row in rows if row["gap"]}
        yield from _request_proof(one_each.values())
        return waiting
    if may_flag:
        return (yield from _not_flagged(chunks))
    rows = yield Question(older.CHUNKS, {"chunks": [*chunks]}, doing)
    for row in rows:
        if row["status"] is None:
            raise LakeTSArgumentError(f"Chunk {row['chunk_name']!r} does not exist.")
    return {
        row["chunk_name"]: older.not_flushed(row["cdf_status"], row["cdf_lag_bytes"])
        for row in rows
        if row["status"] == "active" and not row["caught_up"]
    }


def _not_flagged(chunks: Iterable[str]) -> Watch:
    waiting = {}
    for chunk in chunks:
        query = (
            "SELECT lakets.tier_chunk(p_chunk_name => %(chunk)s) AS durable,"
            " (SELECT one.status FROM lakets._chunk_metadata AS one"
            "   WHERE one.chunk_name = %(chunk)s) AS status"
        )
        (row,) = yield Question(
            query, {"chunk": chunk}, doing=f"lakets.tier_chunk(p_chunk_name => {chunk!r})"
        )
        if row["status"] is None:
            raise LakeTSArgumentError(f"Chunk {chunk!r} does not exist.")
        if not row["durable"] and row["status"] != "tiered":
            waiting[chunk] = "its writes are not proved flushed to Unity Catalog"
    return waiting


def _request_proof(chunks: Iterable[str]) -> Generator[Question, list[Row], None]:
    """
    Let the engine try to prove chunks that it has just reported as not durable.

    explain_durability changes nothing, so its result may never change: if writers overlapped and
    the table then became idle, only tier_chunk sets the fence that the feed must pass. A role that
    may not call tier_chunk still sees the progress of others.
    """
    for chunk in chunks:
        query = "SELECT lakets.tier_chunk(p_chunk_name => %(chunk)s)"
        yield Question(query, {"chunk": chunk}, doing=f"Asking for a proof of {chunk}", may_fail=True)


# A name without a schema means schema public. An exact match of the full name comes first.
TABLE = """
SELECT tab.id, tab.schema_name, tab.table_name FROM lakets._chronotable_registry AS tab
  JOIN unnest(%(names)s::text[]) WITH ORDINALITY AS spelt (name, place)
    ON spelt.name = tab.schema_name || '.' || tab.table_name
 ORDER BY spelt.place LIMIT 1
"""


def _find(table: str) -> Generator[Question, list[Row], Row | None]:
    """Look up a ChronoTable as :meth:`LakeTSHook.chronotables` does; None if there is none."""
    plain = unquoted(table)
    names = [table, f"public.{table}", plain, f"public.{plain}"]
    rows = yield Question(TABLE, {"names": names}, doing=f"Looking up {plain}")
    return rows[0] if rows else None


FEED = """
SELECT feed.cdf_status, feed.cdf_lag_bytes, feed.caught_up
  FROM (VALUES (1)) AS once (n)
  LEFT JOIN lakets.show_tiering_status(
                p_table_name => %(table_name)s, p_schema_name => %(schema_name)s) AS feed ON true
"""

# Newest first, because writers write there; OFFSET 0 makes it stop at the first match.
UNPROVEN = """
SELECT chunk.chunk_name
  FROM (SELECT each.chunk_name FROM lakets._chunk_metadata AS each
         WHERE each.chronotable_id = %(id)s AND each.status <> 'dropped'
         ORDER BY each.range_start DESC OFFSET 0) AS chunk
 WHERE lakets.explain_durability(p_chunk_name => chunk.chunk_name) IS NOT NULL LIMIT 1
"""


def caught_up(table: str) -> Watch:
    """
    Wait until the change feed has flushed all that was committed to a ChronoTable.

    :param table: As ``schema.table``, or ``table`` for one in schema public.
    """
    known = yield from _find(table)
    if not known:
        raise LakeTSArgumentError(
            f"{unquoted(table)!r} is not a ChronoTable. Name it schema.table, or make it one with "
            "lakets.create_chronotable."
        )
    table = unquoted(table)
    (found,) = yield _function("lakets.explain_durability(text)")
    query = FEED if found["there"] else older.FEED
    (feed,) = yield Question(query, known, doing=f"Reading the position of the change feed of {table}")
    if feed["caught_up"]:
        return {}
    if found["there"] and feed["cdf_status"] == "STREAMING":
        unproven = yield Question(
            UNPROVEN, {"id": known["id"]}, doing=f"Looking for chunks of {table} without a proof"
        )
        yield from _request_proof(row["chunk_name"] for row in unproven)
    return {table: older.not_flushed(feed["cdf_status"], feed["cdf_lag_bytes"])}


REPORT = """
SELECT chunk_name, blocked_by
  FROM lakets.retention_report(p_table_name => %(table_name)s, p_schema_name => %(schema_name)s)
 WHERE blocked_by IS NOT NULL
"""


def droppable(table: str, chunks: Sequence[str]) -> Watch:
    """
    Wait until chunks may be dropped: they are durable, and every RollUp has absorbed them.

    :param table: The ChronoTable as ``schema.table``, or ``table`` for one in schema public.
    :param chunks: The chunks past retention to wait for.
    """
    known = yield from _find(table)
    if not known:  # dropped during the wait, so there is nothing left to drop
        return {}
    (found,) = yield _function("lakets.retention_report(text,text)")
    doing = f"Listing the chunks of {table} past retention"
    if not found["there"]:
        rows = yield Question(older.PAST_RETENTION, {"id": known["id"]}, doing)
        blocked = {row["chunk_name"]: older.NOT_DURABLE for row in rows if row["is_blocked"]}
        return {chunk: blocked[chunk] for chunk in chunks if chunk in blocked}
    rows = yield Question(REPORT, known, doing)
    blocked = {row["chunk_name"]: row["blocked_by"] for row in rows}
    waiting = {chunk: blocked[chunk] for chunk in chunks if chunk in blocked}
    if waiting:
        yield from durable([*waiting])
    return waiting


def all_droppable(tables: Mapping[str, Sequence[str]]) -> Watch:
    """
    Wait until nothing prevents the drop of chunks of several tables.

    :param tables: The chunks to wait for, by ChronoTable.
    """
    waiting: Waiting = {}
    for table, chunks in tables.items():
        waiting |= yield from droppable(table, chunks)
    return waiting


ROLLUP = """
SELECT rol.watermark::text AS watermark, rol.last_refreshed_at::text AS refreshed_at,
       coalesce(rol.watermark >= %(watermark)s::timestamptz, %(watermark)s::text IS NULL) AS reached,
       coalesce(rol.last_refreshed_at >= now() - %(max_lag)s::interval, %(max_lag)s::text IS NULL) AS fresh
  FROM lakets._rollup_registry AS rol WHERE rol.name = %(rollup)s
"""


def fresh(rollup: str, *, watermark: str | None = None, max_lag: str | None = None) -> Watch:
    """
    Wait until a RollUp is fresh enough.

    :param rollup: The name of the RollUp.
    :param watermark: The time that its newest bucket must reach.
    :param max_lag: The longest time since its last refresh, as a Postgres interval.
    """
    if not (watermark or max_lag):
        raise LakeTSArgumentError(
            f"No condition is given for RollUp {rollup!r}. Give a watermark, a max_lag, or both."
        )
    asked = {"rollup": rollup, "watermark": watermark, "max_lag": max_lag}
    rows = yield Question(ROLLUP, asked, doing=f"Checking how fresh RollUp {rollup} is")
    if not rows:
        raise LakeTSArgumentError(
            f"RollUp {rollup!r} does not exist; lakets.show_rollups() lists the RollUps."
        )
    (row,) = rows
    reasons = []
    if not row["reached"]:
        reasons.append(f"its watermark is {row['watermark'] or 'not set'} and must reach {watermark}")
    if not row["fresh"]:
        last = row["refreshed_at"] or "never"
        reasons.append(f"its last refresh was {last}, and max_lag is {max_lag}")
    return {rollup: "; ".join(reasons)} if reasons else {}
