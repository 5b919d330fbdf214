"""The Layout Protocol: how a domain keeps one kind of thing of one slot in memory.

Shipped layouts live in `execution/layouts/`; developers add their own by passing
`ultraengine.testing.layouts.LayoutContract` (requirement 001 §2.3, §6.1).

Rules: iteration, ``dump`` and hashes depend on content alone, never on insertion history
or hash seeds; ``changes`` since ``mark`` loaded on top of the dump at ``mark`` gives the
same content as a dump now; a load replaces or removes what it names and nothing else.
"""

from collections.abc import Iterator
from typing import Protocol, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class Layout(Protocol[K, V]):
    """A keyed collection that can be dumped, loaded and tracked."""

    def get(self, key: K) -> V | None:
        """The value at `key`, or None."""

    def put(self, key: K, value: V) -> None:
        """Insert or replace, and count `key` as changed."""

    def remove(self, key: K) -> None:
        """Remove `key` if it is there, and count it as changed."""

    def touch(self, key: K) -> None:
        """Count `key` as changed after its value was mutated in place."""

    def items(self) -> Iterator[tuple[K, V]]:
        """All pairs, in an order that depends on content alone."""

    def __len__(self) -> int:
        """Number of keys."""

    def dump(self) -> Iterator[bytes]:
        """Everything as chunks of bounded size, in ``items`` order."""

    def changes(self) -> Iterator[bytes]:
        """Chunks for what changed since ``mark``, removals included."""

    def mark(self) -> None:
        """Start counting changes anew."""

    def load(self, chunk: bytes) -> None:
        """Apply one chunk of ``dump`` or ``changes``; does not count as a change."""
