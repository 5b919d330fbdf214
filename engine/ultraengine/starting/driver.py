"""What a process reads and opens before it serves; what is wrong with it is a setting."""

import asyncio
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, TypeVar

import structlog

from ultraengine.config import Config, ConfigErrors
from ultraengine.edge.auth import KeyFileError, Loopback
from ultraengine.edge.early.driver import listen_all
from ultraengine.edge.quota import Quotas
from ultraengine.edge.server import KeyFile, let_in
from ultraengine.gateway.hop import HopIdentity
from ultraengine.log.identity import IDENTITY_PATH
from ultraengine.model.ids import ShardId
from ultraengine.ports import Clock, Disk, Identity, RecordStore
from ultraengine.router.first_ownership import settle
from ultraengine.router.shard_map import MapRefused, ShardMap
from ultraengine.shard.ownership import PATH as SLOTS_PATH

RECORD_RETRY_S: Final = 0.5
"""Until the place of a record that does not answer is asked again."""

T = TypeVar("T")

log = structlog.get_logger("replication")


def read_map(path: Path) -> ShardMap:
    """The published shard map.  Raises `ConfigErrors`."""
    try:
        return ShardMap.decode(path.read_bytes())
    except (OSError, MapRefused) as error:
        raise ConfigErrors([f"ULTRA_MAP: {error}"]) from error


def read_secret(path: Path) -> str:
    """A hop key.  Raises ValueError for one that is too short, OSError."""
    secret = path.read_text().strip()
    HopIdentity(secret)
    return secret


def identity_of(config: Config, clock: Clock, quotas: Quotas) -> tuple[Identity, KeyFile | None]:
    """Who is let in: whom a front names, who has a key, or nobody but this machine.

    Raises `ConfigErrors`.
    """
    if config.hop_key is not None:
        try:
            return HopIdentity(read_secret(config.hop_key)), None
        except (OSError, ValueError) as error:
            raise ConfigErrors([f"ULTRA_HOP_KEY: {error}"]) from error
    if config.api_keys is None:
        return Loopback(), None
    try:
        table = KeyFile.read(config.api_keys)
    except (KeyFileError, OSError) as error:
        raise ConfigErrors([f"ULTRA_API_KEYS: {error}"]) from error
    return let_in(table, config.api_keys, clock, quotas)


def listen_for(config: Config, *, together: bool) -> list[socket.socket]:
    """The sockets that answer while a shard recovers; `together`: admin has no port of its own.

    None at ``ULTRA_SOCKET``: nobody probes it, and its file may be another process's until the
    lock of the directory is ours.  Raises `ConfigErrors`.
    """
    if config.socket is not None:
        return []
    ports = [config.port] if together else [config.port, config.admin_port]
    try:
        return listen_all(config.host, ports)
    except OSError as error:
        where = f"{config.host}, {' and '.join(map(str, ports))}"
        raise ConfigErrors([f"ULTRA_PORT: cannot listen on {where}: {error}"]) from error


async def answered(ask: Callable[[], T]) -> T:
    """What the place of a record answers; `ask` blocks, and is asked again until it does."""
    while True:
        try:
            return await asyncio.to_thread(ask)
        except OSError as error:
            log.warning("record.no_answer", why=str(error))
        await asyncio.sleep(RECORD_RETRY_S)


async def has_record(records: RecordStore) -> bool:
    """Whether the copies of this shard have ever been in force; waits until the place answers."""
    return await answered(records.read) is not None


def own_slots(config: Config, disk: Disk, *, joins: bool) -> None:
    """Have the disk of a pod say what its shard owns; `joins`: it is a copy of a shard that has a
    record.  Raises `ConfigErrors`, and as `settle` does."""
    published, shard = config.map, ShardId(config.shard)
    if published is not None and config.engine_uid is not None:
        settle(
            disk,
            shard,
            config.engine_uid,
            lambda: read_map(published),
            others=lambda: others_beside(config.data, shard),
            joins=joins,
        )


def others_beside(data: Path, shard: ShardId) -> Sequence[ShardId]:
    """The other shards that have something in the directory of a volume, ascending."""
    found = []
    for place in data.glob("shard-*"):
        number = place.name.removeprefix("shard-")
        is_used = any((place / name).exists() for name in (SLOTS_PATH, IDENTITY_PATH))
        if is_used and number.isdecimal() and int(number) != shard:
            found.append(ShardId(int(number)))
    return sorted(found)
