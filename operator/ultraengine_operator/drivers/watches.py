"""kopf as the watch layer and nothing else: every event goes to the cache and queues a key.

No handlers for creation or update, no indexes, timers, daemons, peering or finalizers of kopf's:
they are edge-triggered, keep state in annotations, and cost a task per object.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import kopf

from ultraengine_operator import names
from ultraengine_operator.cluster import MADE_BY_PEOPLE, WATCHED, Kind

Event = Mapping[str, Any]


def _resource(kind: Kind) -> tuple[str, str, str]:
    group, _, version = kind.api_version.rpartition("/")
    return (group, version, kind.plural)


def registry_of(told: Callable[[Event], None]) -> kopf.OperatorRegistry:
    """Handlers that hand every event of every watched kind to `told`."""
    registry = kopf.OperatorRegistry()
    for kind in WATCHED:

        async def seen(event: Event, kind: Kind = kind, **_: Any) -> None:
            content = {**event["object"], "apiVersion": kind.api_version, "kind": kind.name}
            told({"type": event["type"], "object": content})

        labels = {} if kind.name in MADE_BY_PEOPLE else {names.ENGINE: kopf.PRESENT}
        group, version, plural = _resource(kind)
        kopf.on.event(group, version, plural, registry=registry, labels=labels or None)(seen)
    kopf.on.login(registry=registry)(_login)
    return registry


def _login(**told: Any) -> kopf.ConnectionInfo | None:
    """As the client of the loop does: the pod's own identity, else the kubeconfig."""
    return kopf.login_with_service_account(**told) or kopf.login_with_kubeconfig(**told)


def settings_of() -> kopf.OperatorSettings:
    """kopf's settings: bounded waits, no peering, nothing posted, nothing kept in annotations."""
    settings = kopf.OperatorSettings()
    settings.peering.standalone = True
    settings.posting.enabled = False
    settings.persistence.finalizer = f"{names.GROUP}/never-used"
    settings.watching.server_timeout = 300
    settings.watching.client_timeout = 310
    settings.watching.connect_timeout = 10
    settings.networking.request_timeout = 30
    settings.networking.connect_timeout = 10
    # The kinds are known, and looking for others needs permissions on all of them.
    settings.scanning.disabled = True
    for kind in WATCHED:
        if kind.name not in MADE_BY_PEOPLE:
            # On the server: ConfigMaps and pods of others never reach this process.
            settings.watching.label_selectors[_resource(kind)] = names.ENGINE
    return settings


async def watch(
    told: Callable[[Event], None], namespaces: Sequence[str], stop: asyncio.Event
) -> None:
    """Run kopf until `stop`."""
    await kopf.operator(
        registry=registry_of(told),
        settings=settings_of(),
        standalone=True,
        clusterwide=not namespaces,
        namespaces=list(namespaces),
        stop_flag=stop,
    )
