"""A database whose sessions read strings and write names in another way than usual."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.lab import Lab


@pytest.fixture
def engine() -> str:
    return "ours"


def test_install_jobs_and_writers_do_what_they_do_elsewhere(lab: Lab) -> None:
    lab.synced(days=6)
    lab.rollup("hourly")
    name = lab.conn.info.dbname
    lab.conn.execute(f"ALTER DATABASE {name} SET standard_conforming_strings = off")
    lab.conn.execute(f"ALTER DATABASE {name} SET quote_all_identifiers = on")
    hook = lab.hook()

    hook.install()
    hook.run(r"INSERT INTO metrics VALUES (now(), E'back\\slash', 1)")
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
