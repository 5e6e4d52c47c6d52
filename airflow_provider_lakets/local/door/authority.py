"""The authority of a local Lakebase's certificates: made once, so clients keep trusting it."""

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

    :param folder: Holds the authority, whose key only the owner may read.
    :param hosts: Names and addresses that it is for.
    """
    key, shown = folder / _KEY_FILE, folder / AUTHORITY_FILE
    if key.exists() and shown.exists():
        return trustme.CA.from_pem(shown.read_bytes(), key.read_bytes()).issue_cert(*hosts)
    key.unlink(missing_ok=True)
    authority = trustme.CA(organization_name="Local Lakebase")
    authority.cert_pem.write_to_path(str(shown))
    # First and last: a run that is killed in between leaves no pair that does not match.
    fresh = key.with_suffix(".new")
    with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as out:
        out.write(authority.private_key_pem.bytes())
    fresh.replace(key)
    return authority.issue_cert(*hosts)


def server_context(leaf: trustme.LeafCert) -> ssl.SSLContext:
    """Return a server's side of TLS, with settings of its own: listeners change theirs."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    leaf.configure_cert(context)
    return context


def client_context(folder: Path) -> ssl.SSLContext:
    """Return the side of a client that trusts the authority and no other."""
    return ssl.create_default_context(cafile=str(folder / AUTHORITY_FILE))
