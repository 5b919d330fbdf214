"""From the directory that a person names to the ports on it."""

import os
from pathlib import Path

from ultraengine.cli.exits import CommandFailed
from ultraengine.log.identity import IDENTITY_PATH
from ultraengine_adapters.local.disk import LocalDisk
from ultraengine_adapters.local.secrets import FileSecrets


def shard_directory(path: Path) -> Path:
    """The directory of one shard: `path` itself, or the only one in it.

    Raises `CommandFailed` when there is none or more than one.
    """
    if not path.is_dir():
        raise CommandFailed(f"{path} is no directory")
    if (path / IDENTITY_PATH).exists():
        return path
    shards = sorted(child for child in path.glob("shard-*") if child.is_dir())
    if len(shards) == 1:
        return shards[0]
    if shards:
        names = ", ".join(str(shard) for shard in shards)
        raise CommandFailed(f"{path} holds several shards", advice=f"Name one: {names}")
    raise CommandFailed(
        f"{path} holds no shard",
        advice="Name the directory that was given to 'ultra dev --data' or ULTRA_DATA.",
    )


def open_disk(path: Path) -> LocalDisk:
    """The disk of the shard in `path`."""
    return LocalDisk(shard_directory(path))


def open_secrets(directory: Path | None) -> FileSecrets:
    """Keys from a directory of files, then from ``ULTRA_SECRET_…``."""
    return FileSecrets(directory, os.environ)


def secrets_directory(named: Path | None) -> Path | None:
    """The one that was named, else that of ``ULTRA_SECRETS``."""
    found = os.environ.get("ULTRA_SECRETS")
    return Path(found) if named is None and found else named
