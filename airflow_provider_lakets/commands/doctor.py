"""`lakets doctor`: check everything that a working LakeTS needs, step by step."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from datetime import datetime, timezone
from functools import partial
from typing import TYPE_CHECKING, Any

import psycopg  # noqa: TID253 - no DAG imports this module
from airflow.exceptions import AirflowException  # type: ignore[attr-defined]

from airflow_provider_lakets.commands.feed import FeedCheck
from airflow_provider_lakets.commands.findings import Finding
from airflow_provider_lakets.commands.rights import missing_rights
from airflow_provider_lakets.commands.standing import CODES, VERDICTS, Standing
from airflow_provider_lakets.exceptions import LakeTSContendedError, LakeTSError
from airflow_provider_lakets.login.tls import stays_here
from airflow_provider_lakets.monitoring.asleep import is_asleep
from airflow_provider_lakets.monitoring.attention import of_engine
from airflow_provider_lakets.monitoring.finding import NAMED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from airflow_provider_lakets.hooks.lakets import LakeTSHook


FEED_SECONDS = 20.0  # a working feed flushes about every 15 s
SLOW_SECONDS = 3.0  # minting takes a fraction of a second
SKEW_SECONDS = 5.0

# If one of these fails, the checks after it are skipped.
NEEDED = {"identity", "endpoint", "credential", "login", "TLS", "LakeTS"}


class Checks:
    """The checks of a connection; later ones use results of earlier ones."""

    def __init__(self, hook: LakeTSHook) -> None:
        self.hook = hook
        self.by_password = False

    def identity(self) -> Finding:
        """Report the identity."""
        login = self.hook.login
        self.by_password = login.is_native
        if self.by_password:
            return Finding("", "ok", f"native Postgres password of role {login.arguments()['user']!r}")
        return Finding("", "ok", f"{login.workspace.identity.name}, at {login.workspace.identity.host}")

    def endpoint(self) -> Finding:
        """Report the endpoint or the host."""
        if self.by_password:
            return Finding("", "ok", str(self.hook.login.arguments()["host"]))
        endpoint = self.hook.login.endpoint
        said = f"{endpoint.name}, host {endpoint.host}"
        return Finding("", "ok", f"{said}; suspended: the login resumes it" if is_asleep(self.hook) else said)

    def credential(self) -> Finding:
        """Mint a credential, and discard it."""
        if self.by_password:
            return Finding("", "ok", "not needed with a native password")
        started = time.monotonic()
        self.hook.login.mint()
        if (took := time.monotonic() - started) > SLOW_SECONDS:
            said = f"minted, but it took {took:.0f} s; each login mints one, and waits as long"
            return Finding("", "warn", said, "Check the status of the workspace.")
        return Finding("", "ok", "minted; each login mints one")

    def login(self) -> Finding:
        """Log in, and report role, database and server."""
        row = self._row(
            "SELECT current_user AS role, current_database() AS database,"
            " current_setting('server_version') AS server, current_setting('is_superuser') AS superuser"
        )
        said = f"role {row['role']!r}, database {row['database']!r}, Postgres {row['server']}"
        if row["superuser"] == "on":
            return Finding("", "warn", f"{said}; a superuser", "Use a separate role for the jobs.")
        return Finding("", "ok", said)

    def tls(self) -> Finding:
        """Check that the session is encrypted and the server is verified."""
        with self.hook.borrow_session() as conn:
            pgconn = conn.pgconn
            encrypted = bool(pgconn.ssl_in_use)
        login = self.hook.login.arguments()
        mode, roots = login["sslmode"], login.get("sslrootcert")
        trusted = f"sslmode {mode}, sslrootcert {roots or 'of libpq'}"
        if encrypted and mode == "verify-full":
            return Finding("", "ok", f"encrypted, and the server is verified ({trusted})")
        if stays_here(login, login["host"]):
            said = "encrypted" if encrypted else "not encrypted"
            return Finding("", "ok", f"{said}, and the session does not leave this machine")
        advice = "To verify the server, remove sslmode: the default is verify-full."
        if encrypted and mode == "verify-ca":
            said = f"encrypted; the certificate is trusted, but not checked for the host name ({trusted})"
            return Finding("", "warn", said, advice)
        if encrypted:
            said = f"encrypted (sslmode {mode}), but the server is not verified"
            return Finding("", "warn", said, advice)
        return Finding("", "fail", f"not encrypted (sslmode {mode})", advice)

    def clock(self) -> Finding:
        """Compare the clock of the database with that of this machine."""
        before = datetime.now(timezone.utc)
        at = self._row("SELECT clock_timestamp() AS at")["at"]
        after = datetime.now(timezone.utc)
        # The server read its clock at some time between the two.
        skew = min((at - before).total_seconds(), 0) + max((at - after).total_seconds(), 0)
        if abs(skew) <= SKEW_SECONDS:
            return Finding("", "ok", "the database and this machine agree")
        said = f"the database is {abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} this machine"
        advice = "Policies use the clock of the database, schedules that of Airflow. Synchronize both by NTP."
        return Finding("", "warn", said, advice)

    def lakets(self) -> Finding:
        """Check the version of LakeTS."""
        version = self.hook.version()
        if version is None:
            return Finding("", "fail", "LakeTS is not installed in this database", "Run `lakets install`.")
        for one in of_engine(version):
            return Finding("", VERDICTS[one.severity], one.said, one.advice)
        return Finding("", "ok", f"version {version}")

    def rights(self) -> Finding:
        """Check that the session can write, and that the role has the rights that the jobs need."""
        if self._row("SELECT current_setting('transaction_read_only') AS read_only")["read_only"] == "on":
            advice = "Log in to the read-write endpoint of the branch."
            return Finding("", "fail", "the session is read-only, so no job can work", advice)
        missing = missing_rights(self.hook)
        if not missing:
            return Finding("", "ok", "all that the four jobs need")
        lacks = [f"no {right.lacks}" for right in missing]
        more = f"; and {len(missing) - NAMED} more" if len(missing) > NAMED else ""
        grants = [*dict.fromkeys(f"{right.grant};" for right in missing)]
        return Finding("", "fail", "; ".join(lacks[:NAMED]) + more, statements=grants, details=lacks)

    def _row(self, query: str) -> dict[str, Any]:
        (row,) = self.hook.query(query, doing="Examining the session")
        return row


def examine(hook: LakeTSHook, *, wait: float = FEED_SECONDS) -> Iterator[Finding]:
    """
    Yield the finding of each check; if a check that is needed fails, the others are skipped.

    :param hook: The hook of the connection.
    :param wait: Seconds to wait for a lagging change feed to advance.
    """
    checked, standing = Checks(hook), Standing(hook)
    checks: list[tuple[str, Callable[[], Finding]]] = [
        ("identity", checked.identity),
        ("endpoint", checked.endpoint),
        ("credential", checked.credential),
        ("login", checked.login),
        ("TLS", checked.tls),
        ("clock", checked.clock),
        ("LakeTS", checked.lakets),
        ("rights", checked.rights),
        ("feed", FeedCheck(hook, standing, wait=wait).examine),
        ("repairs", standing.repairs),
        *((name, partial(standing.check, name)) for name in CODES if name != "repairs"),
    ]
    broken = False
    with contextlib.ExitStack() as stack:
        for name, check in checks:
            if name == "login" and not broken:
                stack.enter_context(hook.session())
            found = Finding(name, "skip", "not checked") if broken else _checked(name, check)
            broken = broken or (found.verdict == "fail" and name in NEEDED)
            yield found


def _checked(name: str, check: Callable[[], Finding]) -> Finding:
    try:
        found = check()
    except (LakeTSError, AirflowException, psycopg.Error) as err:
        # The check of the chunks reports a lock that is held too long.
        return Finding(name, "warn" if isinstance(err, LakeTSContendedError) else "fail", str(err))
    return dataclasses.replace(found, check=name)
