"""Sorted runs: the older part of the idempotency memory, as immutable files (pure part).

A run holds every remembered entry (slot, mirrored hash, offset) of a contiguous range of
offsets, sorted by slot, then hash, then offset (mirror order is defined in `packed`).  Runs
are derived data, a function of the log: what is lost is rebuilt from snapshot and log.  This
module encodes, decodes and merges; `dedup_files.driver` owns the files.

Format, version 1 (little-endian but for the hashes; CRC-32C):

| at | bytes | field |
|---|---|---|
| 0 | 4 | magic `UEDR` |
| 4 | 2 | format version, 1 |
| 6 | 2 | header length, 128 |
| 8 | 4 | shard |
| 12 | 4 | number of blocks |
| 16 | 8 | low: no entry has a lower offset |
| 24 | 8 | high: no entry has this offset or a higher one |
| 32 | 8 | number of entries |
| 40 | 8 | position of the index |
| 48 | 8 | position of the filter |
| 56 | 8 | length of the file |
| 64 | 4 | crc of the index |
| 68 | 4 | crc of the filter |
| 72 | 52 | zero |
| 124 | 4 | crc of bytes 0-123 |

Blocks follow the header without gaps.  A block: crc u32 of the rest, slot u16, count u16
(1-256), ``count`` mirrored hashes (8 bytes, big-endian), ``count`` offsets minus low (u32).
The index: per block its slot (u16, all blocks), then its count (u16, all), then its first
hash (u64, all).  The filter: a register-blocked Bloom filter (Lang et al., "Performance-
Optimal Filtering", VLDB 2019) of 64-bit words, ten bits per entry; a hash sets four bits of
the one word at ``(hash >> 32) * words >> 32``, chosen by its lowest 12 bits.

Memory per open run: the filter (1.25 bytes per entry) and the index (16 bytes per block, 6 per
slot).  A look-up of an id that is not there costs one word of the filter and, in two or
three of a hundred cases, one read of at most 3 KiB.
"""

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from hashlib import blake2b
from struct import Struct, pack, unpack
from typing import Final

import msgspec

from ultraengine.execution.packed import MIRROR_END, Entry
from ultraengine.log.digest import crc32c

HEADER_BYTES: Final = 128
BLOCK_ENTRIES_MAX: Final = 256
SPAN_MAX: Final = 1 << 32
"""A run spans fewer offsets than this."""
FILTER_BITS_PER_ENTRY: Final = 10

_MAGIC: Final = b"UEDR"
_VERSION: Final = 1
_HEADER: Final = Struct("<4sHHIIQQQQQQII52x")
_CRC: Final = Struct("<I")
_BLOCK: Final = Struct("<IHH")
_ENTRY_BYTES: Final = 12
_PATTERN_COUNT: Final = 4096
_PATTERN_BITS: Final = 4

Read = Callable[[int, int], bytes]
"""(length, position) -> bytes of one run's file."""


def _patterns() -> tuple[int, ...]:
    """Four distinct bits of 64 for each pattern, from a fixed stream of bytes."""
    patterns: list[int] = []
    for number in range(_PATTERN_COUNT):
        stream = blake2b(number.to_bytes(2, "little"), digest_size=64).digest()
        bits = list(dict.fromkeys(byte & 63 for byte in stream))[:_PATTERN_BITS]
        patterns.append(sum(1 << bit for bit in bits))
    return tuple(patterns)


_PATTERNS: Final = _patterns()


class RunDamaged(Exception):
    """A run's file is not what was written.  Its ids are safe in snapshot and log.

    Says which file, where, and what disagrees; the engine never guesses an answer instead.
    """

    def __init__(self, path: str, what: str) -> None:
        super().__init__(f"{path}: {what}")
        self.path = path


class RunInfo(msgspec.Struct, frozen=True, kw_only=True):
    """The header of a run: its range and where its parts are."""

    shard: int
    blocks: int
    low: int
    high: int
    count: int
    index_at: int
    filter_at: int
    length: int
    index_crc: int
    filter_crc: int

    def encode(self) -> bytes:
        """The 128 bytes at the start of the file."""
        plain = _HEADER.pack(
            _MAGIC,
            _VERSION,
            HEADER_BYTES,
            self.shard,
            self.blocks,
            self.low,
            self.high,
            self.count,
            self.index_at,
            self.filter_at,
            self.length,
            self.index_crc,
            self.filter_crc,
        )
        return plain + _CRC.pack(crc32c(plain))

    @classmethod
    def decode(cls, data: bytes, name: str) -> "RunInfo":
        """Read a header.  Raises `RunDamaged`; `name` is for its message."""
        if len(data) != HEADER_BYTES:
            raise RunDamaged(name, f"{len(data)} bytes where a header of 128 should be")
        if _CRC.unpack_from(data, 124)[0] != crc32c(data[:124]):
            raise RunDamaged(name, "the header's checksum does not match")
        magic, version, length, *rest = _HEADER.unpack_from(data)
        if (magic, version, length) != (_MAGIC, _VERSION, HEADER_BYTES):
            raise RunDamaged(name, f"{magic!r} version {version} is no run of this format")
        shard, blocks, low, high, count, index_at, filter_at, size, index_crc, filter_crc = rest
        return cls(
            shard=shard,
            blocks=blocks,
            low=low,
            high=high,
            count=count,
            index_at=index_at,
            filter_at=filter_at,
            length=size,
            index_crc=index_crc,
            filter_crc=filter_crc,
        )


class Filter:
    """Which hashes may be in a run.  Never says no to one that is."""

    __slots__ = ("words",)

    def __init__(self, words: "array[int]") -> None:
        self.words = words

    @classmethod
    def sized(cls, count: int) -> "Filter":
        """An empty filter for about `count` entries."""
        return cls(array("Q", bytes(8 * max(1, -(-count * FILTER_BITS_PER_ENTRY // 64)))))

    def add(self, entries: Sequence[Entry]) -> None:
        """Let the filter say yes to these."""
        words, size = self.words, len(self.words)
        for mirrored, _ in entries:
            words[(mirrored >> 32) * size >> 32] |= _PATTERNS[mirrored & 4095]

    def may_hold(self, mirrored: int) -> bool:
        """False: certainly not there."""
        words, pattern = self.words, _PATTERNS[mirrored & 4095]
        return words[(mirrored >> 32) * len(words) >> 32] & pattern == pattern

    def encode(self) -> bytes:
        """The words, little-endian."""
        return pack(f"<{len(self.words)}Q", *self.words)


class RunWriter:
    """Encodes one run from entries in order: ``put`` … ``put``, ``finish``."""

    def __init__(self, *, shard: int, low: int, high: int, count_expected: int) -> None:
        """`count_expected` sizes the filter; more entries make it less sharp, not wrong."""
        if high - low >= SPAN_MAX:
            raise ValueError(f"a run of {high - low} offsets is longer than {SPAN_MAX}")
        self.low = low
        self.high = high
        self.last = (-1, 0, 0)
        """(slot, mirrored hash, offset) of the last entry."""
        self._shard = shard
        self._position = HEADER_BYTES
        self._filter = Filter.sized(count_expected)
        self._slots: array[int] = array("H")
        self._counts: array[int] = array("H")
        self._firsts: array[int] = array("Q")
        self._count = 0

    def put(self, slot: int, entries: Sequence[Entry]) -> bytes:
        """Blocks of the next entries, to be appended to the file from byte 128 on.

        Raises ValueError unless they are above ``last``; `entries` themselves ascend.
        """
        if not entries:
            return b""
        if (slot, *entries[0]) <= self.last:
            raise ValueError(f"entry {(slot, *entries[0])} after {self.last}")
        self.last = (slot, *entries[-1])
        parts: list[bytes] = []
        for start in range(0, len(entries), BLOCK_ENTRIES_MAX):
            block = entries[start : start + BLOCK_ENTRIES_MAX]
            count = len(block)
            body = b"".join(
                (
                    _BLOCK.pack(0, slot, count)[4:],
                    pack(f">{count}Q", *[mirrored for mirrored, _ in block]),
                    pack(f"<{count}I", *[offset - self.low for _, offset in block]),
                )
            )
            parts += (_CRC.pack(crc32c(body)), body)
            self._slots.append(slot)
            self._counts.append(count)
            self._firsts.append(block[0][0])
        self._filter.add(entries)
        self._count += len(entries)
        blocks = b"".join(parts)
        self._position += len(blocks)
        return blocks

    def finish(self) -> tuple[bytes, bytes]:
        """(index and filter, to be appended; header, to be written at byte 0)."""
        number = len(self._slots)
        index = b"".join(
            (
                pack(f"<{number}H", *self._slots),
                pack(f"<{number}H", *self._counts),
                pack(f"<{number}Q", *self._firsts),
            )
        )
        filter_bytes = self._filter.encode()
        info = RunInfo(
            shard=self._shard,
            blocks=number,
            low=self.low,
            high=self.high,
            count=self._count,
            index_at=self._position,
            filter_at=self._position + len(index),
            length=self._position + len(index) + len(filter_bytes),
            index_crc=crc32c(index),
            filter_crc=crc32c(filter_bytes),
        )
        return index + filter_bytes, info.encode()


class Run:
    """Look-ups in one run.  Thread-safe as far as `read` is: nothing here changes."""

    __slots__ = ("_firsts", "_positions", "_read", "_starts", "filter", "info", "name", "slots")

    def __init__(self, name: str, read: Read, *, size: int) -> None:
        """Read header, index and filter.  Raises `RunDamaged`; `size` is the file's length."""
        self.name = name
        self._read = read
        self.info = info = RunInfo.decode(read(HEADER_BYTES, 0), name)
        index_bytes = info.filter_at - info.index_at
        if size != info.length or index_bytes != info.blocks * 12:
            raise RunDamaged(name, f"{size} bytes where the header says {info.length}")
        index = read(index_bytes, info.index_at)
        words = read(info.length - info.filter_at, info.filter_at)
        if crc32c(index) != info.index_crc or crc32c(words) != info.filter_crc:
            raise RunDamaged(name, "the checksum of index or filter does not match")
        number = info.blocks
        slots = unpack(f"<{number}H", index[: number * 2])
        counts = unpack(f"<{number}H", index[number * 2 : number * 4])
        self._firsts = array("Q", unpack(f"<{number}Q", index[number * 4 :]))
        self._positions = array("Q", [HEADER_BYTES])
        position = HEADER_BYTES
        for count in counts:
            position += _BLOCK.size + count * _ENTRY_BYTES
            self._positions.append(position)
        self.slots: array[int] = array("H")
        """Slots that have entries, ascending."""
        self._starts: array[int] = array("I")
        for block, slot in enumerate(slots):
            if not self.slots or self.slots[-1] != slot:
                self.slots.append(slot)
                self._starts.append(block)
        self._starts.append(number)
        self.filter = Filter(array("Q", unpack(f"<{len(words) // 8}Q", words)))

    @property
    def memory_bytes(self) -> int:
        """Bytes of memory that filter and index take."""
        parts = (self.filter.words, self._firsts, self._positions, self.slots, self._starts)
        return sum(len(part) * part.itemsize for part in parts)

    def find(self, slot: int, mirrored: int) -> list[int]:
        """Offsets of the entries with this hash, ascending.  Raises `RunDamaged`."""
        return self.look_up(slot, mirrored) if self.filter.may_hold(mirrored) else []

    def look_up(self, slot: int, mirrored: int) -> list[int]:
        """``find`` without asking the filter."""
        start, end = self._range(slot)
        found: list[int] = []
        number = max(start, bisect_left(self._firsts, mirrored, start, end) - 1)
        key = mirrored.to_bytes(8, "big")
        while number < end and self._firsts[number] <= mirrored:
            # Mostly the filter was wrong, so the hash is searched before anything is decoded.
            hashes, offsets = self._block(number, slot)
            at = hashes.find(key)
            while at >= 0:
                if at & 7 == 0:
                    offset = int.from_bytes(offsets[at >> 1 : (at >> 1) + 4], "little")
                    found.append(self.info.low + offset)
                at = hashes.find(key, at + 1)
            number += 1
        return found

    def _range(self, slot: int) -> tuple[int, int]:
        """The numbers of the blocks of one slot."""
        at = bisect_left(self.slots, slot)
        if at == len(self.slots) or self.slots[at] != slot:
            return 0, 0
        return self._starts[at], self._starts[at + 1]

    def blocks(self, slot: int, low: int = 0) -> Iterator[Sequence[Entry]]:
        """The entries of one slot in order, with offsets from `low` on, block by block."""
        base = self.info.low
        for number in range(*self._range(slot)):
            hashes, offsets = self._block(number, slot)
            count = len(offsets) // 4
            entries = zip(unpack(f">{count}Q", hashes), unpack(f"<{count}I", offsets), strict=True)
            yield [
                (mirrored, base + offset) for mirrored, offset in entries if base + offset >= low
            ]

    def _block(self, number: int, slot: int) -> tuple[bytes, bytes]:
        """Hashes and offsets of a block, as stored."""
        position = self._positions[number]
        length = self._positions[number + 1] - position
        data = self._read(length, position)
        count = (length - _BLOCK.size) // _ENTRY_BYTES
        if len(data) != length or _BLOCK.unpack_from(data) != (crc32c(data[4:]), slot, count):
            raise RunDamaged(self.name, f"the block at byte {position} is damaged")
        split = _BLOCK.size + count * 8
        return data[_BLOCK.size : split], data[split:]


class RunTable:
    """Several runs, asked together: one that does not hold an id costs one word of memory."""

    __slots__ = ("_rows",)

    def __init__(self, runs: Sequence[Run]) -> None:
        self._rows = tuple((run.filter.words, len(run.filter.words), run) for run in runs)

    def find(self, slot: int, mirrored: int) -> list[int]:
        """Offsets of the entries with this hash, in the order of the runs."""
        top, pattern = mirrored >> 32, _PATTERNS[mirrored & 4095]
        found: list[int] = []
        for words, size, run in self._rows:
            if words[top * size >> 32] & pattern == pattern:
                found += run.look_up(slot, mirrored)
        return found


def merge_sorted(streams: Sequence[Iterator[Sequence[Entry]]]) -> Iterator[Sequence[Entry]]:
    """One sorted stream from several, in steps of about as many entries as went in.

    Sorting concatenated sorted lists is a merge inside ``list.sort`` (timsort), several times
    faster than a heap that handles one entry at a time.
    """
    buffers: list[Sequence[Entry]] = [()] * len(streams)
    live = [True] * len(streams)
    while True:
        for number, stream in enumerate(streams):
            while live[number] and not buffers[number]:
                step = next(stream, None)
                live[number] = step is not None
                buffers[number] = step or ()
        if not any(buffers):
            return
        # All that is not above the end of any buffer whose stream goes on can be put out.
        ends = [buffer[-1] for buffer, more in zip(buffers, live, strict=True) if more]
        limit = min(ends, default=(MIRROR_END, 0))
        merged: list[Entry] = []
        for number, buffer in enumerate(buffers):
            at = bisect_right(buffer, limit)
            merged += buffer[:at]
            buffers[number] = buffer[at:]
        merged.sort()
        yield merged


def to_merge(counts: Sequence[int], *, base: int, count_max: int, fan: int = 4) -> tuple[int, int]:
    """Which neighbours to merge, oldest first: a range of indexes, empty when none.

    Level n ends at ``base * fan**(n+1)`` entries.  `fan` neighbours none of which is above the
    level of the newest of them become one; only the oldest of them, if all together would
    have more than `count_max` entries.  So few runs stay per level, and few large ones.
    """
    for end in range(len(counts), fan - 1, -1):
        start = end - fan
        if max(counts[start:end]) < _level_end(counts[end - 1], base, fan):
            chosen = end
            while sum(counts[start:chosen]) > count_max:
                chosen -= 1
            if chosen - start > 1:
                return start, chosen
    return 0, 0


def _level_end(count: int, base: int, fan: int) -> int:
    end = base * fan
    while count >= end:
        end *= fan
    return end
