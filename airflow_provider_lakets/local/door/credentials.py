"""Short-lived Postgres passwords: JWTs for an identity and an endpoint, signed by this Lakebase."""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec

_ALGORITHM = "ES256"


class CredentialRefusedError(ValueError):
    """The password is not a valid credential; the message says why, without the password."""


@dataclass(frozen=True)
class Claims:
    """The identity and the purpose of a token: a Postgres endpoint, or the workspace's REST API."""

    identity: str
    audience: str


class Issuer:
    """
    Issue and check tokens; each issuer has a new key, so its tokens are valid only while it exists.

    :param name: The issuer's URL, in the claim ``iss``.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._key = ec.generate_private_key(ec.SECP256R1())

    def issue(self, identity: str, audience: str, ttl: int, **claims: Any) -> tuple[str, int]:
        """
        Return a token and its expiry time, in seconds since the epoch.

        :param identity: The application id or user name, for claim ``sub``.
        :param audience: The URL of the endpoint or workspace, for claim ``aud``.
        :param ttl: The lifetime in seconds.
        :param claims: Additional claims.
        """
        now = int(time.time())
        expires = now + ttl
        payload = {
            "iss": self.name,
            "sub": identity,
            "client_id": identity,
            "aud": audience,
            "iat": now,
            "exp": expires,
            "jti": str(uuid.uuid4()),
            **claims,
        }
        return jwt.encode(payload, self._key, algorithm=_ALGORITHM), expires

    def check(self, token: str) -> Claims:
        """
        Return the claims of a valid token.

        :raises CredentialRefusedError: if the token is from another issuer, or has expired.
        """
        try:
            payload = jwt.decode(
                token,
                self._key.public_key(),
                algorithms=[_ALGORITHM],
                issuer=self.name,
                options={"verify_aud": False, "require": ["exp", "sub", "aud"]},
            )
        except jwt.ExpiredSignatureError:
            raise CredentialRefusedError("the token has expired") from None
        except jwt.InvalidTokenError:
            raise CredentialRefusedError("the token was not issued here") from None
        return Claims(identity=payload["sub"], audience=payload["aud"])


def looks_like_token(password: str) -> bool:
    """Return whether a password is a JWT rather than a chosen password."""
    return password.startswith("eyJ") and password.count(".") == 2
