"""What NetworkPolicies let through, worked out as Kubernetes defines it.

A connection passes when the egress of its source and the ingress of its target both allow it.  A
direction in which no policy selects the pod is open; otherwise the sum of what they allow is.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

Policy = dict[str, Any]
Selector = Mapping[str, Any]


class Pod(msgspec.Struct, frozen=True):
    """A pod, or with no namespace an address outside the cluster."""

    namespace: str | None = None
    labels: dict[str, str] = {}
    namespace_labels: dict[str, str] = {}


def selects(selector: Selector, labels: Mapping[str, str]) -> bool:
    """Whether a label selector chooses these labels; an empty one chooses all."""
    if any(labels.get(key) != value for key, value in selector.get("matchLabels", {}).items()):
        return False
    for one in selector.get("matchExpressions", ()):
        held = labels.get(one["key"])
        match one["operator"]:
            case "In":
                fits = held in one["values"]
            case "NotIn":
                fits = held not in one["values"]
            case "Exists":
                fits = held is not None
            case other:
                fits = held is None
                if other != "DoesNotExist":
                    raise ValueError(f"{other} is no operator")
        if not fits:
            return False
    return True


def _is_peer(peer: Mapping[str, Any], pod: Pod, namespace: str) -> bool:
    if "ipBlock" in peer:
        raise ValueError("blocks of addresses are not modelled")
    if pod.namespace is None:
        return False
    if "namespaceSelector" in peer:
        if not selects(peer["namespaceSelector"], pod.namespace_labels):
            return False
    elif pod.namespace != namespace:
        return False
    return selects(peer.get("podSelector", {}), pod.labels)


def _rule_allows(rule: Mapping[str, Any], side: str, pod: Pod, port: int, namespace: str) -> bool:
    ports = rule.get("ports")
    if ports and not any(one.get("port", port) == port for one in ports):
        return False
    peers: Sequence[Mapping[str, Any]] = rule.get(side, ())
    return not peers or any(_is_peer(peer, pod, namespace) for peer in peers)


def _direction(policies: Iterable[Policy], kind: str, own: Pod, other: Pod, port: int) -> bool:
    if own.namespace is None:
        return True
    word, side = ("ingress", "from") if kind == "Ingress" else ("egress", "to")
    chosen = [
        one for one in policies
        if one["metadata"]["namespace"] == own.namespace and kind in one["spec"]["policyTypes"]
        and selects(one["spec"]["podSelector"], own.labels)
    ]  # fmt: skip
    return not chosen or any(
        _rule_allows(rule, side, other, port, own.namespace)
        for one in chosen for rule in one["spec"].get(word, ())
    )  # fmt: skip


def reachable(policies: Sequence[Policy], source: Pod, target: Pod, port: int) -> bool:
    """Whether `source` may connect to `port` of `target`."""
    return _direction(policies, "Egress", source, target, port) and _direction(
        policies, "Ingress", target, source, port
    )
