"""Faults by name: each is done to the engine while clients pay, undone, and all is whole again.

A fault returns the least epoch that it must have led to: a leader that was lost is followed by
another epoch, and until then whatever the cluster shows is of the time before.
"""

import json
import time
from collections.abc import Callable
from typing import Any, Final

from tests.e2e.cluster.failovers import hurting
from tests.e2e.cluster.failovers.engine import SHARD, Seen, Trio
from tests.e2e.cluster.faults import (
    CONTROL_PLANE,
    kill_container,
    no_api_server,
    restart_node,
)

SECONDS: Final = {
    "stopped": 6.0, "frozen": 12.0, "cut off": 12.0, "slow": 10.0, "without": 20.0, "API": 60.0,
}  # fmt: skip
"""How long a fault of some kind lasts."""
Fault = Callable[[Trio, Seen], int]


def _same(seen: Seen) -> int:
    return seen.epoch


def _another(seen: Seen) -> int:
    return seen.epoch + 1


def _node(pod: dict[str, Any]) -> str:
    found: str = pod["spec"]["nodeName"]
    return found


def _delete(trio: Trio, *pods: dict[str, Any]) -> None:
    """Delete pods at once, without a word to their processes."""
    names = [pod["metadata"]["name"] for pod in pods]
    trio.namespace.kubectl("delete", "pod", *names, "--grace-period=0", "--force")


def leader_deleted(trio: Trio, seen: Seen) -> int:
    """The leader's pod is deleted."""
    _delete(trio, seen.leader)
    return _another(seen)


def leader_killed(trio: Trio, seen: Seen) -> int:
    """The leader's container gets SIGKILL."""
    kill_container(seen.leader)
    return _another(seen)


def leader_stopped(trio: Trio, seen: Seen) -> int:
    """The leader's container gets SIGSTOP, and SIGCONT when another one leads."""
    with hurting.stopped(seen.leader):
        time.sleep(SECONDS["stopped"])
    return _another(seen)


def follower_deleted(trio: Trio, seen: Seen) -> int:
    """A follower's pod is deleted."""
    _delete(trio, seen.followers[0])
    return _same(seen)


def follower_killed(trio: Trio, seen: Seen) -> int:
    """A follower's container gets SIGKILL."""
    kill_container(seen.followers[-1])
    return _same(seen)


def follower_slow(trio: Trio, seen: Seen) -> int:
    """A follower runs for a fifth of the time."""
    hurting.slow(seen.followers[0], SECONDS["slow"])
    return _same(seen)


def all_deleted(trio: Trio, seen: Seen) -> int:
    """All three pods are deleted at once."""
    _delete(trio, *seen.pods.values())
    return _another(seen)


def _led_by_worker(trio: Trio, seen: Seen) -> Seen:
    """Nothing happens to the node of the control plane: let another copy lead there, if need be."""
    if _node(seen.leader) != CONTROL_PLANE:
        return seen
    # In order, so it hands over; the other copies are on other nodes.
    trio.namespace.kubectl("delete", "pod", seen.leader["metadata"]["name"])
    return trio.wait_whole(_another(seen))


def node_frozen(trio: Trio, seen: Seen) -> int:
    """The leader's node stands still."""
    seen = _led_by_worker(trio, seen)
    with hurting.frozen(_node(seen.leader)):
        time.sleep(SECONDS["frozen"])
    return _another(seen)


def node_killed(trio: Trio, seen: Seen) -> int:
    """The leader's node ends at once, and starts again from its disk."""
    seen = _led_by_worker(trio, seen)
    restart_node(_node(seen.leader))
    return _another(seen)


def node_cut_off(trio: Trio, seen: Seen) -> int:
    """No packet leaves or reaches the leader's node, and its pods run on."""
    seen = _led_by_worker(trio, seen)
    with hurting.cut_off(_node(seen.leader)):
        time.sleep(SECONDS["cut off"])
    return _another(seen)


def node_deaf(trio: Trio, seen: Seen) -> int:
    """No packet reaches the leader's node; what it sends arrives."""
    seen = _led_by_worker(trio, seen)
    with hurting.cut_off(_node(seen.leader), sends=True):
        time.sleep(SECONDS["cut off"])
    return _same(seen)


def node_mute(trio: Trio, seen: Seen) -> int:
    """No packet leaves the leader's node; it hears everybody."""
    seen = _led_by_worker(trio, seen)
    with hurting.cut_off(_node(seen.leader), hears=True):
        time.sleep(SECONDS["cut off"])
    return _same(seen)


def operator_away(trio: Trio, seen: Seen) -> int:
    """No operator runs, and the leader's container gets SIGKILL."""
    with hurting.no_operator():
        kill_container(seen.leader)
        time.sleep(SECONDS["without"])
    return _another(seen)


def api_away(trio: Trio, seen: Seen) -> int:
    """The API server is away for a minute."""
    with no_api_server(trio.namespace):
        time.sleep(SECONDS["API"])
    return _same(seen)


def both_away(trio: Trio, seen: Seen) -> int:
    """Neither operator nor API server is there, and the leader's container gets SIGKILL."""
    with hurting.no_operator(), no_api_server(trio.namespace):
        kill_container(seen.leader)
        time.sleep(SECONDS["without"])
    return _another(seen)


def record_deleted(trio: Trio, seen: Seen) -> int:
    """The Lease with the record is deleted, and restored as a backup has it."""
    lease = json.loads(json.dumps(seen.lease))
    for name in ("uid", "resourceVersion", "creationTimestamp", "managedFields", "ownerReferences"):
        lease["metadata"].pop(name, None)
    trio.namespace.kubectl("delete", "lease", SHARD)
    time.sleep(SECONDS["slow"])
    trio.namespace.kubectl("create", "-f", "-", stdin=json.dumps(lease))
    return _same(seen)


def follower_corrupted(trio: Trio, seen: Seen) -> int:
    """Bytes of a follower's log change on its volume, and its pod starts again; once that is seen
    its volume is given up, and it is filled on a new one."""
    pod = seen.followers[0]
    name = pod["metadata"]["name"]
    claim = f"data-{name}"
    hurting.corrupt(pod, trio.volumes()[claim])
    kill_container(pod)
    trio.wait_for_shard(
        f"{name} refuses its volume",
        lambda now: hurting.has_refused(now.pods.get(name), pod),
    )
    trio.namespace.kubectl("delete", "persistentvolumeclaim", claim, "--wait=false")
    _delete(trio, pod)
    return _same(seen)


FAULTS: Final[dict[str, Fault]] = {
    "leader-deleted": leader_deleted,
    "leader-killed": leader_killed,
    "leader-stopped": leader_stopped,
    "follower-deleted": follower_deleted,
    "follower-killed": follower_killed,
    "follower-slow": follower_slow,
    "follower-corrupted": follower_corrupted,
    "all-deleted": all_deleted,
    "node-frozen": node_frozen,
    "node-killed": node_killed,
    "node-cut-off": node_cut_off,
    "node-deaf": node_deaf,
    "node-mute": node_mute,
    "operator-away": operator_away,
    "api-away": api_away,
    "both-away": both_away,
    "record-deleted": record_deleted,
}
