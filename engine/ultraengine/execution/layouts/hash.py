"""The hash layout: values by key, for everything that is found by its name.

A dict, sorted only when it is written: reads and writes cost one dictionary operation,
``items`` and ``dump`` cost a sort of the keys of one slot.
"""

from collections.abc import Iterator
from typing import Any, Generic

from ultraengine.execution.layouts.chunk import K, V, chunk_decoder, generic, write_chunks


class HashLayout(Generic[K, V]):
    """Implements `model.layout.Layout` with a dict.

    `key_type` and `value_type` say how chunks are decoded (`chunk.py` for what they may be).
    """

    __slots__ = ("_decoder", "_values", "changed", "get")

    def __init__(self, key_type: Any, value_type: Any) -> None:
        self._decoder = chunk_decoder((key_type, generic(tuple, key_type, value_type)))
        self._values: dict[K, V] = {}
        self.changed: set[K] = set()
        """Keys changed since ``mark``.  ``changed.add(key)`` is ``touch(key)`` at half the cost,
        for loops that mutate values in place a million times a second."""
        self.get = self._values.get
        """``get(key)``: the value at `key`, or None.  The dictionary's own, which is cheapest."""

    def put(self, key: K, value: V) -> None:
        """Insert or replace, and count `key` as changed."""
        self._values[key] = value
        self.changed.add(key)

    def remove(self, key: K) -> None:
        """Remove `key` if it is there, and count it as changed."""
        if self._values.pop(key, _MISSING) is not _MISSING:
            self.changed.add(key)

    def touch(self, key: K) -> None:
        """Count `key` as changed after its value was mutated in place."""
        self.changed.add(key)

    def items(self) -> Iterator[tuple[K, V]]:
        """All pairs by ascending key; the layout may not change meanwhile."""
        values = self._values
        for key in sorted(values):
            yield key, values[key]

    def __len__(self) -> int:
        """Number of keys."""
        return len(self._values)

    def __contains__(self, key: object) -> bool:
        """Whether `key` is there."""
        return key in self._values

    def dump(self) -> Iterator[bytes]:
        """Everything, by ascending key."""
        return write_chunks(((), self.items()))

    def changes(self) -> Iterator[bytes]:
        """What changed since ``mark``: removed keys, then written pairs, both ascending."""
        values = self._values
        changed = sorted(self.changed)
        removed = (key for key in changed if key not in values)
        written = ((key, values[key]) for key in changed if key in values)
        return write_chunks((removed, written))

    def mark(self) -> None:
        """Start counting changes anew."""
        self.changed.clear()

    def load(self, chunk: bytes) -> None:
        """Apply one chunk.  Raises `msgspec.ValidationError` when it is of another type."""
        removed, written = self._decoder.decode(chunk)
        for key in removed:
            self._values.pop(key, None)
        self._values.update(written)


_MISSING = object()
