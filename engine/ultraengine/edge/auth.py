"""Who is it?  API keys from a file, or nobody but the loopback (requirement 004 REQ_014).

A key is ``ultra_<prefix>_<secret>``: eight characters that name it (in logs, in the file,
for leak scanners) and 256 random bits.  The file keeps the SHA-256 of the whole key and
nothing else: a slow hash protects passwords that can be guessed, which 256 random bits
cannot.  Each (tenant, principal) may have two live keys, so that keys are rotated without
a refused request.

    [[keys]]
    prefix = "k7hq2x9d"
    sha256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
    tenant = "acme"
    principal = "till-7"
    scopes = ["ledger:read", "ledger:write"]
    expires = 2027-01-01T00:00:00Z          # optional

    [tenants.acme]                          # optional, instead of the limits' defaults
    commands_per_s = 5000
    burst = 10000

The tenant of a request is always the key's, never a member of the body.
"""

import base64
import hashlib
import hmac
import re
import tomllib
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Annotated, Final
from urllib.parse import urlsplit

import msgspec

from ultraengine.model.command import SYSTEM_TENANT
from ultraengine.model.errors import EngineError
from ultraengine.model.ids import Instant, is_name
from ultraengine.ports import Caller, Clock, Random

KEYS_PER_PRINCIPAL_MAX: Final = 2
"""Live keys of one (tenant, principal): the one in use and the one that replaces it."""
LOOPBACK_TENANT: Final = "default"
LOOPBACK_PRINCIPAL: Final = "loopback"
ANYBODY_PRINCIPAL: Final = "anybody"
ADMIN_SCOPE: Final = "admin"
FEED_SCOPE: Final = "feed"
"""To read the feed, which carries the commands of all tenants."""
_KEY: Final = re.compile(r"ultra_(?P<prefix>[a-z2-7]{8})_[A-Za-z0-9_-]{43}")
_SCOPE: Final = re.compile(r"admin|feed|(\*|[a-z][a-z0-9_]{0,31}):[a-z][a-z0-9_]{0,31}")
_LOOPBACK_HOSTS: Final = frozenset({"localhost", "127.0.0.1", "::1"})
_FORWARDED: Final = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class KnownCaller(msgspec.Struct, frozen=True):
    """`ports.Caller` as a value."""

    tenant: str
    principal: str
    scopes: frozenset[str]
    key_prefix: str = ""
    """Which key it was, for the audit log; empty on the keyless loopback."""


class KeyEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One key of the file."""

    prefix: Annotated[str, msgspec.Meta(pattern="^[a-z2-7]{8}$")]
    sha256: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
    tenant: str
    principal: str
    scopes: list[str]
    expires: Annotated[datetime, msgspec.Meta(tz=True)] | None = None


class TenantQuota(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A tenant's own quotas; what is not said is as for everybody."""

    commands_per_s: Annotated[float, msgspec.Meta(ge=0)] | None = None
    burst: Annotated[int, msgspec.Meta(ge=1)] | None = None
    reads_per_s: Annotated[float, msgspec.Meta(ge=0)] | None = None
    """Of one `ultra query`."""
    reads_burst: Annotated[int, msgspec.Meta(ge=1)] | None = None


class KeyFileContent(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a key file says, in its own order."""

    keys: list[KeyEntry] = []
    tenants: dict[str, TenantQuota] = {}


class KeyFileError(ValueError):
    """The key file cannot be used; the message lists every mistake, one per line."""


class _Known(msgspec.Struct, frozen=True):
    digest: bytes
    caller: KnownCaller
    expires: int | None


class KeyTable(msgspec.Struct, frozen=True):
    """A parsed key file."""

    known: Mapping[str, _Known]
    quotas: Mapping[str, TenantQuota]

    @classmethod
    def parse(cls, content: bytes) -> "KeyTable":
        """Read the file's TOML.  Raises `KeyFileError` with all its mistakes together."""
        parsed = read_keys(content)
        known = {
            entry.prefix: _Known(
                bytes.fromhex(entry.sha256),
                KnownCaller(entry.tenant, entry.principal, frozenset(entry.scopes), entry.prefix),
                None
                if entry.expires is None
                else (entry.expires - _EPOCH) // timedelta(microseconds=1),
            )
            for entry in parsed.keys
        }
        return cls(known, parsed.tenants)

    def find(self, key: str, now: Instant) -> KnownCaller:
        """The caller of a key.  Raises `EngineError` UNAUTHENTICATED without saying why more
        exactly than a stranger may know."""
        shape = _KEY.fullmatch(key)
        known = self.known.get(shape["prefix"]) if shape is not None else None
        if known is None or not hmac.compare_digest(
            known.digest, hashlib.sha256(key.encode()).digest()
        ):
            raise _unauthenticated("this API key is not known")
        if known.expires is not None and now >= known.expires:
            raise _unauthenticated("this API key has expired")
        return known.caller


def _unauthenticated(detail: str) -> EngineError:
    return EngineError(detail, code="UNAUTHENTICATED", pointer="/header/authorization")


def read_keys(content: bytes) -> KeyFileContent:
    """The entries of a file.  Raises `KeyFileError` with all its mistakes together."""
    try:
        parsed = msgspec.convert(tomllib.loads(content.decode()), KeyFileContent)
    except (ValueError, msgspec.ValidationError) as error:
        raise KeyFileError(str(error)) from error
    check_keys(parsed)
    return parsed


def check_keys(parsed: KeyFileContent) -> None:
    """Raises `KeyFileError` with all mistakes together, one per line."""
    mistakes = _mistakes(parsed)
    if mistakes:
        raise KeyFileError("\n".join(mistakes))


def _mistakes(parsed: KeyFileContent) -> list[str]:
    mistakes: list[str] = []
    prefixes: set[str] = set()
    live: dict[tuple[str, str], int] = {}
    for number, entry in enumerate(parsed.keys):
        where = f"keys[{number}]"
        if entry.prefix in prefixes:
            mistakes.append(f"{where}: the prefix {entry.prefix} is there twice")
        prefixes.add(entry.prefix)
        if not is_name(entry.tenant) or entry.tenant == SYSTEM_TENANT:
            mistakes.append(f"{where}: tenant {entry.tenant!r} is not a name for a tenant")
        if not is_name(entry.principal):
            mistakes.append(f"{where}: principal {entry.principal!r} is not a name")
        mistakes += [
            f"{where}: scope {scope!r} is not 'domain:read', 'domain:write', '*:...', 'feed' "
            "or 'admin'"
            for scope in entry.scopes
            if _SCOPE.fullmatch(scope) is None
        ]
        owner = (entry.tenant, entry.principal)
        live[owner] = live.get(owner, 0) + 1
        if live[owner] == KEYS_PER_PRINCIPAL_MAX + 1:
            mistakes.append(
                f"{where}: {entry.tenant}/{entry.principal} has more than "
                f"{KEYS_PER_PRINCIPAL_MAX} keys"
            )
    mistakes += [
        f"tenants: {name!r} is not a name for a tenant"
        for name in parsed.tenants
        if not is_name(name)
    ]
    return mistakes


def issue_key(
    random: Random,
    *,
    tenant: str,
    principal: str,
    scopes: list[str],
    expires: datetime | None = None,
) -> tuple[str, KeyEntry]:
    """A new key, to be shown once, and its entry for the file."""
    prefix = base64.b32encode(random.bytes(5)).decode().lower()
    secret = base64.urlsafe_b64encode(random.bytes(32)).decode().rstrip("=")
    key = f"ultra_{prefix}_{secret}"
    digest = hashlib.sha256(key.encode()).hexdigest()
    return key, KeyEntry(prefix, digest, tenant, principal, scopes, expires)


def entry_text(entry: KeyEntry) -> str:
    """An entry as it stands in the file.

    All members are limited to characters that TOML strings take as they are.
    """
    scopes = ", ".join(f'"{scope}"' for scope in entry.scopes)
    lines = [
        "[[keys]]",
        f'prefix = "{entry.prefix}"',
        f'sha256 = "{entry.sha256}"',
        f'tenant = "{entry.tenant}"',
        f'principal = "{entry.principal}"',
        f"scopes = [{scopes}]",
    ]
    if entry.expires is not None:
        lines.append(f"expires = {entry.expires.astimezone(UTC).strftime('%Y-%m-%dT%H:%M:%SZ')}")
    return "\n".join(lines) + "\n"


class ApiKeys:
    """`ports.Identity` over a key table that may be replaced while it is in use."""

    def __init__(self, table: KeyTable, clock: Clock) -> None:
        self.table = table
        self._clock = clock

    def authenticate(self, headers: Mapping[str, str], *, peer_is_loopback: bool) -> Caller:
        """The caller of ``Authorization: Bearer <key>``."""
        del peer_is_loopback  # A key counts wherever it comes from.
        value = headers.get("authorization")
        if value is None:
            raise _unauthenticated("there is no Authorization header")
        scheme, _, key = value.partition(" ")
        if scheme.lower() != "bearer":
            raise _unauthenticated("the Authorization header is not 'Bearer <key>'")
        return self.table.find(key.strip(), self._clock.now())


class Loopback:
    """`ports.Identity` for one machine: no key, but only from the machine itself.

    A web page that the user happens to look at is on this machine too, so two headers that a
    page cannot forge are checked: ``Host`` must name the loopback (a foreign name pointed at
    127.0.0.1 keeps its own Host) and ``Origin``, where there is one, must be this server.
    Requests that a proxy has forwarded do not count as local.
    """

    def __init__(self, tenant: str = LOOPBACK_TENANT) -> None:
        self._caller = KnownCaller(
            tenant, LOOPBACK_PRINCIPAL, frozenset({"*:read", "*:write", ADMIN_SCOPE})
        )

    def authenticate(self, headers: Mapping[str, str], *, peer_is_loopback: bool) -> Caller:
        """The one local caller."""
        if not peer_is_loopback or any(name in headers for name in _FORWARDED):
            raise _unauthenticated("without API keys this engine answers its own machine alone")
        host = headers.get("host", "")
        if not _is_loopback_host(host):
            raise EngineError(
                f"the Host {host[:100]!r} is not the loopback",
                code="FORBIDDEN",
                pointer="/header/host",
            )
        _require_own_origin(headers, host)
        return self._caller


class Anybody:
    """`ports.Identity` without keys for a network that is trusted as a whole: whoever reaches the
    port is the one caller, with every scope but ``admin``.  That is for this machine alone."""

    def __init__(self, tenant: str = LOOPBACK_TENANT) -> None:
        self._near = Loopback(tenant)
        self._caller = KnownCaller(
            tenant, ANYBODY_PRINCIPAL, frozenset({"*:read", "*:write", FEED_SCOPE})
        )

    def authenticate(self, headers: Mapping[str, str], *, peer_is_loopback: bool) -> Caller:
        """The one caller.  Raises `EngineError` FORBIDDEN for another site's web page."""
        host = headers.get("host", "")
        forwarded = any(name in headers for name in _FORWARDED)
        if peer_is_loopback and not forwarded and _is_loopback_host(host):
            return self._near.authenticate(headers, peer_is_loopback=True)
        _require_own_origin(headers, host)
        return self._caller


def _require_own_origin(headers: Mapping[str, str], host: str) -> None:
    origin = headers.get("origin")
    if origin is not None and origin.lower() != f"http://{host.lower()}":
        raise EngineError(
            f"the Origin {origin[:100]!r} is not this server",
            code="FORBIDDEN",
            pointer="/header/origin",
        )


@lru_cache(maxsize=64)
def _is_loopback_host(host: str) -> bool:
    """Whether a Host header names the loopback, whatever its port."""
    try:
        return urlsplit(f"//{host}").hostname in _LOOPBACK_HOSTS
    except ValueError:
        return False


def require_scope(caller: Caller, domain: str, verb: str) -> None:
    """Raise `EngineError` FORBIDDEN unless the caller has ``domain:verb`` or ``*:verb``."""
    if f"{domain}:{verb}" not in caller.scopes and f"*:{verb}" not in caller.scopes:
        raise EngineError(f"this needs the scope {domain}:{verb}", code="FORBIDDEN")


def require_admin(caller: Caller) -> None:
    """Raise `EngineError` FORBIDDEN unless the caller has the scope ``admin``."""
    if ADMIN_SCOPE not in caller.scopes:
        raise EngineError(f"this needs the scope {ADMIN_SCOPE}", code="FORBIDDEN")


def require_feed(caller: Caller) -> None:
    """Raise `EngineError` FORBIDDEN unless the caller has the scope ``feed`` or ``admin``."""
    if FEED_SCOPE not in caller.scopes and ADMIN_SCOPE not in caller.scopes:
        raise EngineError(f"this needs the scope {FEED_SCOPE}", code="FORBIDDEN")
