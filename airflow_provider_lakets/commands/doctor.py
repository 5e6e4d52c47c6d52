"""`lakets doctor`: everything between here and a working LakeTS, one thing after another."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psycopg  # noqa: TID253 - no DAG imports this module
from airflow.exceptions import AirflowException  # type: ignore[attr-defined]
from rich.text import Text

from airflow_provider_lakets import __version__
from airflow_provider_lakets.commands.rights import missing_rights
from airflow_provider_lakets.commands.status import console
from airflow_provider_lakets.exceptions import LakeTSError
from airflow_provider_lakets.login.tls import stays_here

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from airflow_provider_lakets.hooks.lakets import LakeTSHook


RIGHTS_SHOWN = 5  # what is granted for one table is mostly lacking for all


@dataclass(frozen=True)
class Finding:
    """
    What one check found.

    ``verdict`` is ok, warn (it works, but), fail, or skip (not checked).
    """

    check: str
    verdict: str
    said: str
    advice: str = ""


class Patient:
    """What the checks look at; each leaves to the next what it found."""

    def __init__(self, hook: LakeTSHook) -> None:
        self.hook = hook
        self.by_password = False

    def identity(self) -> Finding:
        """Say who logs in."""
        login = self.hook._login
        self.by_password = login.is_native
        if self.by_password:
            return Finding("", "ok", f"native Postgres password of role {login.arguments()['user']!r}")
        return Finding("", "ok", f"{login._workspace.identity.name}, at {login._workspace.identity.host}")

    def endpoint(self) -> Finding:
        """Say where to."""
        if self.by_password:
            return Finding("", "ok", str(self.hook._login.arguments()["host"]))
        endpoint = self.hook._login._endpoint
        return Finding("", "ok", f"{endpoint.name}, host {endpoint.host}")

    def credential(self) -> Finding:
        """Mint a credential, and forget it."""
        if self.by_password:
            return Finding("", "ok", "not needed with a native password")
        self.hook._login._mint()
        return Finding("", "ok", "minted; each login mints its own")

    def login(self) -> Finding:
        """Log in."""
        row = self._row(
            "SELECT current_user AS role, current_database() AS database,"
            " current_setting('server_version') AS server, current_setting('is_superuser') AS superuser"
        )
        said = f"role {row['role']!r}, database {row['database']!r}, Postgres {row['server']}"
        if row["superuser"] == "on":
            return Finding("", "warn", f"{said}; a superuser", "Give the jobs a role of their own.")
        return Finding("", "ok", said)

    def tls(self) -> Finding:
        """See whether the session is encrypted."""
        with self.hook._sessions.borrow() as conn:
            pgconn = conn.pgconn
            encrypted = bool(pgconn.ssl_in_use)
        login = self.hook._login.arguments()
        mode, roots = login["sslmode"], login.get("sslrootcert")
        trusted = f"sslmode {mode}, sslrootcert {roots or 'of libpq'}"
        if encrypted and mode == "verify-full":
            return Finding("", "ok", f"encrypted, and the server proved who it is ({trusted})")
        if stays_here(login, login["host"]):
            said = "encrypted" if encrypted else "not encrypted"
            return Finding("", "ok", f"{said}, and the session does not leave this machine")
        advice = "To be sure who answers, take sslmode out: the default is verify-full."
        if encrypted and mode == "verify-ca":
            said = f"encrypted; the server proved an authority's certificate, not who it is ({trusted})"
            return Finding("", "warn", said, advice)
        if encrypted:
            said = f"encrypted (sslmode {mode}); anybody could answer with a certificate of their own"
            return Finding("", "warn", said, advice)
        return Finding("", "fail", f"not encrypted (sslmode {mode})", advice)

    def lakets(self) -> Finding:
        """See which LakeTS is there."""
        version = self.hook.version()
        if version is None:
            return Finding("", "fail", "LakeTS is not in this database", "Run `lakets install`.")
        if _numbers(version) < _numbers(__version__):
            advice = "It works; `lakets install` adds what this provider's engine can do beyond it."
            return Finding("", "warn", f"version {version}; this provider brings {__version__}", advice)
        return Finding("", "ok", f"version {version}")

    def rights(self) -> Finding:
        """See whether the role may do what the jobs do."""
        missing = missing_rights(self.hook)
        if not missing:
            return Finding("", "ok", "all that the four jobs need")
        said = "; ".join(f"no {right.lacks}" for right in missing[:RIGHTS_SHOWN])
        more = f"; and {len(missing) - RIGHTS_SHOWN} more" if len(missing) > RIGHTS_SHOWN else ""
        grants = dict.fromkeys(f"{right.grant};" for right in missing)
        return Finding("", "fail", said + more, " ".join(grants))

    def feed(self) -> Finding:
        """See whether the change feed streams what is synced."""
        synced = [table for table in self.hook.chronotables() if table.sync_enabled]
        if not synced:
            return Finding("", "ok", "no table is synced, so none is needed")
        states = {
            table.name: feed.cdf_status
            for table in synced
            for feed in self.hook.show_tiering_status(table.table_name, schema_name=table.schema_name)
        }
        said = ", ".join(f"{name} {state}" for name, state in states.items())
        if set(states.values()) == {"STREAMING"}:
            return Finding("", "ok", said)
        advice = (
            "What does not stream is neither tiered nor dropped. Start a change data feed for schema "
            "lakets_cdf, and let the role read wal2delta.tables; an empty table streams from its first row "
            "on; SKIPPED: its replica identity is not FULL."
        )
        return Finding("", "warn", said, advice)

    def repairs(self) -> Finding:
        """See what is left to mend, for instance after an upgrade."""
        if self.hook._is_older():
            return Finding("", "ok", "not looked for in LakeTS 0.1.x")
        found = self.hook._call("pending_repairs")
        if not found:
            return Finding("", "ok", "none is needed")
        said = "; ".join(f"{row['object']}: {row['problem']}" for row in found)
        return Finding("", "warn", said, " ".join(row["remedy"] for row in found))

    def _row(self, query: str) -> dict[str, Any]:
        (row,) = self.hook._query(query, doing="Examining the session")
        return row


def examine(hook: LakeTSHook) -> Iterator[Finding]:
    """
    Yield what each check found; after one that fails, most others make no sense.

    :param hook: For the connection in question.
    """
    patient = Patient(hook)
    checks: list[tuple[str, Callable[[], Finding]]] = [
        ("identity", patient.identity),
        ("endpoint", patient.endpoint),
        ("credential", patient.credential),
        ("login", patient.login),
        ("TLS", patient.tls),
        ("LakeTS", patient.lakets),
        ("rights", patient.rights),
        ("feed", patient.feed),
        ("repairs", patient.repairs),
    ]
    broken = False
    with contextlib.ExitStack() as stack:
        for name, check in checks:
            if name == "login" and not broken:
                stack.enter_context(hook.session())
            found = Finding(name, "skip", "not checked") if broken else _checked(name, check)
            # The feed is worth a look even when a right is missing.
            broken = broken or (found.verdict == "fail" and name != "rights")
            yield found


def _checked(name: str, check: Callable[[], Finding]) -> Finding:
    try:
        found = check()
    except (LakeTSError, AirflowException, psycopg.Error) as err:
        return Finding(name, "fail", str(err))
    return Finding(name, found.verdict, found.said, found.advice)


def show(findings: Iterable[Finding]) -> bool:
    """Print findings as they come, and return whether nothing failed."""
    out = console()
    colours = {"ok": "green", "warn": "yellow", "fail": "red", "skip": "dim"}
    healthy = True
    for found in findings:
        healthy = healthy and found.verdict != "fail"
        line = Text(f"{found.verdict:4} ", style=colours[found.verdict])
        out.print(line.append(f"{found.check:10} {found.said}", style="default"), soft_wrap=True)
        if found.advice:
            out.print(Text(f"{'':16}{found.advice}", style="dim"), soft_wrap=True)
    return healthy


def _numbers(version: str) -> tuple[int, ...]:
    """Return the numbers of a version, for comparison."""
    return tuple(int(part) for part in version.split(".") if part.isdigit())
