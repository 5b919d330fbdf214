"""Who a forwarded request comes from: told by a front, believed by its shards.

The front authenticates; a shard behind it takes the caller from two headers:

    Ultra-Hop-Key   a secret that fronts and shards share
    Ultra-Caller    base64url of {"tenant", "principal", "scopes"} as JSON

Only who has the secret can name a caller, so it is as good as all API keys together.
Requirement 004 REQ_014.
"""

import base64
import binascii
import hmac
from collections.abc import Mapping
from functools import lru_cache
from typing import Final

import msgspec

from ultraengine.edge.auth import KnownCaller
from ultraengine.model.errors import EngineError
from ultraengine.ports import Caller

KEY_HEADER: Final = "Ultra-Hop-Key"
CALLER_HEADER: Final = "Ultra-Caller"
SECRET_LENGTH_MIN: Final = 32
"""Characters of the secret; shorter ones are refused at the start."""


class _Named(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    tenant: str
    principal: str
    scopes: list[str]


@lru_cache(maxsize=4_096)
def _caller_text(tenant: str, principal: str, scopes: frozenset[str]) -> str:
    named = _Named(tenant, principal, sorted(scopes))
    return base64.urlsafe_b64encode(msgspec.json.encode(named)).decode("ascii")


@lru_cache(maxsize=4_096)
def _caller_of(text: str) -> KnownCaller:
    named = msgspec.json.decode(base64.urlsafe_b64decode(text), type=_Named)
    return KnownCaller(named.tenant, named.principal, frozenset(named.scopes))


def hop_headers(secret: str, caller: Caller) -> tuple[tuple[str, str], ...]:
    """The headers that a front adds for a caller."""
    text = _caller_text(caller.tenant, caller.principal, caller.scopes)
    return ((KEY_HEADER, secret), (CALLER_HEADER, text))


class HopIdentity:
    """`ports.Identity` of a shard behind a front.  Raises ValueError for a short secret."""

    def __init__(self, secret: str) -> None:
        if len(secret) < SECRET_LENGTH_MIN or not (secret.isascii() and secret.isprintable()):
            raise ValueError(
                f"a hop key has at least {SECRET_LENGTH_MIN} printable ASCII characters"
            )
        self._secret = secret.encode()

    def authenticate(self, headers: Mapping[str, str], *, peer_is_loopback: bool) -> Caller:
        """The caller that the front names.  Raises `EngineError` UNAUTHENTICATED."""
        del peer_is_loopback  # The secret decides, wherever the front runs.
        given = headers.get("ultra-hop-key", "")
        if not hmac.compare_digest(given.encode(), self._secret):
            raise EngineError(
                "this shard takes requests from its front alone", code="UNAUTHENTICATED"
            )
        try:
            return _caller_of(headers.get("ultra-caller", ""))
        except (binascii.Error, msgspec.MsgspecError, ValueError) as error:
            raise EngineError(f"no caller: {error}", code="UNAUTHENTICATED") from error
