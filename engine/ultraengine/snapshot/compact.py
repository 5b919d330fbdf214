"""Merging a full image with its increments, without the engine (requirement 001 §2.1).

Files are sorted by slot, so chains are merged as streams: memory holds the sections of one
slot, or of one batch of slots.  Two ways:

* `rebuild`: load a batch of slots into a scratch image made of the domains alone, and dump
  it again.  The result is the same bytes as a fresh full snapshot there, with its state hash.
* `fold`: without the domains; dump and changes of one (slot, name) are put one after the
  other.  It saves opening files, not bytes, and the state hash stays what it was.

The same `rebuild` proves a written snapshot: what its bytes load to must hash to its state
hash.  Both rely on the independence of slots (`image.Image`).
"""

import heapq
import itertools
import operator
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

from ultraengine.snapshot.image import SHARD_WIDE, Image, Section

BATCH_BYTES: Final = 8 * 1024 * 1024
"""Chunk bytes loaded into one scratch image before it is dumped and dropped."""
BATCH_BESIDE_LOOP_BYTES: Final = 512 * 1024
"""The same in a process that serves clients: dropping an image holds the interpreter lock."""

SlotGroup = tuple[int, list[Section]]
"""A slot and its sections in the order in which they are to be loaded."""


def merge_slots(chain: Sequence[Iterable[Section]]) -> Iterator[SlotGroup]:
    """Group the sections of a full image and its increments, oldest first, by slot.

    Each stream is read to its end exactly once; the order of the streams is kept in a slot.
    """

    def groups(age: int, sections: Iterable[Section]) -> Iterator[tuple[int, int, list[Section]]]:
        for slot, of_slot in itertools.groupby(sections, key=operator.attrgetter("slot")):
            yield slot, age, list(of_slot)

    merged = heapq.merge(
        *(groups(age, sections) for age, sections in enumerate(chain)),
        key=operator.itemgetter(0, 1),
    )
    for slot, of_slot in itertools.groupby(merged, key=operator.itemgetter(0)):
        found: list[Section] = []
        for _, _, sections in of_slot:
            found += sections
            sections.clear()  # The merge still knows the list; its chunks are the reader's to drop.
        yield slot, found


def fold(groups: Iterable[SlotGroup]) -> Iterator[Section]:
    """One sorted stream: per (slot, name) the dump, then the changes, oldest first."""
    for _, sections in groups:
        yield from sorted(sections, key=operator.attrgetter("name"))


def rebuild(
    groups: Iterable[SlotGroup], new_image: Callable[[], Image], *, batch_bytes: int = BATCH_BYTES
) -> Iterator[Section]:
    """Load and dump again, a batch of slots at a time: the sections of a fresh full image.

    Shard-wide sections, which come first, go into every scratch image before its slots: what
    a slot dumps may depend on them (a window of time, for one).
    """
    shared: list[Section] = []
    batch: list[SlotGroup] = []
    loaded = 0
    for slot, sections in groups:
        if slot == SHARD_WIDE:
            shared = sections
        batch.append((slot, sections))
        loaded += sum(len(section.chunk) for section in sections)
        if loaded >= batch_bytes:
            yield from _dump_again(shared, batch, new_image())
            batch, loaded = [], 0
    if batch:
        yield from _dump_again(shared, batch, new_image())


def _dump_again(
    shared: Sequence[Section], batch: Sequence[SlotGroup], image: Image
) -> Iterator[Section]:
    for section in shared:
        image.load(section)
    for slot, sections in batch:
        if slot != SHARD_WIDE:
            sections.reverse()
            while sections:
                image.load(sections.pop())  # One by one: a large slot is not held twice.
    for slot, _ in batch:
        yield from image.slot_sections(slot, full=True)
