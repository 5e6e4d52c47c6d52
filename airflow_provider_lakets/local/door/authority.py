"""The certificate authority of a local Lakebase: created once, so that clients keep trusting it."""

from __future__ import annotations

import os
import ssl
from typing import TYPE_CHECKING

import trustme

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

AUTHORITY_FILE = "ca.pem"
_KEY_FILE = "ca.key"


def certificate(folder: Path, hosts: Sequence[str]) -> trustme.LeafCert:
    """
    Issue a certificate for this run; clients trust ``ca.pem``, which does not change.

    :param folder: Holds the authority; only the owner may read its key.
    :param hosts: The names and addresses that the certificate covers.
    """
    key, shown = folder / _KEY_FILE, folder / AUTHORITY_FILE
    if key.exists() and shown.exists():
        return trustme.CA.from_pem(shown.read_bytes(), key.read_bytes()).issue_cert(*hosts)
    key.unlink(missing_ok=True)
    authority = trustme.CA(organization_name="Local Lakebase")
    authority.cert_pem.write_to_path(str(shown))
    # Delete the old key first and write the new key last: a killed run leaves no wrong pair.
    fresh = key.with_suffix(".new")
    with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as out:
        out.write(authority.private_key_pem.bytes())
    fresh.replace(key)
    return authority.issue_cert(*hosts)


def server_context(leaf: trustme.LeafCert) -> ssl.SSLContext:
    """Return a new TLS context for a server; listeners change theirs, so they cannot share."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    leaf.configure_cert(context)
    return context


def client_context(folder: Path) -> ssl.SSLContext:
    """Return a TLS context for a client that trusts only this authority."""
    return ssl.create_default_context(cafile=str(folder / AUTHORITY_FILE))
