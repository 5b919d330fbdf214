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

HTTP_PORT: Final = 8080
ADMIN_PORT: Final = 8081
USER: Final = 10001
MAP_KEY: Final = "map.json"
KEY_FILE: Final = "key"
"""Key of a Secret that holds a random key: the hop's, and that of cursors."""
URL_FILE: Final = "url"
"""Key of a user's Secret that names a database."""
API_KEY: Final = "apiKey"
"""Key of the same Secret with an API key for the feed; may be absent."""


def shard_name(engine: str, shard: int) -> str:
    """Name of a shard's StatefulSet, Service, PodDisruptionBudget and Shard object."""
    return f"{engine}-shard-{shard}"


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
