"""What the pods of a shard need to back themselves up; nothing where no backup is wished.

A shard serves without its backups. So a Secret that is missing keeps no pod from starting: what
fails then is the backup, which says so.
"""

from ultraengine_operator import names
from ultraengine_operator.api.quantities import seconds
from ultraengine_operator.api.types import Backup
from ultraengine_operator.specs.view import Manifest


def settings(wish: Backup | None) -> dict[str, str]:
    """Where to, and how often."""
    if wish is None:
        return {}
    return {
        "ULTRA_BACKUP": wish.location,
        "ULTRA_BACKUP_INTERVAL_S": seconds(wish.interval),
    }


def credentials(wish: Backup | None) -> list[Manifest]:
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


def marks(wish: Backup | None) -> dict[str, str]:
    """Labels of the pods that may reach a store."""
    return {} if wish is None else {names.BACKED_UP: "true"}
