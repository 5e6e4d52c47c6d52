"""The Databricks identity that requests database credentials, and how it authenticates."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import requests
from requests.auth import HTTPBasicAuth

from airflow_provider_lakets import __version__
from airflow_provider_lakets.exceptions import (
    LakebaseConnectionError,
    LakebaseCredentialError,
    LakebaseSettingError,
)
from airflow_provider_lakets.login.address import workspace_url
from airflow_provider_lakets.login.answers import Answer
from airflow_provider_lakets.login.gate import basic_proof, clean
from airflow_provider_lakets.login.rest import RestError, send

if TYPE_CHECKING:
    from collections.abc import Mapping

RENEW_BEFORE = 120.0  # seconds; a workspace token is renewed this long before it expires
LONGEST_TOKEN = 24 * 3600.0  # seconds; a token is renewed after this time, even if it is valid for longer


class Identity:
    """
    A user or service principal of the workspace.

    :param conn_label: The Airflow connection that needs an identity, for messages.
    :param host: The address of the workspace.
    :param name: The identity and its source, for messages.
    :param role: The Postgres role of the identity, if it is known without a request.
    :param proxies: Proxies in the form of requests.
    """

    def __init__(
        self,
        conn_label: str,
        host: str,
        name: str,
        *,
        role: str | None = None,
        proxies: Mapping[str, str] | None = None,
    ) -> None:
        self.conn_label = conn_label
        self.host = workspace_url(host, conn_label)
        self.name = name
        self.role = role
        self.secrets: list[str] = []  # messages must not contain them
        self.session = requests.Session()
        # workspace_url allows plain HTTP only to this machine. Do not use the environment's proxies
        # for it.
        self.session.trust_env = self.host.startswith("https:")
        self.session.proxies.update(_proxies(proxies, conn_label))
        self.session.headers["User-Agent"] = f"airflow-provider-lakets/{__version__}"

    def headers(self) -> dict[str, str]:
        """Return the HTTP headers that authenticate the identity."""
        raise NotImplementedError

    def forget(self) -> bool:
        """Discard a rejected token; return False if there is none to discard."""
        return False


class ServicePrincipal(Identity):
    """
    A service principal with its OAuth secret (machine to machine).

    Its token is requested here, because databricks-sdk takes seconds to import, and the hook of
    the Databricks provider supports only https on port 443.

    :param client_id: The application id, which is also the name of its Postgres role.
    :param secret: Its OAuth secret.
    """

    def __init__(
        self,
        conn_label: str,
        host: str,
        client_id: str,
        secret: str,
        *,
        found: str,
        proxies: Mapping[str, str] | None = None,
    ) -> None:
        client_id = clean(client_id, f"the client id of the service principal ({found})", conn_label)
        name = f"service principal {client_id} ({found})"
        secret = clean(secret, f"the secret of the {name}", conn_label)
        super().__init__(conn_label, host, name, role=client_id, proxies=proxies)
        self._proof = HTTPBasicAuth(client_id, secret)
        self.secrets = [secret, basic_proof(client_id, secret)]
        self._token = ""
        self._renew_at = 0.0
        self._lock = threading.Lock()  # threads of a pool log in concurrently

    def headers(self) -> dict[str, str]:
        """Return the token of the principal; renew it before it expires."""
        with self._lock:
            if time.monotonic() >= self._renew_at:
                self._renew()
            return {"Authorization": f"Bearer {self._token}"}

    def forget(self) -> bool:
        """Make the next request fetch a new token."""
        self._renew_at = 0.0
        return True

    def _renew(self) -> None:
        form = {"grant_type": "client_credentials", "scope": "all-apis"}
        url = f"{self.host}/oidc/v1/token"
        try:
            answer = Answer(
                url, send(self.session, "POST", url, secrets=self.secrets, data=form, auth=self._proof)
            )
        except RestError as err:
            if err.is_transient:
                raise LakebaseConnectionError(
                    f"{self.conn_label}: the {self.name} got no token. {err} Try again later."
                ) from err
            if err.is_unsendable:
                raise LakebaseCredentialError(
                    f"{self.conn_label}: the {self.name} got no token. {err}"
                ) from err
            raise LakebaseCredentialError(
                f"{self.conn_label}: the {self.name} was refused a token. {err} Check the client id, that "
                "its secret has not expired, and that the principal belongs to the workspace."
            ) from err
        if not (token := answer.secret("access_token")):
            raise LakebaseCredentialError(
                f"{self.conn_label}: the {self.name} asked {self.host} for a token, "
                "but the response contains none."
            )
        self._token = clean(token, f"the token that {self.host} gave the {self.name}", self.conn_label)
        self._renew_at = time.monotonic() + answer.seconds("expires_in", LONGEST_TOKEN) - RENEW_BEFORE


def _proxies(proxies: object, conn_label: str) -> dict[str, str]:
    if proxies is None:
        return {}
    if isinstance(proxies, dict) and all(isinstance(value, str) for value in proxies.values()):
        return proxies
    raise LakebaseSettingError(
        f"{conn_label}: the proxies of its Databricks connection are not an object of strings. Write them as "
        '{"https": "http://proxy.example.com:3128"}.'
    )
