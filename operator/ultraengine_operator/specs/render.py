"""All children of an engine, in the order in which they are needed.

Rules have a version. An engine keeps the version that its pods were rendered with, whatever
operator looks after it, so that a new operator restarts nothing; an annotation asks for another.
"""

from collections.abc import Callable
from typing import Final

from ultraengine_operator.specs import engine, gateway, pods, reads, replicas
from ultraengine_operator.specs.view import EngineView, Manifest

NEWEST: Final = 1


def _first(view: EngineView) -> tuple[Manifest, ...]:
    children = [pods.service_account(view, one) for one in ("engine", "gateway")]
    for shard in view.shards:
        if view.replicated:
            children += replicas.account(view, shard)
        children += [
            engine.shard_object(view, shard),
            engine.peers_service(view, shard),
            engine.leader_service(view, shard),
            engine.disruption_budget(view, shard),
            engine.stateful_set(view, shard),
        ]
    children += [gateway.deployment(view), gateway.service(view), gateway.disruption_budget(view)]
    wished = (gateway.autoscaler(view), gateway.ingress(view))
    children += [one for one in wished if one is not None]
    return (*children, *reads.children(view))


RULES: Final[dict[int, Callable[[EngineView], tuple[Manifest, ...]]]] = {1: _first}
"""Builders by render version; what a version renders never changes."""


def render(view: EngineView) -> tuple[Manifest, ...]:
    """Every child that is applied."""
    return RULES[view.render_version](view)
