"""Who answers: a login to another machine checks the certificate before it sends anything."""

from __future__ import annotations

import os
import ssl
from typing import TYPE_CHECKING, Any

from airflow_provider_lakets.exceptions import LakebaseCredentialError, LakebaseSettingError
from airflow_provider_lakets.login.address import is_local
from airflow_provider_lakets.login.gate import shown

if TYPE_CHECKING:
    from collections.abc import Mapping

# What libpq would do in clear text, or might when the server, or somebody in between, says so.
CLEAR_TEXT_MODES = ("disable", "allow", "prefer")
MODES = (*CLEAR_TEXT_MODES, "require", "verify-ca", "verify-full")

SYSTEM = "system"  # libpq's word for the authorities that the operating system trusts

# Variables by which libpq connects elsewhere than its arguments say; it has no argument to turn
# them off.
_ELSEWHERE = {
    "PGHOSTADDR": "every login would go to that address (one connection's own is hostaddr in its extra)",
    "PGSERVICE": "a service file may send a login elsewhere, or without TLS",
}

# Where operating systems keep the authorities that they trust, as a file.
_ROOTS = (
    "/etc/ssl/certs/ca-certificates.crt",  # Debian, Ubuntu, Alpine, Arch
    "/etc/pki/tls/certs/ca-bundle.crt",  # Red Hat
    "/etc/ssl/ca-bundle.pem",  # SUSE
    "/etc/ssl/cert.pem",  # macOS, BSD
)


def secured(settings: Mapping[str, Any], host: str, conn_label: str) -> dict[str, Any]:
    """
    Return the settings of libpq that decide who is believed to be the server.

    Without ``sslmode`` another machine must prove by its certificate that it is the host that was
    asked for. A weaker mode is obeyed where the connection asks for it, not where the environment
    does.

    :param settings: What the connection says.
    :param host: The host to connect to.
    :param conn_label: The Airflow connection, for messages.
    """
    for name, why in _ELSEWHERE.items():
        if os.environ.get(name) and not (name == "PGHOSTADDR" and settings.get("hostaddr")):
            raise LakebaseSettingError(
                f"{conn_label}: the environment sets {name}, and the connection does not: {why}. "
                f"Unset {name}."
            )
    if settings.get("gssencmode", "disable") != "disable":
        raise LakebaseSettingError(
            f"{conn_label}: gssencmode is {shown(settings['gssencmode'])}; it would replace TLS, by which "
            "the server proves who it is. Take it out."
        )
    mode = settings.get("sslmode")
    if mode is None:
        mode = (os.environ.get("PGSSLMODE") or "require") if stays_here(settings, host) else "verify-full"
    if mode not in MODES:
        raise LakebaseSettingError(f"{conn_label}: sslmode is {shown(mode)}. Give one of {', '.join(MODES)}.")
    roots = settings.get("sslrootcert") or os.environ.get("PGSSLROOTCERT")
    if mode == "verify-full" and roots in (None, "", SYSTEM):
        roots = trusted_roots()
    return {
        "sslmode": mode,
        # Before TLS libpq tries GSSAPI, which ignores sslmode and with it the certificate.
        "gssencmode": "disable",
        **({"sslrootcert": roots} if roots else {}),
    }


def stays_here(settings: Mapping[str, Any], host: str) -> bool:
    """Return whether a login stays on this machine, by the host's name or by its address."""
    places = f"{host},{settings['hostaddr']}" if settings.get("hostaddr") else host
    return all(is_local(place) for place in places.split(","))


def forbid_clear_text(login: Mapping[str, Any], *, conn_label: str) -> None:
    """
    Refuse to send a minted credential where it could be read on the way.

    Postgres asks for it in clear text, so TLS is all that protects it. A Unix socket or the
    loopback interface is no way to be read on: there, and only there, an sslmode without TLS is
    obeyed.

    :param login: libpq's arguments.
    :param conn_label: The Airflow connection, for the message.
    """
    mode = login.get("sslmode")
    if mode in CLEAR_TEXT_MODES and not stays_here(login, login["host"]):
        address = login.get("hostaddr") or login["host"]
        raise LakebaseCredentialError(
            f"{conn_label} asks for sslmode {mode!r} to {address!r}, which could send the database "
            "credential in clear text. Take sslmode out of its extra for the default, verify-full."
        )


def trusted_roots() -> str:
    """
    Return the system's trusted authorities: ``system``, or a file if libpq is too old.

    The OpenSSL inside psycopg's binary package looks in a folder that no operating system has, so
    ``system`` finds nothing there unless SSL_CERT_FILE or SSL_CERT_DIR says where to look.
    """
    import psycopg

    told = os.environ.get("SSL_CERT_FILE") or os.environ.get("SSL_CERT_DIR")
    if psycopg.pq.version() >= 160000 and (told or psycopg.pq.__impl__ != "binary"):
        return SYSTEM
    file = os.environ.get("SSL_CERT_FILE")
    candidates = (file, ssl.get_default_verify_paths().cafile, *_ROOTS)
    found = next((path for path in candidates if path and os.path.isfile(path)), None)
    if found:
        return found
    import certifi

    return certifi.where()
