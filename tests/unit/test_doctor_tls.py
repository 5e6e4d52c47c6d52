"""The findings of the doctor about TLS."""

from __future__ import annotations

import contextlib
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from airflow_provider_lakets.commands import doctor

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_provider_lakets.hooks.lakets import LakeTSHook

HOST = "ep-x.database.example.com"


def hook(mode: str, host: str, *, encrypted: bool) -> LakeTSHook:
    """Return a hook with a session of which only the TLS state is known."""

    @contextlib.contextmanager
    def borrow() -> Iterator[Any]:
        yield SimpleNamespace(pgconn=SimpleNamespace(ssl_in_use=encrypted))

    login = {"host": host, "sslmode": mode, "sslrootcert": "/own/ca.pem"}
    made = SimpleNamespace(borrow_session=borrow, login=SimpleNamespace(arguments=lambda: login))
    return cast("LakeTSHook", made)


@pytest.mark.parametrize(
    ("mode", "host", "encrypted", "verdict", "word"),
    [
        ("verify-full", HOST, True, "ok", "sslrootcert /own/ca.pem"),
        ("verify-ca", HOST, True, "warn", "not checked for the host name"),
        ("require", HOST, True, "warn", "but the server is not verified"),
        ("disable", HOST, False, "fail", "not encrypted"),
        ("require", "127.0.0.1", True, "ok", "does not leave this machine"),
        ("disable", "/run/postgresql", False, "ok", "does not leave this machine"),
    ],
)
def test_doctor_warns_where_the_server_did_not_prove_who_it_is(
    mode: str, host: str, encrypted: bool, verdict: str, word: str
) -> None:
    found = doctor.Checks(hook(mode, host, encrypted=encrypted)).tls()

    assert found.verdict == verdict
    assert word in found.said
    assert (verdict == "ok") == (found.advice == "")
