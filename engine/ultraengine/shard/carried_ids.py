"""The remembered ids that a slot has brought along, apart from the shard's own.

They are found again in the batches that the slot came in: an id leads to the offset of its batch.
They are kept for as long as the slot is here: later forgotten than promised, never earlier.
"""

from bisect import bisect_right
from collections.abc import Iterable

from ultraengine.execution.carried import Done, Part
from ultraengine.execution.packed import PackedIndex
from ultraengine.model.command import identity_hash


class CarriedIds:
    """Of one slot."""

    def __init__(self) -> None:
        self._index = PackedIndex()
        self._count = 0
        self._firsts: list[int] = []
        """The number of the first id of each batch."""
        self.chunks: list[int] = []
        """Offsets of the batches."""

    def note(self, parts: Iterable[Part], chunk: int) -> None:
        """A batch was taken, at this offset."""
        self._firsts.append(self._count)
        self.chunks.append(chunk)
        for part in parts:
            if isinstance(part, Done):
                identity = identity_hash(part.command.tenant, part.command.id)
                self._index.add(identity, self._count)
                self._count += 1

    def find(self, identity: bytes) -> tuple[int, ...]:
        """Offsets of the batches that may hold a command of this identity, newest first."""
        numbers = self._index.candidates(identity)
        found = [self.chunks[bisect_right(self._firsts, number) - 1] for number in numbers]
        return tuple(dict.fromkeys(found))
