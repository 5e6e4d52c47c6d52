"""Find policies that contradict each other or their table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_provider_lakets.monitoring.finding import Attention

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_provider_lakets.monitoring.data import Table


def of_policies(table: Table) -> Iterator[Attention]:
    """Yield the contradictions."""
    tier, drop = table.tier_seconds, table.drop_seconds
    if tier is not None and not table.sync_enabled:
        said = f"it is to be tiered after {table.tier_after}, but no change feed is enabled for it"
        said += ": no chunk is ever proved" + (" or dropped" if drop is not None else "")
        advice = "Run lakets.enable_sync for it, or remove the policy with lakets.remove_tiering_policy."
        yield Attention(table.name, said, advice, "tiering-without-feed")
    if tier is not None and drop is not None and drop <= tier:
        said = f"retention ({table.drop_after}) is not longer than tiering ({table.tier_after})"
        said += ": chunks are due for the drop before they are due for tiering"
        advice = "Replace one of the policies, so that tiering comes first."
        yield Attention(table.name, said, advice, "retention-before-tiering")
    shortest = min((one for one in (tier, drop) if one is not None), default=None)
    if shortest is not None and table.chunk_seconds > shortest:
        policy = f"tiering ({table.tier_after})" if shortest == tier else f"retention ({table.drop_after})"
        said = f"a chunk spans {table.chunk_interval}, longer than {policy}"
        said += ": its oldest rows wait until the whole chunk is that old"
        advice = "Choose shorter chunks with lakets.set_chunk_interval, or a longer policy."
        yield Attention(table.name, said, advice, "chunk-longer-than-policy")
