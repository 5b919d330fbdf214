"""`PackedIndex`: 8-byte hash -> ascending integers in at most 24 bytes per entry.

Purpose: remember for ever, or for a long window, which ids were seen and where (an offset, or
``offset << 16 | item``), without a Python object per id.  A dict of the same content costs
about ten times as much (requirement 001 §1.1, §6.1: memory holds hot state).

Structure: linear hashing (W. Litwin, VLDB 1980) over short buckets.  A bucket is a bytearray
of its 8-byte hashes in insertion order, searched by ``rfind``, beside an ``array('Q')`` of
the values.  Whenever the mean bucket would hold more than `BUCKET_ENTRIES` entries, exactly one
bucket is split in two, so no insertion ever pays for a global rehash; after large removals
buckets are merged again, one per step.  Buckets have no fixed capacity: hashes that collide in
full, or an adversary who crafts them, make one bucket long and never the directory large.

Order: the *mirror* of a hash is its bytes read as a big-endian integer with the bits of each
byte reversed.  As the bucket number is made of the lowest bits of the hash, all entries of a
bucket are neighbours in mirror order.  So dumps, scans and sorted runs (`dedup_runs`) all
use mirror order: it depends on content alone and can be streamed bucket by bucket.

Chunk format (``dump``, ``changes``; little-endian but for the hashes): entries in the whole
index u64, floor u64, then a block of entries: count u32, ``count`` mirrored hashes (8 bytes
each, ascending), ``count`` values u64 (ascending among equal hashes).  At most 1 MiB.

Compiled: `PackedCore` (``_packed.c``) holds the same fields and does the two things that happen
with every command, `add` and `candidates`, what loads are made of, `arrange`, and what dumps are
made of, `gather`: in a forked child it reads buckets without touching their reference counts, so
no page of them is copied.
`PlainCore` is the reference, and what is used where no compiler was or ``ULTRA_PURE=1`` asks for
it.

Rules: values ascend strictly over all additions of one index, which makes "added since" and
"older than" a comparison; hashes prove nothing, so a candidate is confirmed by its reader.
"""

import sys
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import compress, islice
from operator import gt
from struct import Struct, pack, unpack
from typing import TYPE_CHECKING, Final, Literal

from ultraengine.model.errors import InvariantBroken

BUCKET_ENTRIES: Final = 96
"""Mean entries per bucket.  More cost search time; fewer cost memory per bucket and, as buckets
of less than 512 bytes share the small-object pools of the interpreter, fragmentation."""
CHUNK_ENTRIES_MAX: Final = 65_000
"""Entries per chunk, so that a chunk stays below 1 MiB."""
HASH_BYTES: Final = 8
MIRROR_END: Final = 1 << 64
"""First integer that is no mirror."""

Entry = tuple[int, int]
"""(mirrored hash, value)."""
Block = tuple[bytes, bytes]
"""Entries as bytes: mirrored hashes of 8 big-endian bytes, values of 8 little-endian ones."""

_SCAN_BUCKETS_LOG2: Final = 3
"""Buckets visited per step of a scan, as a power of two: 700 to 1,500 entries."""
_CHUNK_HEADER: Final = Struct("<QQ")
_COUNT: Final = Struct("<I")
_integer: Final = int.from_bytes
_REVERSED_BYTES: Final = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
_BIT_SET: Final = tuple(bytes(byte >> bit & 1 for byte in range(256)) for bit in range(8))
_BIT_CLEAR: Final = tuple(bytes(~byte >> bit & 1 for byte in range(256)) for bit in range(8))


def mirror(identity: bytes) -> int:
    """The mirror of one 8-byte hash."""
    return int.from_bytes(identity.translate(_REVERSED_BYTES), "big")


def unmirror(mirrored: int) -> bytes:
    """The 8-byte hash whose mirror this is."""
    return mirrored.to_bytes(HASH_BYTES, "big").translate(_REVERSED_BYTES)


@lru_cache(maxsize=256)
def _hashes(count: int) -> Struct:
    """Takes a bucket of `count` entries apart."""
    return Struct("8s" * count)


class PlainCore:
    """Fields and hot methods of a packed index in plain Python."""

    __slots__ = ("_count", "_half", "_keys", "_last", "_limit", "_values", "_wide")

    _keys: list[bytearray]
    _values: "list[array[int]]"
    _half: int
    _wide: int
    _limit: int
    _count: int
    _last: int

    def add(self, identity: bytes, value: int, /) -> None:
        """Append one entry.  Raises what `_refuse` raises unless `value` is above all before."""
        if value <= self._last:
            self._refuse(value)
        self._last = value
        keys = self._keys
        number = _integer(identity, "little") & self._wide
        if number >= len(keys):
            number -= self._half
        keys[number] += identity
        self._values[number].append(value)
        self._count += 1
        if self._count > self._limit:
            self._split()

    def candidates(self, identity: bytes, /) -> tuple[int, ...]:
        """The values added with this hash, newest first."""
        keys = self._keys
        number = _integer(identity, "little") & self._wide
        if number >= len(keys):
            number -= self._half
        bucket = keys[number]
        at = bucket.rfind(identity)
        if at < 0:
            return ()
        found = []
        while at >= 0:
            if at & 7:
                # A hit across two neighbours is none; it may overlap a real one to its left.
                at = bucket.rfind(identity, 0, at + 7)
            else:
                found.append(self._values[number][at >> 3])
                at = bucket.rfind(identity, 0, at)
        return tuple(found)

    def gather(self, first: int, stride: int, low: int, high: int, cursor: int, /) -> Block:
        """Entries of buckets `first`, `first` + `stride`, … in mirror order.

        Only those with ``low <= value < high`` whose mirror is `cursor` or above.
        """
        entries: list[Entry] = []
        for number in range(first, len(self._keys), stride):
            values = self._values[number]
            start = bisect_left(values, low)
            end = max(start, bisect_left(values, high))
            keys = self._keys[number][start * 8 : end * 8].translate(_REVERSED_BYTES)
            entries += zip(unpack(f">{end - start}Q", keys), values[start:end], strict=True)
        entries.sort()
        return block_of(entries[bisect_left(entries, (cursor, 0)) :])

    def arrange(self, keys: bytes, values: bytes, /) -> Block:
        """Entries of one bucket in the order of their values, which are native integers."""
        pairs = sorted(zip(array("Q", values), array("Q", keys), strict=True))
        return (
            array("Q", [token for _, token in pairs]).tobytes(),
            array("Q", [value for value, _ in pairs]).tobytes(),
        )

    def _refuse(self, value: int) -> None:
        """The index says what is wrong."""

    def _split(self) -> None:
        """The index makes room."""


if TYPE_CHECKING:
    from ultraengine.execution._packed import PackedCore
else:
    try:
        from ultraengine.execution._packed import PackedCore
    except ImportError:
        PackedCore = PlainCore


class PackedIndex(PackedCore):
    """A multimap from 8-byte hashes to strictly ascending integers below 2^63.

    Additions and look-ups take constant time.  Not thread-safe: it belongs to the writer of its
    shard.
    """

    __slots__ = ("_floor", "_mark")

    def __init__(self) -> None:
        # Buckets 0 .. half-1 and half .. len-1: those below len-half have been split at this
        # level.  A hash belongs to bucket (hash & wide), or to that minus half if there is no
        # such bucket yet.
        self._keys = [bytearray()]
        self._values = [array("Q")]
        self._half = 1
        self._wide = 1
        self._limit = BUCKET_ENTRIES
        self._count = 0
        self._last = -1
        self._floor = 0
        self._mark = (0, 0)

    def __len__(self) -> int:
        """Number of entries."""
        return self._count

    @property
    def last(self) -> int:
        """Highest value ever added or cut below; the next one must be higher.  -1 at first."""
        return self._last

    @property
    def floor(self) -> int:
        """Entries with values below this have been cut."""
        return self._floor

    def _refuse(self, value: int) -> None:
        raise InvariantBroken("values of a packed index ascend", value=value, last=self._last)

    def cut_below(self, value: int) -> Iterator[Entry]:
        """Remove all entries with lower values, yielding them in no particular order.

        Consume the iterator to the end: what is not consumed is not removed.  Raises
        `InvariantBroken` when additions have not reached `value` yet.
        """
        for removed in self.cut_steps(value):
            yield from removed

    def cut_steps(self, value: int) -> Iterator[Sequence[Entry]]:
        """``cut_below`` in steps of one bucket each, some of them empty.

        Additions may happen between the steps: a split moves entries only to buckets that are
        visited later, and new entries are above `value`.
        """
        if value > self._last + 1:
            raise InvariantBroken("a cut stays below the end", value=value, last=self._last)
        self._floor = max(self._floor, value)
        number = 0
        while number < len(self._keys):
            yield self._cut_bucket(number, value)
            number += 1
        # A quarter instead of a half, so that growth right after a merge does not split again.
        while len(self._keys) > 1 and self._count * 4 < self._limit:
            self._merge()
            yield ()

    def scan(self, low: int, high: int) -> Iterator[Sequence[Entry]]:
        """Entries with ``low <= value < high`` in mirror order, in short sorted steps.

        Additions of values >= `high`, and cuts below `low`, may happen between the steps.
        """
        for hashes, values in self.blocks(low, high):
            count = len(values) // 8
            yield list(zip(unpack(f">{count}Q", hashes), unpack(f"<{count}Q", values), strict=True))

    def blocks(self, low: int, high: int) -> Iterator[Block]:
        """``scan`` with its entries as bytes."""
        cursor = 0
        while cursor < MIRROR_END:
            depth = max(0, self._half.bit_length() - 1 - _SCAN_BUCKETS_LOG2)
            prefix = cursor >> (64 - depth)
            residue = int(f"{prefix:0{depth}b}"[::-1], 2) if depth else 0
            # Merges between two steps make partitions wider: the cursor skips what was yielded.
            yield self.gather(residue, 1 << depth, low, high, cursor)
            cursor = (prefix + 1) << (64 - depth)

    def dump(self) -> Iterator[bytes]:
        """The whole content as chunks; nothing for an index that never held anything."""
        return self._chunks(0, always=self._floor > 0)

    def mark(self) -> None:
        """Start counting changes anew: everything so far is in a dump."""
        self._mark = (self._last + 1, self._floor)

    def changes(self) -> Iterator[bytes]:
        """Chunks that bring a dump taken at ``mark`` to the present content."""
        value, floor = self._mark
        return self._chunks(value, always=self._floor > floor)

    def load(self, chunk: bytes) -> None:
        """Add the entries of one chunk and make the cut that it names.

        Raises ValueError on anything that ``dump`` or ``changes`` do not write.
        """
        if len(chunk) < _CHUNK_HEADER.size:
            raise ValueError(f"a packed index chunk of {len(chunk)} bytes has no header")
        total, floor = _CHUNK_HEADER.unpack_from(chunk)
        hashes, values = decode_entries(chunk[_CHUNK_HEADER.size :])
        if total < len(values):
            raise ValueError(f"a packed index chunk holds {len(values)} of {total} entries")
        if floor > self._floor:
            self._last = max(self._last, floor - 1)
            for _ in self.cut_steps(floor):
                pass
        # With as many buckets as the dumped index needs, each is filled by one chunk.
        while self._limit < total:
            self._split()
        self.load_sorted(hashes, values)

    def load_sorted(self, hashes: bytes, values: "array[int]") -> None:
        """Add entries in mirror order: mirrored hashes of 8 big-endian bytes, and their values.

        Values may be lower than those that are there: they take their place among them.
        """
        while self._limit < self._count + len(values):
            self._split()
        plain = hashes.translate(_REVERSED_BYTES)
        mirrored = numbers_of(hashes, "big")
        start = 0
        while start < len(values):
            number, depth = self._bucket_of(plain[start * 8 : start * 8 + 8])
            shift = 64 - depth
            end = bisect_left(mirrored, ((mirrored[start] >> shift) + 1) << shift, start)
            self._fill(number, plain[start * 8 : end * 8], values[start:end].tobytes())
            start = end
        self._count += len(values)
        self._last = max(self._last, max(values, default=-1))

    def _bucket_of(self, identity: bytes) -> tuple[int, int]:
        """Bucket number of a hash, and how many low bits of the hash decide it."""
        size, half = len(self._keys), self._half
        number = _integer(identity, "little") & self._wide
        if number >= size:
            number -= half
        split = number >= half or number + half < size
        return number, half.bit_length() - 1 + split

    def _split(self) -> None:
        """Move the entries whose next hash bit is set from the next bucket to a new one."""
        half = self._half
        number = len(self._keys) - half
        keys, values = self._keys[number], self._values[number]
        # The deciding bit of all hashes at once: by stride to its byte, by table to its bit.
        byte, bit = divmod(half.bit_length() - 1, 8)
        deciding = keys[byte::8]
        stay, move = deciding.translate(_BIT_CLEAR[bit]), deciding.translate(_BIT_SET[bit])
        hashes, numbers = _hashes(len(values)).unpack(keys), values.tolist()
        self._keys[number] = bytearray(b"".join(compress(hashes, stay)))
        self._values[number] = array("Q", list(compress(numbers, stay)))
        self._keys.append(bytearray(b"".join(compress(hashes, move))))
        self._values.append(array("Q", list(compress(numbers, move))))
        self._limit += BUCKET_ENTRIES
        if len(self._keys) == half + half:
            self._half = half + half
            self._wide = half * 4 - 1

    def _merge(self) -> None:
        """Undo the last split."""
        if len(self._keys) == self._half:
            self._half >>= 1
            self._wide >>= 1
        keys, values = self._keys.pop(), self._values.pop()
        self._limit -= BUCKET_ENTRIES
        self._fill(len(self._keys) - self._half, bytes(keys), values.tobytes())

    def _fill(self, number: int, keys: bytes, values: bytes) -> None:
        """Put entries that belong to one bucket there, in the order of their values."""
        bucket, before = self._keys[number], self._values[number]
        keys, values = self.arrange(keys, values)
        if before and values and before[-1] > _integer(values[:8], sys.byteorder):
            keys, values = self.arrange(bytes(bucket) + keys, before.tobytes() + values)
            del before[:], bucket[:]
        bucket += keys
        before.frombytes(values)

    def _cut_bucket(self, number: int, value: int) -> Sequence[Entry]:
        values = self._values[number]
        if not values or values[0] >= value:
            return ()
        end = bisect_left(values, value)
        keys = self._keys[number]
        mirrored = unpack(f">{end}Q", keys[: end * 8].translate(_REVERSED_BYTES))
        removed = list(zip(mirrored, values[:end], strict=True))
        # Copies, because deleting a prefix would keep its memory.
        self._keys[number] = keys[end * 8 :]
        self._values[number] = values[end:]
        self._count -= end
        return removed

    def _chunks(self, low: int, *, always: bool) -> Iterator[bytes]:
        header = _CHUNK_HEADER.pack(self._count, self._floor)
        if self._last >= low:
            for block in encode_blocks(self.blocks(low, MIRROR_END)):
                yield header + block
                always = False
        if always:
            yield header + _COUNT.pack(0)


def block_of(entries: Sequence[Entry]) -> Block:
    """Entries as bytes."""
    count = len(entries)
    return (
        pack(f">{count}Q", *[mirrored for mirrored, _ in entries]),
        pack(f"<{count}Q", *[value for _, value in entries]),
    )


def encode_blocks(blocks: Iterable[Block]) -> Iterator[bytes]:
    """Entries in mirror order as blocks of a dump: `CHUNK_ENTRIES_MAX` in each but the last."""
    hashes, values = bytearray(), bytearray()
    full = CHUNK_ENTRIES_MAX * HASH_BYTES
    for more_hashes, more_values in blocks:
        hashes += more_hashes
        values += more_values
        while len(hashes) >= full:
            yield b"".join((_COUNT.pack(CHUNK_ENTRIES_MAX), hashes[:full], values[:full]))
            del hashes[:full], values[:full]
    if hashes:
        yield b"".join((_COUNT.pack(len(hashes) // HASH_BYTES), hashes, values))


def numbers_of(data: bytes, order: Literal["big", "little"]) -> "array[int]":
    """Integers of 8 bytes, without an object for each."""
    numbers = array("Q", data)
    if order != sys.byteorder:
        numbers.byteswap()
    return numbers


def decode_entries(block: bytes) -> "tuple[bytes, array[int]]":
    """(mirrored hashes, values) of a block of entries.

    Raises ValueError on anything that `encode_blocks` does not write.
    """
    count = _COUNT.unpack_from(block)[0] if len(block) >= _COUNT.size else 0
    split = _COUNT.size + count * 8
    if count > CHUNK_ENTRIES_MAX or len(block) != split + count * 8:
        raise ValueError(f"a packed index chunk of {len(block)} bytes names {count} entries")
    hashes = block[_COUNT.size : split]
    mirrored = numbers_of(hashes, "big")
    if any(map(gt, mirrored, islice(mirrored, 1, None))):
        raise ValueError("the hashes of a packed index chunk do not ascend")
    return hashes, numbers_of(block[split:], "little")
