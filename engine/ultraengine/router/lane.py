"""What is sent to one shard: batches that form while others are under way.

The commands of a key must arrive in the order in which a stream sent them.  Two requests on
two connections may overtake each other, so a stream's lane has one under way; what arrives
meanwhile forms the next one, as commands form groups while the disk is busy.  Where order does
not matter, as between single requests, a few may be under way at a time.

What waits here is bounded by those who put it in: a stream's credit and its limit of bytes, or
the requests that may be in flight.
"""

from collections import deque
from collections.abc import Sequence
from typing import Generic, TypeVar

T = TypeVar("T")


class Lane(Generic[T]):
    """A queue that gives out bounded batches, so many at a time."""

    __slots__ = ("_bytes_max", "_count_max", "_parallel_max", "_under_way", "_waiting")

    def __init__(self, *, count_max: int, bytes_max: int, parallel_max: int = 1) -> None:
        self._waiting: deque[tuple[T, int]] = deque()
        self._count_max = count_max
        self._bytes_max = bytes_max
        self._parallel_max = parallel_max
        self._under_way = 0

    @property
    def is_idle(self) -> bool:
        """Whether nothing waits and nothing is under way."""
        return not self._under_way and not self._waiting

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, items: Sequence[T], sizes: Sequence[int]) -> None:
        """Add items behind all others, with their sizes in bytes."""
        self._waiting.extend(zip(items, sizes, strict=True))

    def take(self) -> list[T]:
        """The next batch, which is then under way; empty while enough are, or nothing waits."""
        waiting = self._waiting
        if self._under_way >= self._parallel_max or not waiting:
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
        self._under_way += 1
        return batch

    def answered(self) -> None:
        """A batch that was under way has its answers, or has been given up."""
        self._under_way -= 1
