"""A database whose sessions read strings, write names or times, or isolate in another way."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
import pytest

if TYPE_CHECKING:
    from tests.lab import Lab


@pytest.fixture
def engine() -> str:
    return "ours"


ODD = {
    "strings": ("standard_conforming_strings = off", "quote_all_identifiers = on"),
    "times": ("datestyle = 'SQL, DMY'", "intervalstyle = iso_8601", "timezone = 'Asia/Kathmandu'"),
    "encoding": ("client_encoding = LATIN1",),
    "serializable": ("default_transaction_isolation = serializable",),
    "repeatable read": ("default_transaction_isolation = 'repeatable read'",),
    "environment": (),
}


@pytest.mark.parametrize("settings", ODD.values(), ids=ODD)
def test_install_jobs_and_writers_do_what_they_do_elsewhere(
    lab: Lab, settings: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    lab.synced(days=6)
    lab.rollup("Žižkov")  # LATIN1 has no such letter
    for setting in settings:
        lab.conn.execute(f"ALTER DATABASE {lab.conn.info.dbname} SET {setting}")
    if not settings:
        monkeypatch.setenv("PGDATESTYLE", "SQL, DMY")
        monkeypatch.setenv("PGCLIENTENCODING", "LATIN1")
    hook = lab.hook()

    hook.install()
    with psycopg.connect(lab.conninfo, autocommit=True) as writer:
        writer.execute(r"INSERT INTO metrics VALUES (now(), E'back\\slash', 1)")
    hook.partition()
    hook.refresh(parallelism=1)
    lab.flush()
    candidates = [candidate.chunk_name for candidate in hook.tier_candidates()]
    hook.tier(candidates)
    lab.flush()
    tiered = hook.tier(candidates)

    assert candidates
    assert {chunk.outcome for chunk in tiered} == {"tiered"}
    assert lab.value("SELECT count(*) FROM lakets._mirror_gap") == 0
    assert [rollup.name for rollup in hook.rollups()] == ["Žižkov"]
