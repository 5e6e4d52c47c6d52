"""Addresses: local hosts, workspace URLs and Postgres hosts."""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import urlsplit

from airflow_provider_lakets.exceptions import LakebaseCredentialError, LakebaseSettingError
from airflow_provider_lakets.login.gate import shown_host

_HOST_NAME = re.compile(r"(?!.{254})[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*\.?")
_NAME = re.compile(r"[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*\.?")


def is_local(host: str) -> bool:
    """Return whether a host is on this machine: a Unix socket or a loopback address."""
    if host.startswith(("/", "@")) or host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def workspace_url(host: object, conn_label: str) -> str:
    """
    Return the URL of a workspace: scheme, host and port.

    :param host: The host as written by users, optionally with a scheme, white space or a path.
    :param conn_label: The Airflow connection, for the message.
    :raises LakebaseCredentialError: if the host is invalid, contains a user name or a password, or
        would transmit secrets in clear text.
    """
    text = str(host).strip()
    try:
        parts = urlsplit(text if "://" in text else f"https://{text}")
        scheme, name, port = parts.scheme, parts.hostname or "", parts.port
        user = "@" in parts.netloc
    except ValueError:
        scheme, name, port, user = "", "", None, False
    if user:
        raise LakebaseCredentialError(
            f"{conn_label}: the address of the Databricks workspace contains a user name or a password "
            "before an @. Remove it: the identity comes from login and password of a Databricks connection, "
            "or from DATABRICKS_CLIENT_ID and DATABRICKS_CLIENT_SECRET."
        )
    in_brackets = ":" in name and is_ip(name)
    if scheme not in ("https", "http") or not (in_brackets or _NAME.fullmatch(name)):
        raise LakebaseCredentialError(
            f"{conn_label}: the Databricks workspace {shown_host(text)} is not an https:// address. Give one "
            "such as https://my.cloud.databricks.com."
        )
    if scheme == "http" and not is_local(name):
        raise LakebaseCredentialError(
            f"{conn_label}: the Databricks workspace {shown_host(text)} is not an https:// address, so the "
            "identity's secret would travel in clear text. Use https://; http:// is for this machine only."
        )
    return f"{scheme}://{f'[{name}]' if in_brackets else name}" + (f":{port}" if port else "")


def without_user(host: str) -> str:
    """Return an address without the user name and password before an @, for a link."""
    return re.sub(r"(^|//)[^/?#]*@", r"\1", host)


def is_ip(text: str) -> bool:
    """Return whether a text is an IP address."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def postgres_host(host: str, conn_label: str) -> str:
    """
    Return a Postgres host: a name, an IP address or a socket, or several separated by commas.

    :param host: The host as written by users, optionally with an http scheme, a trailing slash or
        brackets.
    :param conn_label: The Airflow connection, for the message.
    """
    scheme, mark, rest = host.partition("://")
    if mark and scheme.lower() in ("http", "https"):
        host = rest
    host = ",".join(_without_brackets(part) for part in host.split(","))
    if is_host(host := host.rstrip("/") or host):
        return host
    raise LakebaseSettingError(
        f"{conn_label}: its host {shown_host(host)} is not a host name. Give the name alone, as in "
        "ep-cool-lake.database.us-west-2.cloud.databricks.com: port, role and password have separate fields. "
        "A whole connection string begins with postgresql://."
    )


def is_host(host: str) -> bool:
    """Return whether libpq accepts a text as a host, or as several hosts."""
    return host.isprintable() and all(
        part.startswith(("/", "@")) or _HOST_NAME.fullmatch(part) or is_ip(part) for part in host.split(",")
    )


def _without_brackets(host: str) -> str:
    """Return an IPv6 address without the brackets of a URL."""
    inner = host.removeprefix("[").removesuffix("]")
    return inner if len(inner) == len(host) - 2 and is_ip(inner) else host
