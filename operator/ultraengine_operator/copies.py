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
        if record is None or not record.epoch:
            leads = pod.replica == 0 and (record is None or not pod.replicated)
        else:
            leads = pod.replica == record.leader
        if leads and pod.ready and not pod.deleting:
            return pod
    return None


def expected(observed: Observed, shard: int) -> int:
    """How many copies a shard has, by its record."""
    record, owner = observed.record_of(shard), observed.set_of(shard)
    if record is not None and record.replicas:
        return record.replicas
    return 1 if owner is None else max(1, owner.copies)


def lacking(observed: Observed, shards: Iterable[int]) -> tuple[int, ...]:
    """Shards of which not every copy is in sync, on a pod that is ready and stays.

    Copies that are only to come are none yet, and one that serves alone until its pod is restarted
    as the first of several lacks nothing.
    """

    def lacks(shard: int) -> bool:
        record = observed.record_of(shard)
        if record is None or not record.epoch:
            return record is not None and serving(observed, shard) is None
        return len(whole(observed, shard)) < expected(observed, shard)

    return tuple(shard for shard in shards if lacks(shard))


def changing(observed: Observed, shards: Iterable[int], wished: int) -> dict[int, int]:
    """How many copies the shards have that are to have another number."""
    found = {
        shard: record.replicas
        for shard in shards
        if (record := observed.record_of(shard)) is not None and record.replicas
    }
    return {shard: copies for shard, copies in found.items() if copies != wished}


def whole(observed: Observed, shard: int) -> tuple[SeenPod, ...]:
    """Pods whose copies are in sync, and which are ready and stay."""
    record = observed.record_of(shard)
    in_sync = () if record is None else record.in_sync
    places = expected(observed, shard)
    return tuple(
        pod
        for pod in observed.pods_of(shard)
        if pod.replica in in_sync and pod.replica < places and pod.ready and not pod.deleting
    )


def may_go(observed: Observed, pod: SeenPod) -> bool:
    """Whether a pod that is not ready may be replaced: its copy does not count, or all others do.

    Anything else could take away one of just enough copies.
    """
    record = observed.record_of(pod.shard)
    if record is None or pod.replica not in record.in_sync:
        return True
    return len(record.in_sync) >= expected(observed, pod.shard)


def in_turn(observed: Observed, pods: Iterable[SeenPod]) -> list[SeenPod]:
    """The order of a restart: shard by shard, and in each the leader last, so that a shard changes
    its leader once."""

    def last(pod: SeenPod) -> bool:
        record = observed.record_of(pod.shard)
        return record is not None and pod.replica == record.leader

    return sorted(pods, key=lambda pod: (pod.shard, last(pod), pod.replica))
