"""What `ultra gateway` is told: one frozen value, read from ``ULTRA_*``, all mistakes together."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import msgspec

from ultraengine.config import ConfigErrors, read_settings
from ultraengine.model.ids import ShardId
from ultraengine.model.limits import DEFAULT_LIMITS, Limits
from ultraengine.router.driver import Address

PLACE: Final = "{shard}"
"""What stands for a shard's number in an address."""
_LABEL: Final = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")


class AddressRefused(ValueError):
    """The text is no address of shards; the message says why."""


def address_of(template: str, shard: ShardId) -> Address:
    """Where a shard listens.  Raises `AddressRefused`."""
    if PLACE not in template:
        raise AddressRefused(f"{template!r} has no {PLACE}: every shard has an address of its own")
    text = template.replace(PLACE, str(shard))
    try:
        url = urlsplit(text)
        host, port = url.hostname, url.port
    except ValueError as error:
        raise AddressRefused(f"{template!r}: {error}") from error
    plain = url.path in {"", "/"} and not (url.query or url.fragment or url.username)
    if url.scheme != "http" or not plain or not is_host(host or "") or port == 0:
        raise AddressRefused(
            f"{template!r} is not http://HOST:PORT with {PLACE} in it; it is {text!r} for shard "
            f"{shard}"
        )
    return Address(host=host or "", port=80 if port is None else port)


def is_host(text: str) -> bool:
    """Whether it is a host name or an IPv4 address: what a resolver takes."""
    labels = text.removesuffix(".").split(".")
    return len(text) < 254 and all(_LABEL.fullmatch(label) for label in labels)


class GatewaySettings(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that a gateway needs to know before it starts."""

    map: Path | None = None
    """File with the published shard map; looked at again every second."""
    shard_address: str | None = None
    """``http://HOST:PORT`` of the shards, with ``{shard}`` for the number."""
    hop_key: Path | None = None
    """File with the secret that gateways and shards share."""
    api_keys: Path | None = None
    """File of API keys; it is read again when it changes."""
    keyless: bool = False
    """Ask nobody for a key, wherever the request comes from."""
    host: str = "127.0.0.1"
    port: int = 8080
    """Data API and health."""
    admin_port: int = 8081
    """Admin API, health and metrics; the same as ``port`` puts everything on one port."""
    domains: tuple[str, ...] = ("ultraengine.domains.ledger:DOMAIN",)
    """``package.module:ATTRIBUTE`` of each domain, for paths and documents."""
    tracing: bool = False
    """As for `ultra serve`."""
    linger_s: float = 5.0
    """After SIGTERM, how long it goes on serving while load balancers hear that it leaves."""
    limits: Limits = DEFAULT_LIMITS

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> "GatewaySettings":
        """Read ``ULTRA_*``.  Raises `ConfigErrors` with every mistake at once."""
        values, mistakes = read_settings(cls, environ)
        settings = cls(**values)
        named = {mistake.partition(":")[0] for mistake in mistakes}
        mistakes += [one for one in settings.mistakes() if one.partition(":")[0] not in named]
        if mistakes:
            raise ConfigErrors(mistakes)
        return settings

    def mistakes(self) -> list[str]:
        """What is missing, and what contradicts something else."""
        found = []
        if self.map is None:
            found.append("ULTRA_MAP: needed, a file with the shard map")
        if self.shard_address is None:
            found.append(f"ULTRA_SHARD_ADDRESS: needed, http://HOST:PORT with {PLACE} in it")
        else:
            try:
                address_of(self.shard_address, ShardId(0))
            except AddressRefused as error:
                found.append(f"ULTRA_SHARD_ADDRESS: {error}")
        if self.hop_key is None:
            found.append("ULTRA_HOP_KEY: needed, a file with the secret that the shards know")
        if self.api_keys is None and not self.keyless:
            found.append(
                "ULTRA_API_KEYS: needed; ULTRA_KEYLESS=true lets in whoever reaches the port"
            )
        if self.api_keys is not None and self.keyless:
            found.append("ULTRA_KEYLESS: there are ULTRA_API_KEYS; choose one of the two")
        if not 0 <= self.linger_s <= 600:
            found.append(f"ULTRA_LINGER_S: {self.linger_s:g} is not in 0..600")
        return found
