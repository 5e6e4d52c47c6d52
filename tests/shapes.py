"""Random RollUp definitions: kinds of buckets, and query shapes, some of which are refused."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import random

ZONES = [
    "Pacific/Niue",
    "America/St_Johns",
    "America/Havana",
    "America/Los_Angeles",
    "Europe/Madrid",
    "Asia/Kolkata",
    "Asia/Kathmandu",
    "Australia/Lord_Howe",
    "Africa/Cairo",
    "Pacific/Kiritimati",
]


class Bucket(NamedTuple):
    """An expression over the time ``{t}``, and how wide its buckets are."""

    expression: str
    width: str


# {z} is a zone.
BUCKETS = [
    Bucket("lakets.time_bucket('1 hour', {t})", "1 hour"),
    Bucket("lakets.time_bucket('6 hours', {t})", "6 hours"),
    Bucket("lakets.time_bucket('1 day', {t})", "1 day"),
    Bucket("lakets.time_bucket('7 days', {t}, '2000-01-03')", "7 days"),
    Bucket("lakets.time_bucket('1 month', {t})", "1 month"),
    Bucket("date_bin('90 min', {t}, '2024-01-01 00:20+00')", "90 min"),
    Bucket("date_trunc('day', {t})", "1 day"),
    Bucket("date_trunc('week', {t})", "7 days"),
    Bucket("{t}::date", "1 day"),
    Bucket("({t} AT TIME ZONE '{z}')::date", "1 day"),
    Bucket("date_trunc('day', {t} AT TIME ZONE '{z}')", "1 day"),
    Bucket("date_trunc('hour', {t} AT TIME ZONE '{z}')", "1 hour"),
    Bucket("date_trunc('week', {t} AT TIME ZONE '{z}')", "7 days"),
    Bucket("lakets.time_bucket('1 day', {t} AT TIME ZONE '{z}')", "1 day"),
    Bucket("date_bin('30 min', {t} AT TIME ZONE '{z}', '2024-01-01')", "30 min"),
    Bucket("date_trunc('hour', {t}, '{z}')", "1 hour"),
    Bucket("date_trunc('day', {t}, '{z}')", "1 day"),
    Bucket("date_trunc('month', {t}, '{z}')", "1 month"),
    Bucket("date_trunc('day', {t} AT TIME ZONE '{z}') AT TIME ZONE '{z}'", "1 day"),
    Bucket("lakets.time_bucket('1 hour', {t}) + interval '1 hour'", "1 hour"),
    Bucket("lakets.time_bucket('1 day', {t}) + interval '12 hours'", "1 day"),
    Bucket("date_trunc('day', {t}, '{z}') + interval '1 day'", "1 day"),
    Bucket("date_trunc('month', {t}) + interval '1 month'", "1 month"),
    Bucket("(date_trunc('month', {t}) + interval '1 month' - interval '1 day')::date", "1 month"),
    Bucket("date_trunc('day', {t} - interval '6 hours') + interval '6 hours'", "1 day"),
    Bucket("date_trunc('month', date_trunc('week', {t}))", "1 month"),
]

# Of times without a zone, which are read as UTC.
LOCAL_BUCKETS = [
    Bucket("lakets.time_bucket('1 hour', {t})", "1 hour"),
    Bucket("lakets.time_bucket('1 month', {t})", "1 month"),
    Bucket("date_bin('90 min', {t}, '2024-01-01 00:20')", "90 min"),
    Bucket("date_trunc('week', {t})", "7 days"),
    Bucket("{t}::date", "1 day"),
    Bucket("date_trunc('day', {t} - interval '6 hours') + interval '6 hours'", "1 day"),
    Bucket("date_trunc('hour', {t}) AT TIME ZONE '{z}'", "1 hour"),
    Bucket("date_bin('30 min', {t}, '2024-01-01') AT TIME ZONE '{z}'", "30 min"),
    Bucket("date_trunc('day', {t}) AT TIME ZONE '{z}'", "1 day"),
    Bucket("date_trunc('month', {t}) AT TIME ZONE '{z}'", "1 month"),
    Bucket("date_trunc('hour', {t} AT TIME ZONE 'UTC' AT TIME ZONE '{z}')", "1 hour"),
    Bucket("date_trunc('day', {t} AT TIME ZONE 'UTC' AT TIME ZONE '{z}')", "1 day"),
]

# The buckets of a RollUp over the labels {b} of another.
UPPER_BUCKETS = [
    Bucket("date_trunc('month', {b})", "1 month"),
    Bucket("date_trunc('month', {b} - interval '1 hour')", "1 month"),
    Bucket("date_trunc('month', {b} + interval '5 hours')", "1 month"),
    Bucket("date_trunc('month', {b} AT TIME ZONE '{z}')", "1 month"),
    Bucket("date_trunc('month', {b}) AT TIME ZONE '{z}'", "1 month"),
    Bucket("({b} AT TIME ZONE '{z}')::date + 1", "1 day"),
]

# [x] is the bucket of x.at.
SOUND = [
    "SELECT [m] AS bucket, sum(value) AS v, count(*) AS n FROM {m} m GROUP BY 1",
    "SELECT id, [m] AS b, min(at) AS first, max(at) AS last, avg(value) AS a FROM {m} m GROUP BY 1, 2",
    "SELECT max(at) AS last, date_trunc('year', at) AS year, [m] AS label FROM {m} m GROUP BY 2, 3",
    "SELECT [m] AS bucket, count(*) AS n FROM {m} m WHERE value % 3 > 0 GROUP BY 1 HAVING count(*) > 1",
    "SELECT DISTINCT [m] AS bucket, id FROM {m} m",
    "SELECT m.id, [m] AS bucket, value FROM {m} m",
    "SELECT DISTINCT ON (id, [m]) id, [m] AS bucket, value FROM {m} m ORDER BY id, [m], at DESC, value",
    "SELECT bucket, sum(v) AS v FROM (SELECT [m] AS bucket, value AS v FROM {m} m WHERE id = 1"
    " UNION ALL SELECT [n], -value FROM {m} n WHERE id > 1) AS u GROUP BY 1",
    "SELECT [m] AS bucket, id FROM {m} m INTERSECT SELECT [n], id FROM {m} n WHERE value > 40",
    "WITH h AS (SELECT [m] AS b, id, sum(value) AS v FROM {m} m GROUP BY 1, 2)"
    " SELECT b AS bucket, max(v) AS top FROM h GROUP BY 1",
    "SELECT a.bucket, a.v, b.n FROM (SELECT [m] AS bucket, sum(value) AS v FROM {m} m GROUP BY 1) AS a"
    " JOIN (SELECT [m] AS bucket, count(*) AS n FROM {m} m WHERE id = 2 GROUP BY 1) AS b USING (bucket)",
    "SELECT a.bucket, a.v, b.n FROM (SELECT [m] AS bucket, sum(value) AS v FROM {m} m GROUP BY 1) AS a"
    " LEFT JOIN (SELECT [m] AS bucket, count(*) AS n FROM {m} m WHERE id = 2 GROUP BY 1) AS b USING (bucket)",
    "SELECT bucket, a.v, b.n FROM (SELECT [m] AS bucket, sum(value) AS v FROM {m} m WHERE id < 3 GROUP BY 1)"
    " AS a FULL JOIN (SELECT [m] AS bucket, count(*) AS n FROM {m} m WHERE id > 1 GROUP BY 1) AS b"
    " USING (bucket)",
    "SELECT [a] AS bucket, count(*) AS n FROM {m} a JOIN {m} b ON [a] = [b] AND a.id < b.id GROUP BY 1",
    "SELECT [a] AS bucket, count(*) AS n FROM {m} a LEFT JOIN {m} b ON a.at = b.at AND a.id <> b.id"
    " GROUP BY 1",
    "SELECT [m] AS bucket, id, rank() OVER (PARTITION BY [m] ORDER BY value) AS r FROM {m} m",
    "SELECT bucket, id, value FROM (SELECT [m] AS bucket, id, value, row_number() OVER"
    " (PARTITION BY [m] ORDER BY value DESC, id) AS r FROM {m} m) AS s WHERE r <= 2",
    "SELECT [m] AS bucket, id, count(*) * 60 / sum(count(*)) OVER (PARTITION BY [m]) AS s FROM {m} m"
    " GROUP BY 1, 2",
    "SELECT [m] AS bucket, d.name, sum(value) AS v FROM {m} m JOIN device d USING (id) GROUP BY 1, 2",
    "SELECT [m] AS bucket, d.name, sum(value) AS v FROM device d RIGHT JOIN {m} m USING (id) GROUP BY 1, 2",
    "SELECT [m] AS bucket, id, sum(value) AS v FROM {m} m GROUP BY [m], ROLLUP (id)",
    "SELECT b.bucket, t.value FROM (SELECT DISTINCT [m] AS bucket FROM {m} m) AS b CROSS JOIN LATERAL"
    " (SELECT n.value FROM {m} n WHERE [n] = b.bucket ORDER BY n.value DESC LIMIT 2) AS t",
    "SELECT [m] AS bucket, value - (SELECT min(n.value) FROM {m} n WHERE [n] = [m]) AS above FROM {m} m",
    "SELECT [m] AS bucket, count(*) AS n FROM {m} m WHERE NOT EXISTS"
    " (SELECT FROM {m} n WHERE [n] = [m] AND n.value > 90) GROUP BY 1",
    "SELECT [m] AS bucket, count(*) AS n FROM {m} m WHERE [m] IN (SELECT [n] FROM {m} n WHERE n.id = 3)"
    " GROUP BY 1",
    "SELECT [m] AS bucket, s, count(*) AS n FROM {m} m CROSS JOIN generate_series(1, 2) AS s GROUP BY 1, 2",
]
UNSOUND = [
    "SELECT [m] AS bucket, count(*) AS n FROM {m} m GROUP BY ROLLUP (1)",
    "SELECT [m] AS bucket, id, count(*) AS n FROM {m} m GROUP BY GROUPING SETS ((1, 2), (2))",
    "SELECT [m] AS bucket, d.name FROM {m} m RIGHT JOIN device d USING (id) GROUP BY 1, 2",
    "SELECT bucket, sum(n) OVER (ORDER BY bucket) AS v FROM (SELECT [m] AS bucket, count(*) AS n FROM {m} m"
    " GROUP BY 1) AS h",
    "SELECT [m] AS bucket, lag(count(*)) OVER (ORDER BY [m]) AS before FROM {m} m GROUP BY 1",
    "SELECT [m] AS bucket, count(*) * 100 / sum(count(*)) OVER () AS share FROM {m} m GROUP BY 1",
    "SELECT [m] AS bucket, count(*) * 100 / (SELECT count(*) FROM {m}) AS share FROM {m} m GROUP BY 1",
    "SELECT DISTINCT ON (id) id, [m] AS bucket, value FROM {m} m ORDER BY id, at DESC, value",
    "SELECT [m] AS bucket, sum(value) AS v FROM {m} m GROUP BY 1 ORDER BY 1 DESC LIMIT 2",
    "SELECT [m] AS bucket, value FROM {m} m WHERE at = (SELECT max(at) FROM {m})",
    "SELECT [a] AS bucket, count(*) AS n FROM {m} a JOIN {m} b USING (id) GROUP BY 1",
    "SELECT a.bucket, b.v FROM (SELECT [m] AS bucket FROM {m} m GROUP BY 1) AS a JOIN (SELECT"
    " date_trunc('year', at) AS y, sum(value) AS v FROM {m} GROUP BY 1) AS b ON b.y <= a.bucket",
    "SELECT [m] AS bucket, value FROM {m} m UNION ALL SELECT '2024-02-02', 0",
    "SELECT max([m]) AS bucket, count(*) AS n FROM {m} m",
    "SELECT [m] AS bucket, d.n FROM {m} m JOIN (SELECT date_trunc('quarter', at) AS q, count(*) AS n FROM {m}"
    " GROUP BY 1) AS d ON d.q = date_trunc('quarter', m.at)",
]


class Definition(NamedTuple):
    """
    A query over ``{m}`` with times of a type, its width, and whether it must be accepted.

    With the buckets of a RollUp over it.
    """

    query: str
    bucket: str
    width: str
    is_sound: bool
    type: str
    above: Bucket

    def over(self, table: str) -> str:
        return self.query.replace("{m}", table)


def any_definition(dice: random.Random, of_type: str, above: int) -> Definition:
    """
    Draw one of the definitions.

    :param dice: Where chance comes from.
    :param of_type: The type of the times: ``timestamptz`` or ``timestamp``.
    :param above: The number of the upper bucket.
    """
    is_sound = dice.random() < 0.75
    bucket = dice.choice(LOCAL_BUCKETS if of_type == "timestamp" else BUCKETS)
    expression = bucket.expression.replace("{z}", dice.choice(ZONES))
    query = dice.choice(SOUND if is_sound else UNSOUND)
    for alias in ("m", "n", "a", "b"):
        query = query.replace(f"[{alias}]", expression.replace("{t}", f"{alias}.at"))
    upper = UPPER_BUCKETS[above]
    if "{z}" in upper.expression:
        upper = upper._replace(expression=upper.expression.replace("{z}", dice.choice(ZONES)))
    return Definition(query, expression, bucket.width, is_sound, of_type, upper)
