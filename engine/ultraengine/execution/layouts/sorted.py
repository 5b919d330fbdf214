"""The sorted layout: values by key, with the keys kept in order for ranges and cursors.

A hash layout beside a sorted list of keys in blocks: an insertion moves at most one block of
`BLOCK_KEYS_MAX` references, so it costs about a microsecond at a million keys, and iteration
never sorts.  A list of blocks instead of a tree is what CPython is fast at (the idea is that
of the `sortedcontainers` package; the part of it that layouts need fits on this page).
"""

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterator
from itertools import islice
from typing import Any, Final, Generic

from ultraengine.execution.layouts.chunk import K, V
from ultraengine.execution.layouts.hash import HashLayout

BLOCK_KEYS_MAX: Final = 1024
"""A block that grows beyond this is split in two."""


class SortedKeys(Generic[K]):
    """A set of keys in ascending order, in blocks; no block is empty."""

    __slots__ = ("_blocks", "_lasts", "_moves")

    def __init__(self) -> None:
        self._blocks: list[list[K]] = []
        self._lasts: list[K] = []
        """Last key of each block."""
        self._moves = 0
        """Insertions and removals so far, so that an iteration notices them."""

    def add(self, key: K) -> None:
        """Insert `key`, which is not there yet."""
        self._moves += 1
        lasts = self._lasts
        if not lasts:
            self._blocks.append([key])
            lasts.append(key)
            return
        index = bisect_left(lasts, key)
        if index == len(lasts):
            index -= 1
            block = self._blocks[index]
            block.append(key)
            lasts[index] = key
        else:
            block = self._blocks[index]
            insort(block, key)
        if len(block) > BLOCK_KEYS_MAX:
            half = len(block) // 2
            self._blocks.insert(index + 1, block[half:])
            del block[half:]
            lasts.insert(index, block[-1])

    def discard(self, key: K) -> None:
        """Take out `key`, which is there."""
        self._moves += 1
        index = bisect_left(self._lasts, key)
        block = self._blocks[index]
        del block[bisect_left(block, key)]
        if block:
            self._lasts[index] = block[-1]
        else:
            del self._blocks[index]
            del self._lasts[index]

    def ascending(self, start: K | None, end: K | None, *, after: bool = False) -> Iterator[K]:
        """Keys from `start` (or beyond it, when `after`) up to and without `end`.

        Raises RuntimeError when a key is inserted or removed meanwhile.
        """
        moves = self._moves
        first, position = 0, 0
        if start is not None:
            bisect = bisect_right if after else bisect_left
            first = bisect(self._lasts, start)
            if first == len(self._lasts):
                return
            position = bisect(self._blocks[first], start)
        for index in range(first, len(self._blocks)):
            block = self._blocks[index]
            stop = len(block) if end is None or block[-1] < end else bisect_left(block, end)
            while position < stop:
                yield block[position]
                self._unmoved(moves)
                position += 1
            if stop < len(block):
                return
            position = 0

    def descending(self, end: K | None) -> Iterator[K]:
        """Keys below `end` (all, when None), the greatest first.

        Raises RuntimeError when a key is inserted or removed meanwhile.
        """
        moves = self._moves
        last = len(self._lasts) - 1
        if end is not None:
            last = min(last, bisect_left(self._lasts, end))
        for index in range(last, -1, -1):
            block = self._blocks[index]
            stop = len(block) if end is None else bisect_left(block, end)
            for position in range(stop - 1, -1, -1):
                yield block[position]
                self._unmoved(moves)

    def _unmoved(self, moves: int) -> None:
        if self._moves != moves:
            raise RuntimeError("keys were inserted or removed during an iteration over them")


class SortedLayout(HashLayout[K, V]):
    """Implements `model.layout.Layout` with a dict and sorted keys.

    Ranges exclude their end.  A timer queue is a sorted layout whose keys start with the
    instant; a list with a cursor is ``after``.
    """

    __slots__ = ("_keys",)

    def __init__(self, key_type: Any, value_type: Any) -> None:
        super().__init__(key_type, value_type)
        self._keys: SortedKeys[K] = SortedKeys()

    def put(self, key: K, value: V) -> None:
        """Insert or replace, and count `key` as changed."""
        if key not in self._values:
            self._keys.add(key)
        self._values[key] = value
        self.changed.add(key)

    def remove(self, key: K) -> None:
        """Remove `key` if it is there, and count it as changed."""
        if key in self._values:
            self._keys.discard(key)
            del self._values[key]
            self.changed.add(key)

    def items(self) -> Iterator[tuple[K, V]]:
        """All pairs by ascending key."""
        return self.range(None, None)

    def range(self, start: K | None, end: K | None) -> Iterator[tuple[K, V]]:
        """Pairs with ``start <= key < end`` by ascending key; None leaves a side open.

        Raises RuntimeError when a key is inserted or removed meanwhile.
        """
        values = self._values
        for key in self._keys.ascending(start, end):
            yield key, values[key]

    def after(self, key: K | None, limit: int) -> list[tuple[K, V]]:
        """Up to `limit` pairs beyond `key`, ascending: the page that follows a cursor.

        None starts at the first.  The next cursor is the last key of the page.
        """
        values = self._values
        found = self._keys.ascending(key, None, after=True)
        return [(other, values[other]) for other in islice(found, limit)]

    def before(self, key: K | None, limit: int) -> list[tuple[K, V]]:
        """Up to `limit` pairs below `key`, the nearest first; None starts at the last."""
        values = self._values
        found = self._keys.descending(key)
        return [(other, values[other]) for other in islice(found, limit)]

    def first(self) -> tuple[K, V] | None:
        """The pair with the least key, None when empty."""
        return next(self.range(None, None), None)

    def last(self) -> tuple[K, V] | None:
        """The pair with the greatest key, None when empty."""
        return next(iter(self.before(None, 1)), None)

    def load(self, chunk: bytes) -> None:
        """Apply one chunk.  Raises `msgspec.ValidationError` when it is of another type."""
        removed, written = self._decoder.decode(chunk)
        for key in removed:
            if key in self._values:
                self._keys.discard(key)
                del self._values[key]
        for key, value in written:
            if key not in self._values:
                self._keys.add(key)
            self._values[key] = value
