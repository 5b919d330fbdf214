"""The words that the operator and everything around it share: group, labels, annotations, names.

They are a contract: changing one orphans objects of running engines.
"""

from typing import Final

GROUP: Final = "ultraengine.io"
VERSION: Final = "v1alpha1"
API_VERSION: Final = f"{GROUP}/{VERSION}"
MANAGER: Final = "ultraengine-operator"
"""Field manager of server-side apply, and `app.kubernetes.io/managed-by`."""
STATUS_MANAGER: Final = "ultraengine-operator-status"
FINALIZER: Final = f"{GROUP}/finalizer"

FILLER: Final = "restore"
"""Name of the container that fills a new volume, before that of the engine."""
COMPONENT: Final = "app.kubernetes.io/component"
ENGINE: Final = f"{GROUP}/engine"
SHARD: Final = f"{GROUP}/shard"
PROJECTION: Final = f"{GROUP}/projection"
"""Label of a worker's pods: which of the engine's projections it fills."""
ENGINE_UID: Final = f"{GROUP}/engine-uid"
"""Label of what outlives its engine: the uid that volumes and the map belong to."""
RENDER_VERSION: Final = f"{GROUP}/render-version"
"""On a child: the rules that rendered it. On an UltraEngine: the rules a person asks for."""
ADOPT: Final = f"{GROUP}/adopt-uid"
"""On an UltraEngine: the uid of the deleted engine whose volumes it takes over."""
FORCE_FINALIZE: Final = f"{GROUP}/force-finalize"
"""On an UltraEngine being deleted: let go at once and leave every volume where it is."""

ROLE: Final = f"{GROUP}/role"
"""Label of a replicated shard's pods: leader or follower, by the record; its Service follows it."""
REPLICATED: Final = f"{GROUP}/replicated"
"""Label of the same pods, for network policies: they speak with each other and the API server."""
BACKED_UP: Final = f"{GROUP}/backed-up"
"""Label of shards' pods that back themselves up, for network policies: they speak with a store."""
COPIES: Final = f"{GROUP}/copies"
"""On what outlives a pod: how many copies the shard was made with."""
ROTATE: Final = f"{GROUP}/rotate-authority"
"""On an UltraEngine: any new text asks for another certificate authority. On the authority's
Secret: the text that was answered last."""

PROOF: Final = f"{GROUP}/proof"
"""On a shard's StatefulSet: which candidate its image was let through by, and from which image."""
ACCEPT: Final = f"{GROUP}/accept-candidate"
"""On an UltraEngine: the image that may decide differently, because a person has read how."""
QUESTION: Final = f"{GROUP}/question"
"""On a candidate: a short name of all that it was told."""

HTTP_PORT: Final = 8080
ADMIN_PORT: Final = 8081
REPLICA_PORT: Final = 8082
"""On which the copies of one shard speak with each other, with certificates."""
USER: Final = 10001
MAP_KEY: Final = "map.json"
KEY_FILE: Final = "key"
"""Key of a Secret that holds a random key: the hop's, and that of cursors."""
STORE_KEYS: Final = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
"""Keys of a user's Secret that let in to an object store, and the variables that they become."""
URL_FILE: Final = "url"
"""Key of a user's Secret that names a database."""
API_KEY: Final = "apiKey"
"""Key of the same Secret with an API key for the feed; may be absent."""


def shard_name(engine: str, shard: int) -> str:
    """Name of a shard's StatefulSet, Service, PodDisruptionBudget and Shard object."""
    return f"{engine}-shard-{shard}"


def peers_name(engine: str, shard: int) -> str:
    """Name of the headless Service of a shard, below which its pods have stable names."""
    return f"{shard_name(engine, shard)}-peers"


def candidate_name(engine: str, shard: int) -> str:
    """Name of the pod that decides a shard's log again with the next image."""
    return f"{engine}-candidate-{shard}"


def replica_hosts(namespace: str, engine: str, shard: int, copies: int) -> tuple[str, ...]:
    """The stable names of a shard's copies, in the order of their numbers."""
    pods, peers = shard_name(engine, shard), peers_name(engine, shard)
    return tuple(f"{pods}-{number}.{peers}.{namespace}.svc" for number in range(copies))


def authority_name(engine: str) -> str:
    """Name of the Secret with the certificate authority of an engine's copies."""
    return f"{engine}-ca"


def leaf_name(engine: str, shard: int) -> str:
    """Name of the Secret with the certificate of a shard's copies."""
    return f"{shard_name(engine, shard)}-tls"


def labels(engine: str, component: str, shard: int | None = None) -> dict[str, str]:
    """The labels that select; they never change during the life of an object."""
    found = {
        "app.kubernetes.io/name": "ultraengine",
        "app.kubernetes.io/instance": engine,
        COMPONENT: component,
        "app.kubernetes.io/managed-by": MANAGER,
        ENGINE: engine,
    }
    if shard is not None:
        found[SHARD] = str(shard)
    return found
