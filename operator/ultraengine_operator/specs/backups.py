"""What the pods of a shard need to back themselves up, and to be filled from a backup; nothing
where neither is wished.

A shard serves without its backups. So a Secret that is missing keeps no pod from starting: what
fails then is the backup, which says so.
"""

from collections.abc import Sequence

from ultraengine_operator import names
from ultraengine_operator.api.quantities import seconds
from ultraengine_operator.api.types import Backup, Restore
from ultraengine_operator.specs.view import Manifest


def settings(wish: Backup | None) -> dict[str, str]:
    """Where to, and how often."""
    if wish is None:
        return {}
    return {
        "ULTRA_BACKUP": wish.location,
        "ULTRA_BACKUP_INTERVAL_S": seconds(wish.interval),
    }


def credentials(wish: Backup | Restore | None) -> list[Manifest]:
    """Variables with the keys of the store; empty where the pod's account lets in."""
    if wish is None or wish.credentials_secret_name is None:
        return []
    secret = wish.credentials_secret_name
    return [
        {
            "name": name,
            "valueFrom": {"secretKeyRef": {"name": secret, "key": name, "optional": True}},
        }
        for name in names.STORE_KEYS
    ]


def marks(*wishes: Backup | Restore | None) -> dict[str, str]:
    """Labels of the pods that may reach a store."""
    return {} if all(wish is None for wish in wishes) else {names.BACKED_UP: "true"}


def order(wish: Restore, shard: int, *, engine_uid: str, domains: Sequence[str]) -> list[str]:
    """What a container is told that fills a shard's empty volume, before the first start."""
    told = [
        "restore", "--from", wish.location, "--data", "/data", "--shard", str(shard),
        "--engine-uid", engine_uid, "--first-start", f"/etc/ultra/map/{names.MAP_KEY}",
        "--report", "/dev/termination-log",
    ]  # fmt: skip
    for domain in domains:
        told += ["--domain", domain]
    if shard < len(wish.offsets):
        told += ["--offset", wish.offsets[shard]]
    elif wish.time is not None:
        told += ["--at", wish.time]
    return told
