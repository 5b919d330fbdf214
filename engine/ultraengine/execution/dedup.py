"""`DedupIndex`: which ids one shard has seen, and at which offset (requirement 001 §1.1).

Purpose: a retry gets the original outcome instead of a second effect.  The index maps (slot,
8-byte hash of tenant, key and id) to offsets; whoever asks confirms a hit by reading the
logged command, because hashes prove nothing.

Where entries are: the newest in memory, one `PackedIndex` per slot; those below
the *spilled end* in sorted runs on disk (`dedup_runs`), behind the `Runs` protocol.  Where an
entry is never changes an answer, a dump or the floor.

What is forgotten: everything below the *floor*, which is a function of the log and the
options, so that replicas forget the same ids at the same command.  It rises

* with logged time, when commands are older than the window.  To know how old offsets are
  without a time per offset, a *point* (offset, time, entries before it) is kept every
  window/4096, so an id lives up to that much longer than the window, never shorter;
* with the number of entries, when they exceed what memory and disk may hold
  (``entries_total_max``).  Then an id is forgotten early, and the fact is an alarm;
* by a logged decision of an operator (``raise_floor``).

Order of a start: ``load_shard``, ``load_slot`` … for each image, ``load_done``, then ``add``
and ``advance`` for the rest of the log.  A fresh shard calls ``load_done`` alone.

Rules: belongs to the writer's thread; a look-up may read from disk (`Runs.find`).
"""

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from struct import pack, unpack
from typing import Final, Literal, Protocol

import msgspec

from ultraengine.execution.dedup_runs import SPAN_MAX, merge_sorted
from ultraengine.execution.packed import (
    MIRROR_END,
    Entry,
    PackedIndex,
    block_of,
    decode_entries,
    encode_blocks,
    mirror,
)
from ultraengine.model.errors import InvariantBroken
from ultraengine.model.ids import Instant, Offset
from ultraengine.model.limits import Limits

RUN_BYTES_PER_ENTRY: Final = 16
"""Upper estimate of the disk space of one spilled entry: 12 in its block, the rest for
block headers, index and filter."""
POINTS_PER_WINDOW: Final = 4096
POINTS_PER_TOTAL: Final = 1024

FloorReason = Literal["window", "limit", "operator"]


class DedupOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds of the idempotency memory.  All replicas of a shard need the same."""

    entries_max: int
    """Entries in memory; the oldest eighth is spilled when there are more."""
    bytes_max: int
    """Bytes of sorted runs; 0: nothing is spilled."""
    window_us: int
    """Logged time after which an id is forgotten, microseconds."""

    @classmethod
    def of(cls, limits: Limits) -> "DedupOptions":
        """The options that the named limits say."""
        return cls(
            entries_max=limits.dedup_entries_max,
            bytes_max=limits.dedup_bytes_max,
            window_us=limits.dedup_window_s * 1_000_000,
        )

    @property
    def entries_total_max(self) -> int:
        """Entries in memory and on disk together."""
        return self.entries_max + self.bytes_max // RUN_BYTES_PER_ENTRY


class FloorRaised(msgspec.Struct, frozen=True):
    """The floor rose: ids of commands below ``offset`` are forgotten."""

    offset: Offset
    time: Instant
    """Commands logged at or before this time are forgotten."""
    forgotten: int
    """Entries that went."""
    reason: FloorReason
    """``limit`` is an alarm: the window is shorter than was promised."""


class Runs(Protocol):
    """The spilled part, as `DedupIndex` sees it."""

    def prepare(
        self, *, floor: int, boundary: int, end: int, count: int, fits: Callable[[int], bool]
    ) -> int:
        """Choose which runs to go on with, before entries are loaded; returns the spilled end.

        The image that is loaded ends at `end`; it has about `count` entries, from `floor` on.
        Runs may stay when memory can hold what is above them (`fits`); otherwise what is
        below `boundary` must leave memory.  Entries below the returned offset are in runs
        already, or are given to ``load``.
        """

    def load(self, slot: int, entries: Sequence[Entry]) -> None:
        """Take loaded entries below the spilled end, in mirror order, or know them already."""

    def load_done(self) -> None:
        """All loaded entries were given."""

    def find(self, slot: int, mirrored: int) -> Sequence[int]:
        """Offsets of the spilled entries with this hash, ascending."""

    def blocks(self, slot: int, low: int) -> Sequence[Iterator[Sequence[Entry]]]:
        """Streams of the spilled entries of one slot with offsets from `low` on."""

    def slots(self) -> Iterable[int]:
        """Slots that have spilled entries."""


class NoRuns:
    """For an index that never spills."""

    def prepare(
        self, *, floor: int, boundary: int, end: int, count: int, fits: Callable[[int], bool]
    ) -> int:
        """Everything stays in memory."""
        del floor, boundary, end, count, fits
        return 0

    def load(self, slot: int, entries: Sequence[Entry]) -> None:
        """Never called with entries, because nothing is below offset 0."""
        if entries:
            raise InvariantBroken("nothing is spilled without runs", slot=slot)

    def load_done(self) -> None:
        """Nothing to seal."""

    def find(self, slot: int, mirrored: int) -> Sequence[int]:
        """Nothing was spilled."""
        del slot, mirrored
        return ()

    def blocks(self, slot: int, low: int) -> Sequence[Iterator[Sequence[Entry]]]:
        """Nothing was spilled."""
        del slot, low
        return ()

    def slots(self) -> Iterable[int]:
        """Nothing was spilled."""
        return ()


class _ShardPart(msgspec.Struct, array_like=True, frozen=True):
    """What belongs to the shard as a whole; msgpack array, fields appended only."""

    end: int
    added: int
    floor_offset: int
    floor_time: int
    floor_added: int
    next_point_time: int
    next_point_added: int
    points: list[tuple[int, int, int]]
    slot_floors: list[tuple[int, int]]


def _below(stream: Iterator[Sequence[Entry]], end: int) -> Iterator[Sequence[Entry]]:
    """The entries of a stream with offsets below `end`."""
    for entries in stream:
        yield [entry for entry in entries if entry[1] < end]


_ENCODER: Final = msgspec.msgpack.Encoder()
_SHARD_PART: Final = msgspec.msgpack.Decoder(_ShardPart)


class DedupIndex:
    """The idempotency memory of one shard."""

    def __init__(self, options: DedupOptions, runs: Runs | None = None) -> None:
        """Without `runs` nothing is spilled, and ``options.bytes_max`` must be 0."""
        if runs is None and options.bytes_max:
            raise ValueError("without runs the index keeps nothing on disk: bytes_max must be 0")
        self.options = options
        self._runs: Runs = NoRuns() if runs is None else runs
        self._slots: dict[int, PackedIndex] = {}
        self._memory = 0
        self._end = 0
        self._added = 0
        self._spilled_end = 0
        self._trimmed_end = 0
        self._prepared = False
        self._floor_offset = 0
        self._floor_time = 0
        self._floor_added = 0
        # Points: parallel arrays, oldest first.
        self._offsets: array[int] = array("Q")
        self._times: array[int] = array("q")
        self._counts: array[int] = array("Q")
        self._next_time = 0
        self._next_added = 0
        self._slot_floors: dict[int, int] = {}
        self._facts: list[FloorRaised] = []
        self._mark = 0
        self._slot_marks: dict[int, int] = {}

    # --- ask and remember ------------------------------------------------------------------

    def find(self, slot: int, identity: bytes) -> tuple[int, ...]:
        """Offsets of commands that may have this identity, newest first.

        Raises what the runs raise, when entries were spilled: `RunDamaged` or OSError.
        """
        index = self._slots.get(slot)
        found = () if index is None else index.candidates(identity)
        if self._spilled_end:
            # Memory may hold spilled entries until they are trimmed; the runs answer for them.
            inside = [offset for offset in found if offset >= self._spilled_end]
            found = (*inside, *reversed(self._runs.find(slot, mirror(identity))))
        if found and found[-1] < self._low(slot):
            found = tuple(offset for offset in found if offset >= self._low(slot))
        return found

    def add(self, slot: int, identity: bytes, offset: int) -> None:
        """Remember a command.  Offsets ascend; those that runs hold already are counted alone."""
        self._added += 1
        if offset >= self._spilled_end:
            index = self._slots.get(slot)
            if index is None:
                index = self._slots[slot] = PackedIndex()
            index.add(identity, offset)
            self._memory += 1

    def add_run(self, slot: int, identities: Sequence[bytes], offset: int) -> None:
        """`add` for commands of one slot at consecutive offsets."""
        if offset < self._spilled_end:
            for number, identity in enumerate(identities, offset):
                self.add(slot, identity, number)
            return
        index = self._slots.get(slot)
        if index is None:
            index = self._slots[slot] = PackedIndex()
        add = index.add
        for number, identity in enumerate(identities, offset):
            add(identity, number)
        self._added += len(identities)
        self._memory += len(identities)

    def advance(self, time: Instant, offset_end: Offset) -> None:
        """A group ended at `offset_end`, stamped `time`: forget what is too old or too much."""
        self._end = offset_end
        if time >= self._next_time or self._added >= self._next_added:
            self._offsets.append(offset_end)
            self._times.append(time)
            self._counts.append(self._added)
            self._next_time = time + max(1, self.options.window_us // POINTS_PER_WINDOW)
            self._next_added = self._added + max(
                1, self.options.entries_total_max // POINTS_PER_TOTAL
            )
        expired = bisect_right(self._times, time - self.options.window_us)
        if expired:
            self._raise(expired, "window")
        surplus = self._added - self.options.entries_total_max
        if surplus > self._floor_added:
            # The newest point stays: it may be the end of the group that filled the memory.
            last = len(self._counts) - 1
            self._raise(min(bisect_left(self._counts, surplus) + 1, last), "limit")

    def raise_floor(self, offset: int) -> None:
        """Forget what lies below the last point at or below `offset`; a logged decision."""
        self._raise(bisect_right(self._offsets, offset), "operator")

    def _raise(self, points: int, reason: FloorReason) -> None:
        """Raise the floor to the last of the `points` oldest points."""
        if points < 1:
            return
        at = points - 1
        forgotten = self._counts[at] - self._floor_added
        self._floor_offset, self._floor_time = self._offsets[at], self._times[at]
        self._floor_added = self._counts[at]
        for part in (self._offsets, self._times, self._counts):
            del part[:points]
        self._facts.append(
            FloorRaised(Offset(self._floor_offset), Instant(self._floor_time), forgotten, reason)
        )

    def _low(self, slot: int) -> int:
        return max(self._floor_offset, self._slot_floors.get(slot, 0))

    # --- facts -----------------------------------------------------------------------------

    @property
    def floor_offset(self) -> Offset:
        """Commands below this offset are forgotten; 0 while none is."""
        return Offset(self._floor_offset)

    @property
    def floor_time(self) -> Instant:
        """Commands logged at or before this time may be forgotten; 0 while none is."""
        return Instant(self._floor_time)

    @property
    def entries(self) -> int:
        """Entries above the floor, wherever they are (those of dropped slots included)."""
        return self._added - self._floor_added

    @property
    def entries_in_memory(self) -> int:
        """Entries in memory, those included that wait to be trimmed."""
        return self._memory

    def take_facts(self) -> list[FloorRaised]:
        """How the floor rose since the last call, oldest first."""
        facts, self._facts = self._facts, []
        return facts

    # --- spill and trim ----------------------------------------------------------------------

    @property
    def spill_range(self) -> tuple[int, int] | None:
        """Offsets to spill next; None while memory holds no more than it should."""
        if self._memory <= self.options.entries_max or not self.options.bytes_max:
            return None
        low = max(self._spilled_end, self._floor_offset)
        # An offset has at most one entry, so seven eighths stay at most.
        high = self._end - self.options.entries_max * 7 // 8
        high = min(high, low + SPAN_MAX - 1)
        return (low, high) if low < high else None

    def spill_steps(self, low: int, high: int) -> Iterator[tuple[int, Sequence[Entry]]]:
        """Entries of a spill range by (slot, mirror order), in short steps, some empty.

        Commands may be added between the steps; nothing is removed before ``spilled``.
        """
        for slot, index in sorted(self._slots.items()):
            for entries in index.scan(low, high):
                yield slot, entries

    def spilled(self, high: int) -> None:
        """The runs hold everything below `high` from now on."""
        if high < self._spilled_end:
            raise InvariantBroken("spills ascend", high=high, spilled_end=self._spilled_end)
        self._spilled_end = high

    @property
    def trim_wanted(self) -> bool:
        """Whether memory holds entries that it need not hold."""
        return max(self._spilled_end, self._floor_offset) > self._trimmed_end

    def trim_steps(self) -> Iterator[int]:
        """Remove from memory what is spilled or forgotten; each step says how many entries."""
        below = max(self._spilled_end, self._floor_offset)
        for slot, index in sorted(self._slots.items()):
            for removed in index.cut_steps(min(below, index.last + 1)):
                self._memory -= len(removed)
                yield len(removed)
            if not index:
                del self._slots[slot]
        self._trimmed_end = below

    # --- snapshots ---------------------------------------------------------------------------

    def slots(self) -> list[int]:
        """Slots that hold entries, ascending."""
        return sorted({*self._slots, *self._runs.slots()})

    def mark(self, slot: int | None = None) -> None:
        """Start of the next increment, for all slots or for one."""
        position = max((index.last + 1 for index in self._slots.values()), default=0)
        position = max(position, self._end)
        if slot is None:
            self._mark = position
            self._slot_marks.clear()
        else:
            self._slot_marks[slot] = position

    def dump_shard(self) -> bytes:
        """What belongs to no slot: floor, points and counts."""
        return _ENCODER.encode(
            _ShardPart(
                self._end,
                self._added,
                self._floor_offset,
                self._floor_time,
                self._floor_added,
                self._next_time,
                self._next_added,
                list(zip(self._offsets, self._times, self._counts, strict=True)),
                sorted(self._slot_floors.items()),
            )
        )

    def dump_slot(self, slot: int, *, full: bool = True) -> Iterator[bytes]:
        """The entries of one slot, or those added since its ``mark``, in mirror order.

        Nothing may be added to the slot, spilled or trimmed while this is consumed.
        """
        low = self._low(slot)
        if not full:
            low = max(low, self._slot_marks.get(slot, self._mark))
        index = self._slots.get(slot)
        since = max(low, self._spilled_end)
        if low < self._spilled_end:
            streams = list(self._runs.blocks(slot, low))
            if self._spilled_end > self._end:
                # A replay below the end of runs that an earlier process made: what they hold
                # beyond it is no part of this position, and replay adds it again.
                streams = [_below(stream, self._end) for stream in streams]
            if index is not None:
                streams.append(index.scan(since, MIRROR_END))
            yield from encode_blocks(map(block_of, merge_sorted(streams)))
        elif index is not None:
            yield from encode_blocks(index.blocks(since, MIRROR_END))

    def load_shard(self, chunk: bytes) -> None:
        """Take one ``dump_shard``: of the full image first, then of its increments.

        Raises `msgspec.ValidationError` for anything else.
        """
        part = _SHARD_PART.decode(chunk)
        self._end, self._added = part.end, part.added
        self._floor_offset, self._floor_time = part.floor_offset, part.floor_time
        self._floor_added = part.floor_added
        self._next_time, self._next_added = part.next_point_time, part.next_point_added
        self._offsets = array("Q", [offset for offset, _, _ in part.points])
        self._times = array("q", [time for _, time, _ in part.points])
        self._counts = array("Q", [count for _, _, count in part.points])
        self._slot_floors = dict(part.slot_floors)
        self._prepare()

    def _prepare(self) -> None:
        if self._prepared:
            return
        self._prepared = True
        boundary = 0
        if self.entries > self.options.entries_max and self.options.bytes_max:
            boundary = max(self._floor_offset, self._end - self.options.entries_max * 7 // 8)
        self._spilled_end = self._trimmed_end = self._runs.prepare(
            floor=self._floor_offset,
            boundary=boundary,
            end=self._end,
            count=self.entries,
            fits=self._fits,
        )

    def _fits(self, offset: int) -> bool:
        """Whether memory may hold all entries from `offset` on, or a few more for a while."""
        points = bisect_right(self._offsets, offset)
        before = self._counts[points - 1] if points else self._floor_added
        return self._added - before <= self.options.entries_max * 5 // 4

    def load_slot(self, slot: int, chunk: bytes) -> None:
        """Take one chunk of ``dump_slot``.  Raises ValueError for anything else."""
        hashes, offsets = decode_entries(chunk)
        below = self._spilled_end
        if offsets and min(offsets) < below:
            entries = list(zip(unpack(f">{len(offsets)}Q", hashes), offsets, strict=True))
            self._runs.load(slot, [entry for entry in entries if entry[1] < below])
            kept = [entry for entry in entries if entry[1] >= below]
            hashes = pack(f">{len(kept)}Q", *[mirrored for mirrored, _ in kept])
            offsets = array("Q", [offset for _, offset in kept])
        if offsets:
            index = self._slots.get(slot)
            if index is None:
                index = self._slots[slot] = PackedIndex()
            index.load_sorted(hashes, offsets)
            self._memory += len(offsets)

    def load_done(self) -> None:
        """All images are loaded, or there was none; replay may begin."""
        self._prepare()
        self._runs.load_done()

    def drop_slot(self, slot: int, offset: int) -> None:
        """Forget the entries of one slot below `offset`, where the slot left this shard.

        They are trimmed later, and stay counted in ``entries`` until the floor has passed them.
        """
        self._slot_floors[slot] = offset
