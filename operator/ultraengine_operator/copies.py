"""Which pod of a shard leads, which copies are in sync, and which pod may be away next.

With one copy the pod that is ready serves.  With several the record says who leads; a pod that is
ready and does not lead is in sync.
"""

from collections.abc import Iterable

from ultraengine_operator.observed import Observed, SeenPod


def serving(observed: Observed, shard: int) -> SeenPod | None:
    """The pod that orders the commands of a shard, if it is ready and stays."""
    record = observed.record_of(shard)
    for pod in observed.pods_of(shard):
        leads = record is None or pod.replica == record.leader
        if leads and pod.ready and not pod.deleting:
            return pod
    return None


def lacking(observed: Observed, shards: Iterable[int], copies: int) -> tuple[int, ...]:
    """Shards of which not every copy is in sync, on a pod that is ready and stays."""
    if copies == 1:
        return ()
    return tuple(shard for shard in shards if len(whole(observed, shard)) < copies)


def whole(observed: Observed, shard: int) -> tuple[SeenPod, ...]:
    """Pods whose copies are in sync, and which are ready and stay."""
    record = observed.record_of(shard)
    in_sync = () if record is None else record.in_sync
    return tuple(
        pod
        for pod in observed.pods_of(shard)
        if pod.replica in in_sync and pod.ready and not pod.deleting
    )


def may_go(observed: Observed, pod: SeenPod, copies: int) -> bool:
    """Whether a pod that is not ready may be replaced: its copy does not count, or all others do.

    Anything else could take away one of just enough copies.
    """
    record = observed.record_of(pod.shard)
    if copies == 1 or record is None or pod.replica not in record.in_sync:
        return True
    return len(record.in_sync) == copies


def in_turn(observed: Observed, pods: Iterable[SeenPod]) -> list[SeenPod]:
    """The order of a restart: shard by shard, and in each the leader last, so that a shard changes
    its leader once."""

    def last(pod: SeenPod) -> bool:
        record = observed.record_of(pod.shard)
        return record is not None and pod.replica == record.leader

    return sorted(pods, key=lambda pod: (pod.shard, last(pod), pod.replica))
