"""Replication slots, where the change feed is made of one: why it may stand still."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_provider_lakets.monitoring.finding import Attention

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

# Anybody may read this. A feed that is not made of a replication slot has none here.
SLOTS = """
SELECT slot.slot_name AS name, slot.active AS is_active, coalesce(slot.wal_status = 'lost', false) AS is_lost
  FROM pg_catalog.pg_replication_slots AS slot
 WHERE slot.slot_type = 'logical' AND slot.database = current_database() ORDER BY slot.slot_name
"""


@dataclass(frozen=True)
class Slot:
    """A logical replication slot of the database, whoever made it."""

    name: str
    is_active: bool
    is_lost: bool


def of_slots(slots: Iterable[Slot], *, stands_still: bool) -> Iterator[Attention]:
    """
    Yield what keeps a feed from its changes.

    :param slots: Those of the database. Some may be of other programs.
    :param stands_still: Whether the feed does not move. While it moves, a slot that nobody reads is
        none of its own.
    """
    for slot in slots:
        if slot.is_lost:
            advice = "If it is that of the change data feed, make the feed anew: it begins with a snapshot."
            yield Attention(slot.name, "lost its WAL", advice, "slot-lost", "slot")
        elif stands_still and not slot.is_active:
            advice = "The change data feed does not run: start it again."
            yield Attention(slot.name, "nobody reads it", advice, "slot-unread", "slot")
