"""Compare rows as Arrow tables, value by value and with their number of copies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

if TYPE_CHECKING:
    from collections.abc import Sequence

    import psycopg


@dataclass(frozen=True)
class Difference:
    """The differences between found and expected rows; ``altered`` have other values."""

    missing: pa.Table
    altered: pa.Table
    extra: pa.Table

    @property
    def lacking(self) -> pa.Table:
        """The expected rows that are missing or altered."""
        return pa.concat_tables([self.missing, self.altered])


def difference(expected: pa.Table, found: pa.Table, key: Sequence[str]) -> Difference:
    """
    Compare rows by all of their columns.

    :param expected: The rows that should be there.
    :param found: The rows that are, with the same schema.
    :param key: The key columns: a missing and an extra row with the same key are an altered row.
    """
    columns, keys = expected.column_names, list(key)
    signed = [
        rows.append_column("_n", pa.repeat(pa.scalar(sign), len(rows)))
        for rows, sign in ((expected, 1), (found, -1))
    ]
    counted = pa.concat_tables(signed).group_by(columns, use_threads=False).aggregate([("_n", "sum")])
    less, more = (
        _repeated(counted.filter(pc.equal(pc.sign(counted["_n_sum"]), sign)), columns) for sign in (1, -1)
    )
    return Difference(
        missing=without(less, more, keys), altered=within(less, more, keys), extra=without(more, less, keys)
    )


def within(rows: pa.Table, others: pa.Table, key: Sequence[str]) -> pa.Table:
    """Return the rows whose key is among others."""
    return rows.join(others.select(list(key)), keys=list(key), join_type="left semi")


def without(rows: pa.Table, others: pa.Table, key: Sequence[str]) -> pa.Table:
    """Return the rows whose key is not among others."""
    return rows.join(others.select(list(key)), keys=list(key), join_type="left anti")


def _repeated(counted: pa.Table, columns: list[str]) -> pa.Table:
    """Return each row as often as it was counted."""
    counts = pc.abs(counted["_n_sum"]).to_pylist()
    positions = [position for position, count in enumerate(counts) for _ in range(count)]
    return counted.select(columns).take(pa.array(positions, pa.int64()))


def fetch(conn: psycopg.Connection[Any], relation: str, schema: pa.Schema) -> pa.Table:
    """
    Read the rows of a relation.

    :param conn: A session whose time zone is UTC.
    :param relation: A table, as SQL.
    :param schema: The columns to read, with the types to read them as.
    """
    query = f"COPY (SELECT {', '.join(schema.names)} FROM {relation}) TO STDOUT (FORMAT csv)"  # noqa: S608
    sink = pa.BufferOutputStream()
    with conn.cursor() as cursor, cursor.copy(query) as copy:
        for block in copy:
            sink.write(bytes(block))
    data = sink.getvalue()
    if not data.size:
        return schema.empty_table()
    return pa.csv.read_csv(
        pa.BufferReader(data),
        pa.csv.ReadOptions(column_names=schema.names),
        convert_options=pa.csv.ConvertOptions(
            column_types=schema, null_values=[""], strings_can_be_null=True, quoted_strings_can_be_null=False
        ),
    )
