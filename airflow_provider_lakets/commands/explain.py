"""`lakets explain`: the state of a chunk or a RollUp, why, and what happens next."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

from airflow_provider_lakets.commands.status import console
from airflow_provider_lakets.exceptions import LakeTSArgumentError
from airflow_provider_lakets.monitoring.words import name

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_provider_lakets.hooks.lakets import LakeTSHook
    from airflow_provider_lakets.hooks.results import Rollup

MIN_ROOM = 30

CHUNK = """
SELECT tab.schema_name, tab.table_name, chunk.status, chunk.range_start, chunk.range_end,
       CASE WHEN pol.tier_after <= interval '1000 years'
            THEN chunk.range_end + pol.tier_after END AS tiers_at,
       CASE WHEN pol.drop_after <= interval '1000 years'
            THEN chunk.range_end + pol.drop_after END AS expires_at,
       pol.tier_after::text, pol.drop_after::text
  FROM lakets._chunk_metadata AS chunk
  JOIN lakets._chronotable_registry AS tab ON tab.id = chunk.chronotable_id
 CROSS JOIN LATERAL (
       SELECT max(coalesce(one.config ->> 'tier_after', one.config ->> 'after')::interval) AS tier_after,
              max((one.config ->> 'drop_after')::interval) AS drop_after
         FROM lakets._policy_registry AS one WHERE one.chronotable_id = tab.id AND one.enabled) AS pol
 WHERE chunk.chunk_name = %(name)s
"""

MARKS = """
SELECT count(*) AS count FROM lakets._rollup_invalidation_log AS mark
  JOIN lakets._rollup_registry AS reg ON reg.id = mark.rollup_id WHERE reg.name = %(name)s
"""

GAPS = """
SELECT lakets.explain_durability(%(name)s) AS not_durable, due.blocked_by,
       due.chunk_name IS NOT NULL AS is_due
  FROM (VALUES (1)) AS once (n)
  LEFT JOIN lakets.retention_report(%(table_name)s, %(schema_name)s) AS due ON due.chunk_name = %(name)s
"""


def explain(hook: LakeTSHook, name: str) -> dict[str, Any]:
    """
    Return the facts about a chunk or a RollUp, by heading.

    :param hook: The hook of the connection.
    :param name: A chunk as ``schema.chunk``, or a RollUp.
    :raises LakeTSArgumentError: if neither has this name.
    """
    with hook.session():
        rollups = {rollup.name: rollup for rollup in hook.rollups()}
        if name in rollups:
            return _rollup(hook, rollups[name])
        rows = hook.query(CHUNK, {"name": name}, doing=f"Looking up chunk {name}")
        if not rows:
            raise LakeTSArgumentError(
                f"{name!r} is neither a RollUp nor a chunk. lakets.show_rollups() lists the RollUps, "
                "lakets.show_chunks('<table>') the chunks, which are named schema.chunk."
            )
        return _chunk(hook, name, rows[0])


def _rollup(hook: LakeTSHook, rollup: Rollup) -> dict[str, Any]:
    plans = {plan.name: plan for plan in hook.plan_refresh(rollup.name)}
    plan = plans[rollup.name]
    (marks,) = hook.query(MARKS, {"name": rollup.name}, doing=f"Counting the marked buckets of {rollup.name}")
    return {
        "RollUp": rollup.name,
        "reads": ", ".join(filter(None, [rollup.source, *rollup.depends_on])),
        "newest bucket": _instant(rollup.watermark) or "none: it is empty",
        "last refresh": _instant(rollup.last_refreshed_at) or "never",
        "buckets marked to be computed again": marks["count"],
        "next refresh": f"{plan.outcome}: {plan.detail}" if plan.detail else plan.outcome,
    }


def _chunk(hook: LakeTSHook, name: str, chunk: dict[str, Any]) -> dict[str, Any]:
    said = {
        "chunk": name,
        "of": f"{chunk['schema_name']}.{chunk['table_name']}",
        "from": _instant(chunk["range_start"]),
        "to": _instant(chunk["range_end"]),
        "status": chunk["status"],
    }
    if chunk["status"] == "dropped":
        return {**said, "next": "nothing: it is no longer in Lakebase. Unity Catalog has what was synced."}
    (gaps,) = hook.query(GAPS, {**chunk, "name": name}, doing=f"Looking up what keeps chunk {name}")
    kept = (gaps["blocked_by"] or "the next run drops it") if gaps["is_due"] else "not due"
    return {
        **said,
        "durable in Unity Catalog": f"no: {gaps['not_durable']}" if gaps["not_durable"] else "yes",
        "due for tiering": _due(chunk["tiers_at"], chunk["tier_after"], "tiering"),
        "due for the drop": _due(chunk["expires_at"], chunk["drop_after"], "retention"),
        "retention": kept,
    }


def _due(at: Any, age: str | None, policy: str) -> str:
    if age is None:
        return f"never: the table has no {policy} policy"
    return _instant(at) or f"{age} after its end"  # farther than Python has times


def _instant(at: Any) -> str | None:
    return at.isoformat(sep=" ", timespec="seconds") if at else None


def in_lines(said: dict[str, Any]) -> Iterator[str]:
    """Yield the facts as lines that fit the terminal, each after its heading."""
    width = max(map(len, said))
    room = max(MIN_ROOM, console().width - width - 2)
    for heading, sentence in said.items():
        # Long names are not broken.
        lines = textwrap.wrap(name(sentence), room, break_long_words=False, break_on_hyphens=False)
        for number, line in enumerate(lines or [""]):
            yield f"{'' if number else heading:<{width}}  {line}"
