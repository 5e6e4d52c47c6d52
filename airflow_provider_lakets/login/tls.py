"""TLS: a login to another machine verifies the certificate of the server first."""

from __future__ import annotations

import os
import ssl
from typing import TYPE_CHECKING, Any

from airflow_provider_lakets.exceptions import LakebaseCredentialError, LakebaseSettingError
from airflow_provider_lakets.login.address import is_local
from airflow_provider_lakets.login.gate import shown

if TYPE_CHECKING:
    from collections.abc import Mapping

# Modes in which libpq uses clear text, or may if the server or an attacker requests it.
CLEAR_TEXT_MODES = ("disable", "allow", "prefer")
MODES = (*CLEAR_TEXT_MODES, "require", "verify-ca", "verify-full")

SYSTEM = "system"  # libpq's name for the authorities that the operating system trusts

# Variables that can make libpq connect to another server; no argument turns them off.
_ELSEWHERE = {
    "PGHOSTADDR": "every login would go to that address (one connection's own is hostaddr in its extra)",
    "PGSERVICE": "a service file may send a login elsewhere, or without TLS",
}

# The files in which operating systems store the authorities that they trust.
_ROOTS = (
    "/etc/ssl/certs/ca-certificates.crt",  # Debian, Ubuntu, Alpine, Arch
    "/etc/pki/tls/certs/ca-bundle.crt",  # Red Hat
    "/etc/ssl/ca-bundle.pem",  # SUSE
    "/etc/ssl/cert.pem",  # macOS, BSD
)


def secured(settings: Mapping[str, Any], host: str, conn_label: str) -> dict[str, Any]:
    """
    Return the settings of libpq that verify the server.

    Without ``sslmode``, the default for another machine is ``verify-full``. A weaker mode applies
    only if the connection sets it, not if the environment does.

    :param settings: The settings of the connection.
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
            f"{conn_label}: gssencmode is {shown(settings['gssencmode'])}; it would replace TLS, which "
            "verifies the server. Remove it."
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
        # libpq tries GSSAPI before TLS; GSSAPI ignores sslmode and the certificate.
        "gssencmode": "disable",
        **({"sslrootcert": roots} if roots else {}),
    }


def stays_here(settings: Mapping[str, Any], host: str) -> bool:
    """Return whether all hosts and addresses of a login are on this machine."""
    places = f"{host},{settings['hostaddr']}" if settings.get("hostaddr") else host
    return all(is_local(place) for place in places.split(","))


def forbid_clear_text(login: Mapping[str, Any], *, conn_label: str) -> None:
    """
    Refuse to send a minted credential over a network without TLS.

    Postgres requests the credential in clear text, so only TLS protects it. An sslmode without TLS
    is accepted only for a Unix socket or the loopback interface.

    :param login: The arguments for libpq.
    :param conn_label: The Airflow connection, for the message.
    """
    mode = login.get("sslmode")
    if mode in CLEAR_TEXT_MODES and not stays_here(login, login["host"]):
        address = login.get("hostaddr") or login["host"]
        raise LakebaseCredentialError(
            f"{conn_label} asks for sslmode {mode!r} to {address!r}, which could send the database "
            "credential in clear text. Remove sslmode from its extra for the default, verify-full."
        )


def trusted_roots() -> str:
    """
    Return ``sslrootcert`` for the trusted authorities: ``system`` if that works, or a file.

    ``system`` needs libpq 16. With psycopg's binary package it also needs SSL_CERT_FILE or
    SSL_CERT_DIR, because the OpenSSL in the package searches a folder that no operating system has.
    The file is SSL_CERT_FILE, that of the operating system, or that of certifi.
    """
    import psycopg

    is_set = os.environ.get("SSL_CERT_FILE") or os.environ.get("SSL_CERT_DIR")
    if psycopg.pq.version() >= 160000 and (is_set or psycopg.pq.__impl__ != "binary"):
        return SYSTEM
    file = os.environ.get("SSL_CERT_FILE")
    candidates = (file, ssl.get_default_verify_paths().cafile, *_ROOTS)
    found = next((path for path in candidates if path and os.path.isfile(path)), None)
    if found:
        return found
    import certifi

    return certifi.where()
