"""A consistent cut of an image that goes on changing: copy-on-write by slot.

At the cut every slot is *pending*.  A slot is read at its turn, or just before it is first
changed, whichever comes first; what is read early waits, compressed, for its turn, because a
file is sorted by slot.  Reading a slot also marks it, so that the next increment starts there.
"""

from collections.abc import Iterator
from typing import Final

import lz4.block
import msgspec

from ultraengine.snapshot.errors import SnapshotFailed
from ultraengine.snapshot.image import SHARD_WIDE, Image, Section


class _Kept(msgspec.Struct, frozen=True, gc=False):
    name: str
    schema: int
    packed: bytes


class Cut:
    """The slots of one image as they were when this was made."""

    def __init__(self, image: Image, *, full: bool, captured_bytes_max: int) -> None:
        self._image = image
        self._full = full
        self._captured_bytes_max: Final = captured_bytes_max
        self._captured_bytes = 0
        self._captured: dict[int, list[_Kept]] = {}
        self._order = list(reversed(image.slots()))
        self._pending = dict.fromkeys(self._order)
        self._problem: Exception | None = None
        # What belongs to the shard as a whole changes with every command, so it is read now.
        self.before(SHARD_WIDE)

    @property
    def pending(self) -> bool:
        """Whether any slot still has to be read as it was at the cut."""
        return bool(self._pending)

    @property
    def captured_bytes(self) -> int:
        """Compressed bytes that wait for their turn."""
        return self._captured_bytes

    def before(self, slot: int) -> bool:
        """To be called before `slot` is changed; returns whether it had to be read.

        Never raises: a slot that cannot be read ends the snapshot, not the command.
        """
        if slot not in self._pending:
            return False
        try:
            kept = [
                _Kept(each.name, each.schema, lz4.block.compress(each.chunk))
                for each in self._read(slot)
            ]
        except Exception as problem:  # noqa: BLE001  (reported by the snapshot's own reader)
            self._give_up(problem)
            return True
        self._captured[slot] = kept
        self._captured_bytes += sum(len(each.packed) for each in kept)
        if self._captured_bytes > self._captured_bytes_max:
            self._give_up(
                SnapshotFailed(
                    f"{self._captured_bytes} bytes wait for their turn; the most is"
                    f" {self._captured_bytes_max}"
                )
            )
        return True

    def slots(self) -> Iterator[list[Section]]:
        """The sections of each slot in order, as they were at the cut.

        Between two steps the image may change.  Raises `SnapshotFailed` when it cannot go on.
        """
        while self._order:
            slot = self._order.pop()
            sections: list[Section] = []
            try:
                if slot in self._pending:
                    sections = self._read(slot)
                elif self._problem is None:
                    sections = self._release(slot)
            except Exception as problem:  # noqa: BLE001  (re-raised below)
                self._give_up(problem)
            if self._problem is not None:
                raise SnapshotFailed(
                    f"the cut was lost at slot {slot}: {self._problem}"
                ) from self._problem
            yield sections

    def _read(self, slot: int) -> list[Section]:
        sections = list(self._image.slot_sections(slot, full=self._full))
        self._image.mark(slot)
        del self._pending[slot]
        return sections

    def _release(self, slot: int) -> list[Section]:
        kept = self._captured.pop(slot)
        self._captured_bytes -= sum(len(each.packed) for each in kept)
        return [
            Section(slot, each.name, each.schema, lz4.block.decompress(each.packed))
            for each in kept
        ]

    def _give_up(self, problem: Exception) -> None:
        self._problem = problem
        self._pending.clear()
        self._captured.clear()
        self._captured_bytes = 0
