"""An image to test snapshots with, and the contract of images (requirement 001 §6.1, §18.4).

`DictImage` is the smallest honest `Image`: names and values per slot and one counter for the
shard.  `ImageContract` is what an image of one's own must pass::

    class TestMyImage(ImageContract):
        def new_image(self): return MyImage()
        def change(self, image, seed): image.put(…)      # any change; equal seeds, equal changes
"""
# ruff: noqa: S101 - a contract suite asserts.

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from ultraengine.snapshot.image import SHARD_WIDE, Image, Section, state_hash

_PAIRS = msgspec.msgpack.Decoder(list[tuple[str, bytes | None]])


class DictImage:
    """Names with values in slots, and a count of all changes as the shard-wide part."""

    def __init__(self, *, schema: int = 1, pairs_per_chunk: int = 1000) -> None:
        self._slots: dict[int, dict[str, bytes]] = {}
        self._changed: dict[int, dict[str, None]] = {}
        self._schema = schema
        self._pairs_per_chunk = pairs_per_chunk
        self.changes = 0

    def put(self, slot: int, name: str, value: bytes) -> None:
        """Insert or replace."""
        self._slots.setdefault(slot, {})[name] = value
        self._changed.setdefault(slot, {})[name] = None
        self.changes += 1

    def remove(self, slot: int, name: str) -> None:
        """Remove if it is there."""
        if self._slots.get(slot, {}).pop(name, None) is not None:
            self._changed.setdefault(slot, {})[name] = None
            self.changes += 1

    def content(self) -> dict[tuple[int, str], bytes]:
        """Everything, to compare with a model."""
        return {
            (slot, name): value
            for slot, pairs in self._slots.items()
            for name, value in pairs.items()
        }

    def sections(self, *, full: bool) -> Iterator[Section]:
        """See `Image`."""
        for slot in self.slots():
            yield from self.slot_sections(slot, full=full)

    def slots(self) -> Sequence[int]:
        """See `Image`."""
        held = {slot for slot, pairs in self._slots.items() if pairs} | set(self._changed)
        return [SHARD_WIDE, *sorted(held)]

    def slot_sections(self, slot: int, *, full: bool) -> Iterator[Section]:
        """See `Image`."""
        if slot == SHARD_WIDE:
            yield Section(slot, "changes", 1, msgspec.msgpack.encode(self.changes))
            return
        held = self._slots.get(slot, {})
        names = sorted(held) if full else sorted(self._changed.get(slot, {}))
        for at in range(0, len(names), self._pairs_per_chunk):
            pairs = [(name, held.get(name)) for name in names[at : at + self._pairs_per_chunk]]
            yield Section(slot, "pairs", self._schema, msgspec.msgpack.encode(pairs))

    def load(self, section: Section) -> None:
        """See `Image`."""
        if section.slot == SHARD_WIDE:
            self.changes = msgspec.msgpack.decode(section.chunk, type=int)
            return
        held = self._slots.setdefault(section.slot, {})
        for name, value in _PAIRS.decode(section.chunk):
            if value is None:
                held.pop(name, None)
            else:
                held[name] = value

    def mark(self, slot: int | None = None) -> None:
        """See `Image`."""
        if slot is None:
            self._changed.clear()
        else:
            self._changed.pop(slot, None)


class ImageContract:
    """Tests every image passes.  Subclass, give ``new_image`` and ``change``."""

    def new_image(self) -> Image:
        """An empty image."""
        raise NotImplementedError

    def change(self, image: Any, seed: int) -> None:
        """Change something; the same seeds in the same order give the same content."""
        raise NotImplementedError

    def _changed(self, *seeds: int) -> Image:
        image = self.new_image()
        for seed in seeds:
            self.change(image, seed)
        return image

    def test_sections_ascend_by_slot_and_name(self) -> None:
        """Order is what makes hashes comparable and merging a stream."""
        places = [(each.slot, each.name) for each in self._changed(*range(20)).sections(full=True)]
        assert places
        assert places == sorted(places)

    def test_slot_by_slot_is_the_same_as_all_at_once(self) -> None:
        """A cooperative snapshot has the bytes of a forked one."""
        image = self._changed(*range(20))
        for full in (True, False):
            by_slot = [
                section
                for slot in image.slots()
                for section in image.slot_sections(slot, full=full)
            ]
            assert by_slot == list(image.sections(full=full))

    def test_reading_changes_nothing(self) -> None:
        """Two dumps in a row are the same bytes."""
        image = self._changed(*range(20))
        first = state_hash(image.sections(full=True))
        assert state_hash(image.sections(full=True)) == first

    def test_a_full_image_loads_to_the_same_bytes(self) -> None:
        """Content alone decides the bytes, not how it came about."""
        image = self._changed(*range(20))
        loaded = self.new_image()
        for section in image.sections(full=True):
            loaded.load(section)
        assert list(loaded.sections(full=True)) == list(image.sections(full=True))

    def test_increments_on_top_of_their_base_give_the_whole(self) -> None:
        """Full at the first mark, increments at two more: the last state."""
        image = self._changed(*range(10))
        kept = list(image.sections(full=True))
        for round_ in (1, 2):
            image.mark()
            for seed in range(10 * round_, 10 * round_ + 10):
                self.change(image, seed)
            kept += list(image.sections(full=False))
        loaded = self.new_image()
        for section in kept:
            loaded.load(section)
        assert list(loaded.sections(full=True)) == list(image.sections(full=True))

    def test_a_loaded_slot_stands_alone(self) -> None:
        """Compaction and verification load some slots at a time."""
        image = self._changed(*range(20))
        for slot in image.slots():
            alone = self.new_image()
            if slot != SHARD_WIDE and SHARD_WIDE in image.slots():
                for section in image.slot_sections(SHARD_WIDE, full=True):
                    alone.load(section)
            for section in image.slot_sections(slot, full=True):
                alone.load(section)
            assert list(alone.slot_sections(slot, full=True)) == list(
                image.slot_sections(slot, full=True)
            )

    def test_a_mark_of_one_slot_leaves_the_changes_of_the_others(self) -> None:
        """A cooperative snapshot marks each slot as it is read."""
        image = self._changed(*range(20))
        slots = [slot for slot in image.slots() if slot != SHARD_WIDE]
        before = {slot: list(image.slot_sections(slot, full=False)) for slot in slots}
        image.mark(slots[0])
        fresh = self.new_image()
        fresh.mark()
        assert list(image.slot_sections(slots[0], full=False)) == list(
            fresh.slot_sections(slots[0], full=False)
        )
        for slot in slots[1:]:
            assert list(image.slot_sections(slot, full=False)) == before[slot]
