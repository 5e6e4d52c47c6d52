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
    """A password that is no live credential; the message says why, and never holds the password."""


@dataclass(frozen=True)
class Claims:
    """The identity and the purpose of a token: a Postgres endpoint, or the workspace's REST API."""

    identity: str
    audience: str


class Issuer:
    """
    Issue tokens and check them; the key is made anew with each issuer, so tokens end with it.

    :param name: The issuer's URL, in the claim ``iss``.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._key = ec.generate_private_key(ec.SECP256R1())

    def issue(self, identity: str, audience: str, ttl: int, **claims: Any) -> tuple[str, int]:
        """
        Return a token and when it expires, in seconds since the epoch.

        :param identity: Application id or user name, in ``sub``.
        :param audience: Endpoint or workspace URL, in ``aud``.
        :param ttl: Seconds to live.
        :param claims: Further claims.
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
        Return what a live token says.

        :raises CredentialRefusedError: if it is none of ours, or has expired.
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
    """Tell a JWT from a password that somebody chose."""
    return password.startswith("eyJ") and password.count(".") == 2
