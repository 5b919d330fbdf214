"""The order in which waiting commands leave a client: batches, and keys that must wait.

Commands leave in the order in which they were given.  One that may be sent again later
(the engine was too busy) parks its *key*: everything behind it with the same key waits
with it, everything with other keys goes on.  So retries never change the order of a key.

Pure: times are arguments (seconds of any monotonic clock), nothing here waits.
"""

from collections import deque
from collections.abc import Container, Iterable, Sequence
from operator import attrgetter

from ultraengine.client.pending import Pending

_in_order = attrgetter("sequence")


class _Parked:
    """Commands of one key that wait for a point in time."""

    __slots__ = ("until", "waiting")

    def __init__(self, until: float) -> None:
        self.until = until
        self.waiting: list[Pending] = []
        """In any order: they are sorted when they are released."""


class Lane:
    """Commands waiting to be sent over one connection, oldest first."""

    def __init__(self, *, commands_max: int, bytes_max: int) -> None:
        """At most `commands_max` commands and `bytes_max` encoded bytes leave in one batch."""
        self._commands_max = commands_max
        self._bytes_max = bytes_max
        self._ready: deque[Pending] = deque()
        self._parked: dict[str, _Parked] = {}

    def add(self, pending: Pending) -> None:
        """Take a new command, behind all earlier ones."""
        parked = self._parked.get(pending.key)
        if parked is None:
            self._ready.append(pending)
        else:
            parked.waiting.append(pending)

    def put_back(self, pendings: Iterable[Pending]) -> None:
        """Take commands again that were taken before: each returns to its place."""
        returned = []
        for pending in pendings:
            parked = self._parked.get(pending.key)
            if parked is None:
                returned.append(pending)
            else:
                parked.waiting.append(pending)
        if returned:
            self._ready = deque(sorted([*returned, *self._ready], key=_in_order))

    def park(self, pendings: Sequence[Pending], until: float) -> None:
        """Put back commands of one key; that key waits until `until` at least."""
        key = pendings[0].key
        parked = self._parked.get(key)
        if parked is None:
            parked = self._parked[key] = _Parked(until)
            parked.waiting = [pending for pending in self._ready if pending.key == key]
            self._ready = deque(pending for pending in self._ready if pending.key != key)
        parked.until = max(parked.until, until)
        parked.waiting.extend(pendings)

    def limit_batches(self, commands_max: int) -> None:
        """Send smaller batches from now on: the engine's own limit is below ours."""
        self._commands_max = max(1, min(self._commands_max, commands_max))

    def take(
        self, now: float, *, count_max: int | None = None, busy: Container[str] = ()
    ) -> list[Pending]:
        """The next batch; empty when nothing is ready.

        Stops before a command whose id is in `busy` or in the batch already, for transports
        that tell answers apart by id alone.
        """
        self._release(now)
        ready = self._ready
        limit = self._commands_max if count_max is None else min(self._commands_max, count_max)
        batch: list[Pending] = []
        ids: set[str] = set()
        size = 0
        while ready and len(batch) < limit:
            pending = ready[0]
            if pending.future.done():
                ready.popleft()
                continue
            size += len(pending.encoded)
            if batch and size > self._bytes_max:
                break
            if pending.id in busy or pending.id in ids:
                break
            ids.add(pending.id)
            batch.append(ready.popleft())
        return batch

    def wake_at(self) -> float | None:
        """When the next parked key may go on; None when none is parked."""
        return min((parked.until for parked in self._parked.values()), default=None)

    @property
    def ready_count(self) -> int:
        """Commands that may leave now."""
        return len(self._ready)

    def drain(self) -> list[Pending]:
        """Remove and return everything that waits."""
        rest = [*self._ready]
        for parked in self._parked.values():
            rest.extend(parked.waiting)
        self._ready.clear()
        self._parked.clear()
        return sorted(rest, key=_in_order)

    def _release(self, now: float) -> None:
        over = [key for key, parked in self._parked.items() if parked.until <= now]
        released = [pending for key in over for pending in self._parked.pop(key).waiting]
        if released:
            self._ready = deque(sorted([*released, *self._ready], key=_in_order))
