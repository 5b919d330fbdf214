"""What one stream sends to one shard: in order, one request at a time.

The commands of a key must arrive in the order in which a stream sent them.  Two requests on
two connections may overtake each other, so a lane has one under way; what arrives meanwhile
forms the next one, as commands form groups while the disk is busy.  The stream's credit and
its limit of bytes bound what waits here, in all lanes together.
"""

from collections import deque
from collections.abc import Sequence
from typing import Generic, TypeVar

T = TypeVar("T")


class Lane(Generic[T]):
    """A queue that gives out bounded batches, the next one after the one before is answered."""

    __slots__ = ("_busy", "_bytes_max", "_count_max", "_waiting")

    def __init__(self, *, count_max: int, bytes_max: int) -> None:
        self._waiting: deque[tuple[T, int]] = deque()
        self._count_max = count_max
        self._bytes_max = bytes_max
        self._busy = False

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, items: Sequence[T], sizes: Sequence[int]) -> None:
        """Add items behind all others, with their sizes in bytes."""
        self._waiting.extend(zip(items, sizes, strict=True))

    def take(self) -> list[T]:
        """The next batch, which is then under way; empty while one is, or when nothing waits."""
        waiting = self._waiting
        if self._busy or not waiting:
            return []
        batch: list[T] = []
        total = 0
        while waiting and len(batch) < self._count_max:
            item, size = waiting[0]
            if batch and total + size > self._bytes_max:
                break
            waiting.popleft()
            batch.append(item)
            total += size
        self._busy = True
        return batch

    def answered(self) -> None:
        """The batch that was under way has its answers, or has been given up."""
        self._busy = False
