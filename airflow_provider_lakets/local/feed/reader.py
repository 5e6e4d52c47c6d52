"""Sort the stream into the shadows' buffers, a batch of whole transactions at a time."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from airflow_provider_lakets.local.feed.pgoutput import Begin, Change, Commit, Relation, Truncate, decode
from airflow_provider_lakets.local.feed.values import ConversionError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from airflow_provider_lakets.local.feed.catalog import Catalog
    from airflow_provider_lakets.local.feed.replication import ReplicationStream
    from airflow_provider_lakets.local.feed.shadow import Shadow

log = logging.getLogger(__name__)

_HALF_XID = 1 << 31
_XIDS = 1 << 32


class ChangeReader:
    """
    Read the changes of the stream into the buffers.

    :param stream: The source of the changes.
    :param catalog: Returns the base types of domains.
    :param shadows: The tables that are followed, by oid.
    :param skip: Called with a shadow whose changes cannot be stored, and the reason.
    :param position: The confirmed position of the slot.
    """

    def __init__(
        self,
        stream: ReplicationStream,
        catalog: Catalog,
        shadows: Mapping[int, Shadow],
        *,
        skip: Callable[[Shadow, ConversionError], None],
        position: int,
    ) -> None:
        self.position = position  # every transaction that ended before it has been read
        self.next_xid = 0  # a recent id, which gives the epoch of the ids in the stream
        self._stream = stream
        self._catalog = catalog
        self._shadows = shadows
        self._skip = skip
        self._relations: dict[int, Relation] = {}
        self._transaction: Begin | None = None
        # The shadow for each table's changes in the current transaction; None if they are ignored.
        self._admitted: dict[int, Shadow | None] = {}

    def read(self, target: int, limit: int) -> bool:
        """
        Fill the buffers, up to a position or until ``limit`` changes are in them.

        :return: Whether the position was reached.
        """
        count = 0
        for data in self._stream.read(target):
            message = decode(data)
            if isinstance(message, Change):
                count += 1
                self._change(message, len(data))
            elif isinstance(message, Begin):
                self._transaction = message
                self._admitted.clear()
            elif isinstance(message, Commit):
                self._commit(message)
                if count >= limit:
                    return False
            elif isinstance(message, Relation):
                self._relations[message.oid] = message
                self._admitted.pop(message.oid, None)  # its columns may have changed within the transaction
            elif isinstance(message, Truncate):
                self._truncate(message)
        self.position = max(self.position, self._stream.received)
        return True

    def _change(self, change: Change, size: int) -> None:
        try:
            shadow = self._admitted[change.relation_oid]
        except KeyError:
            shadow = self._admit(change.relation_oid)
        if shadow is None or self._transaction is None:
            return
        try:
            shadow.add(self._transaction, change, size)
        except ConversionError as err:
            self._refuse(shadow, err)

    def _admit(self, oid: int) -> Shadow | None:
        shadow = self._shadows.get(oid)
        transaction = self._transaction
        if (
            shadow is None
            or transaction is None
            or not shadow.wants(transaction, self._full_xid(transaction.xid))
        ):
            shadow = None
        self._admitted[oid] = shadow
        if shadow is None:
            return None
        try:
            shadow.changes.set_fields(shadow.fields(self._relations[oid].columns, self._catalog))
        except ConversionError as err:
            self._refuse(shadow, err)
            return None
        return shadow

    def _refuse(self, shadow: Shadow, reason: ConversionError) -> None:
        self._admitted[shadow.oid] = None
        self._skip(shadow, reason)

    def _full_xid(self, xid: int) -> int:
        """Return the transaction id with its epoch: the one nearest to the server's current id."""
        ahead = (xid - self.next_xid) % _XIDS
        return self.next_xid + (ahead if ahead < _HALF_XID else ahead - _XIDS)

    def _commit(self, commit: Commit) -> None:
        for shadow in self._admitted.values():
            if shadow is not None:
                shadow.last_commit = commit.commit_lsn
        self.position = commit.end_lsn
        self._transaction = None

    def _truncate(self, message: Truncate) -> None:
        for oid in message.relation_oids:
            if oid in self._shadows:
                log.warning("%s was truncated: its history keeps the rows", self._shadows[oid].name)
