"""What the pods of a shard need to back themselves up, and to be filled from a backup; nothing
where neither is wished.

A shard serves without its backups. So a Secret that is missing keeps no pod from starting: what
fails then is the backup, which says so.
"""

from collections.abc import Mapping

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


def order(wish: Restore, shard: int, told: Mapping[str, str]) -> list[str]:
    """What fills a shard's empty volume, before the first start of who is `told` this."""
    made = [
        "restore", "--from", wish.location, "--data", told["ULTRA_DATA"], "--shard", str(shard),
        "--engine-uid", told["ULTRA_ENGINE_UID"], "--first-start", told["ULTRA_MAP"],
        "--report", "/dev/termination-log",
    ]  # fmt: skip
    for domain in told["ULTRA_DOMAINS"].split(","):
        made += ["--domain", domain]
    if shard < len(wish.offsets):
        made += ["--offset", wish.offsets[shard]]
    elif wish.time is not None:
        made += ["--at", wish.time]
    return made
