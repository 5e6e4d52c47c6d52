"""Find replication slots that stop the change feed, if it uses one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_provider_lakets.monitoring.finding import Attention

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

# Every role may read this. A feed without a replication slot has no row here.
SLOTS = """
SELECT slot.slot_name AS name, slot.active AS is_active, coalesce(slot.wal_status = 'lost', false) AS is_lost
  FROM pg_catalog.pg_replication_slots AS slot
 WHERE slot.slot_type = 'logical' AND slot.database = current_database() ORDER BY slot.slot_name
"""


@dataclass(frozen=True)
class Slot:
    """A logical replication slot of the database, of any program."""

    name: str
    is_active: bool
    is_lost: bool


def of_slots(slots: Iterable[Slot], *, stands_still: bool) -> Iterator[Attention]:
    """
    Yield the slots that may stop a feed.

    :param slots: The slots of the database; some may belong to other programs.
    :param stands_still: Whether a feed stands still. If none does, a slot that nobody reads belongs
        to another program.
    """
    for slot in slots:
        if slot.is_lost:
            advice = "If the change data feed uses it, create the feed again; it begins with a snapshot."
            yield Attention(slot.name, "lost its WAL", advice, "slot-lost", "slot")
        elif stands_still and not slot.is_active:
            advice = "The change data feed does not run: start it again."
            yield Attention(slot.name, "nobody reads it", advice, "slot-unread", "slot")
