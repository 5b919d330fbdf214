"""The published map, and the listening sockets of `ultra serve`; what is wrong is a setting."""

import socket
from pathlib import Path

from ultraengine.config import Config, ConfigErrors
from ultraengine.edge.early.driver import listen_all
from ultraengine.router.shard_map import MapRefused, ShardMap


def read_map(path: Path) -> ShardMap:
    """The published shard map.  Raises `ConfigErrors`."""
    try:
        return ShardMap.decode(path.read_bytes())
    except (OSError, MapRefused) as error:
        raise ConfigErrors([f"ULTRA_MAP: {error}"]) from error


def listen_for(config: Config, *, together: bool) -> list[socket.socket]:
    """The sockets of all doors; `together`: admin has no port of its own.

    Raises `ConfigErrors`.
    """
    ports = [config.port] if together else [config.port, config.admin_port]
    try:
        return listen_all(config.host, [] if config.socket else ports, config.socket)
    except OSError as error:
        where = config.socket or f"{config.host}, {ports}"
        raise ConfigErrors([f"ULTRA_PORT: cannot listen on {where}: {error}"]) from error
