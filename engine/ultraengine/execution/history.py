"""The history store: accepted events for ever, on local disk (pure part).

Purpose: what `decide` and reads need beyond hot state (the transfer to be reversed, the entries
of an account) without holding it in memory (requirement 001 §1.1, §6.1).  The files are a
function of the log: the same commands give the same bytes on every replica and in every
replay, so recovery cuts them to a snapshot's position and replay appends the same again.

Positions count bytes over all segments; segment n starts at ``n * SEGMENT_BYTES``.  A record
that does not fit into the rest of a segment starts the next one.

Format, version 1 (little-endian; CRC-32C).  Segment ``history/his-<start, 20 digits>.seg``:

| at | bytes | segment header |
|---|---|---|
| 0 | 4 | magic `UEHS` |
| 4 | 2 | format version, 1 |
| 6 | 2 | header length, 64 |
| 8 | 4 | shard |
| 12 | 4 | zero |
| 16 | 8 | start: position of this segment |
| 24 | 8 | first offset: no record has a lower one |
| 32 | 28 | zero |
| 60 | 4 | crc of bytes 0-59 |

| at | bytes | record, without gaps from byte 64 on |
|---|---|---|
| 0 | 4 | crc of the rest |
| 4 | 4 | length of the payload |
| 8 | 8 | offset of the command |
| 16 | 2 | name id |
| 18 | 2 | kind: 1 events (msgpack array), 2 name |
| 20 | n | payload |

A record of kind 2 says which domain a name id stands for in this segment: it precedes the first
record with that id, ids count from 0, its payload is the name in UTF-8.

A full segment ends with an index, so that a start need not read it: per index entry the offset
(u64, all) and the byte in the file (u32, all) of a record, one record in each `INDEX_BYTES`;
then the names (each its length u16 and UTF-8); then a trailer of 24 bytes: byte where the index
starts u32, entries u32, names u32, crc of the index u32, magic `UEHI`, crc of the 20 bytes before.
"""

from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from struct import Struct, pack, unpack
from typing import Any, Final

import msgspec

from ultraengine.log.digest import crc32c
from ultraengine.model.errors import InvariantBroken
from ultraengine.model.ids import Offset

SEGMENT_BYTES: Final = 64 * 1024 * 1024
"""Distance of segments.  Part of the format, because it decides where records are."""
INDEX_BYTES: Final = 4096
"""A record is indexed when it starts at least this far from the one indexed before."""
HEADER_BYTES: Final = 64
RECORD_BYTES: Final = 20
TRAILER_BYTES: Final = 24
EVENTS: Final = 1
NAME: Final = 2

_SEGMENT: Final = Struct("<4sHHI4xQQ28x")
_RECORD: Final = Struct("<IQHH")
_TRAILER: Final = Struct("<IIII4s")
_CRC: Final = Struct("<I")
_MAGIC: Final = b"UEHS"
_INDEX_MAGIC: Final = b"UEHI"
_VERSION: Final = 1

Read = Callable[[int, int], bytes]
"""(length, position) -> bytes of one segment's file; fewer at its end."""


class SegmentHeader(msgspec.Struct, frozen=True):
    """The first 64 bytes of a segment."""

    shard: int
    start: int
    first_offset: int

    def encode(self) -> bytes:
        """As stored."""
        plain = _SEGMENT.pack(
            _MAGIC, _VERSION, HEADER_BYTES, self.shard, self.start, self.first_offset
        )
        return plain + _CRC.pack(crc32c(plain))

    @classmethod
    def decode(cls, data: bytes, name: str) -> "SegmentHeader":
        """Read a header.  Raises `InvariantBroken` that names the file."""
        if len(data) == HEADER_BYTES and _CRC.unpack_from(data, 60)[0] == crc32c(data[:60]):
            magic, version, length, shard, start, first_offset = _SEGMENT.unpack_from(data)
            if (magic, version, length) == (_MAGIC, _VERSION, HEADER_BYTES):
                return cls(shard, start, first_offset)
        raise InvariantBroken("a history segment begins with its header", file=name)


class Record(msgspec.Struct, frozen=True):
    """One record as stored."""

    offset: int
    name_id: int
    kind: int
    payload: bytes


Placed = tuple[int, int, int, int, int, bytes]
"""A record and where it goes: segment, byte in its file, offset, name id, kind, payload."""


def encode_records(placed: Sequence[Placed]) -> bytes:
    """The bytes of neighbouring records."""
    parts: list[bytes] = []
    for _, _, offset, name_id, kind, payload in placed:
        rest = _RECORD.pack(len(payload), offset, name_id, kind) + payload
        parts += (_CRC.pack(crc32c(rest)), rest)
    return b"".join(parts)


def records(data: bytes, at: int, name: str) -> Iterator[tuple[int, Record]]:
    """(byte in the file, record) of the records that fill `data`, which starts at byte `at`.

    Raises `InvariantBroken` at a record that is damaged or reaches beyond `data`.
    """
    position = 0
    while position < len(data):
        found = _record_at(data, position)
        if found is None:
            raise InvariantBroken("a history record is intact", file=name, byte=at + position)
        yield at + position, found
        position += RECORD_BYTES + len(found.payload)


def _record_at(data: bytes, position: int) -> Record | None:
    start = position + RECORD_BYTES
    if start > len(data):
        return None
    length, offset, name_id, kind = _RECORD.unpack_from(data, position + 4)
    end = start + length
    if end > len(data) or _CRC.unpack_from(data, position)[0] != crc32c(data[position + 4 : end]):
        return None
    return Record(offset, name_id, kind, data[start:end])


class SegmentIndex:
    """Where a segment's records are, one in `INDEX_BYTES`, and the names of its domains.

    One thread may add while others look up: every change leaves it whole.
    """

    __slots__ = ("ends", "names", "offsets", "starts")

    def __init__(self) -> None:
        self.offsets: array[int] = array("Q")
        self.starts: array[int] = array("I")
        self.names: list[str] = []
        self.ends = HEADER_BYTES
        """Byte after the last record."""

    def note(self, placed: Sequence[Placed], end: int) -> None:
        """Neighbouring records, which are in the file, reach to byte `end`."""
        self.ends = end
        last = self.starts[-1] if self.starts else -INDEX_BYTES
        for _, start, offset, _, kind, payload in placed:
            if kind == NAME:
                self.names.append(payload.decode())
            if start - last >= INDEX_BYTES:
                # In this order: a look-up that sees the offset needs its start.
                self.starts.append(start)
                self.offsets.append(offset)
                last = start

    def range(self, offset: int) -> tuple[int, int] | None:
        """Bytes between which the record of `offset` is, if there is one."""
        at = bisect_right(self.offsets, offset)
        if at == 0:
            return None
        end = self.starts[at] if at < len(self.starts) else self.ends
        return self.starts[at - 1], end

    def find(self, data: bytes, start: int, offset: int, file: str) -> tuple[str, bytes] | None:
        """(domain, payload) of the record of `offset` in the bytes of its ``range``.

        Raises `InvariantBroken` when there is none because the bytes are damaged.
        """
        position = 0
        while position + RECORD_BYTES <= len(data):
            length, found, name_id, kind = _RECORD.unpack_from(data, position + 4)
            if found == offset and kind == EVENTS:
                record = _record_at(data, position)
                if record is not None:
                    return self.names[name_id], record.payload
                break
            position += RECORD_BYTES + length
        # Only the checksums of all of them can tell "had no events" from "cannot be read".
        for _ in records(data, start, file):
            pass
        return None

    def encode(self) -> bytes:
        """The end of a full segment: index and trailer."""
        count = len(self.starts)
        encoded = [name.encode() for name in self.names]
        body = b"".join(
            (
                pack(f"<{count}Q", *self.offsets),
                pack(f"<{count}I", *self.starts),
                *(len(name).to_bytes(2, "little") + name for name in encoded),
            )
        )
        trailer = _TRAILER.pack(self.ends, count, len(self.names), crc32c(body), _INDEX_MAGIC)
        return body + trailer + _CRC.pack(crc32c(trailer))

    @classmethod
    def decode(cls, read: Read, size: int) -> "SegmentIndex | None":
        """The index at the end of a full segment's file; None when there is no intact one."""
        trailer = read(TRAILER_BYTES, max(0, size - TRAILER_BYTES))
        if len(trailer) < TRAILER_BYTES or _CRC.unpack_from(trailer, 20)[0] != crc32c(trailer[:20]):
            return None
        ends, count, name_count, crc, magic = _TRAILER.unpack_from(trailer)
        body = read(max(0, size - TRAILER_BYTES - ends), ends)
        if magic != _INDEX_MAGIC or crc != crc32c(body):
            return None
        index = cls()
        index.ends = ends
        index.offsets = array("Q", unpack(f"<{count}Q", body[: count * 8]))
        index.starts = array("I", unpack(f"<{count}I", body[count * 8 : count * 12]))
        at = count * 12
        for _ in range(name_count):
            end = at + 2 + int.from_bytes(body[at : at + 2], "little")
            index.names.append(body[at + 2 : end].decode())
            at = end
        return index

    @classmethod
    def scan(cls, read: Read, end: int, name: str) -> tuple["SegmentIndex", int]:
        """Rebuild the index of the records before byte `end`; also the last offset, or -1.

        Raises `InvariantBroken` unless intact records with ascending offsets fill it exactly.
        """
        index = cls()
        last, named = -1, False
        step = 1 << 20
        at, data = HEADER_BYTES, b""
        while at + len(data) < end or data:
            more = read(min(step, end - at - len(data)), at + len(data))
            data += more
            position = 0
            while (record := _record_at(data, position)) is not None:
                length = RECORD_BYTES + len(record.payload)
                if record.offset < last or (record.offset == last and not named):
                    raise InvariantBroken("history offsets ascend", file=name, byte=at + position)
                last, named = record.offset, record.kind == NAME
                placed = (0, at + position, last, record.name_id, record.kind, record.payload)
                position += length
                index.note((placed,), at + position)
            if position == 0 and not more:
                raise InvariantBroken("a history record is intact", file=name, byte=at)
            at, data = at + position, data[position:]
        return index, last


class Cursor:
    """Decides where records go: a function of what was appended before, and nothing else."""

    __slots__ = ("end_byte", "last", "name_ids", "segment")

    def __init__(self) -> None:
        self.segment = 0
        self.end_byte = HEADER_BYTES
        self.last = -1
        """Offset of the last record."""
        self.name_ids: dict[str, int] = {}

    @classmethod
    def at(cls, segment: int, index: SegmentIndex, last: int) -> "Cursor":
        """Go on after the last record of a segment."""
        cursor = cls()
        cursor.segment, cursor.end_byte, cursor.last = segment, index.ends, last
        cursor.name_ids = {name: number for number, name in enumerate(index.names)}
        return cursor

    @property
    def position(self) -> int:
        """End of the last record over all segments; 0 before the first."""
        if self.segment == 0 and self.end_byte == HEADER_BYTES:
            return 0
        return self.segment * SEGMENT_BYTES + self.end_byte

    def place(self, offset: int, domain: str, payload: bytes) -> Sequence[Placed]:
        """Place the events of one command: the record, after the domain's name where needed.

        Raises `InvariantBroken` unless offsets ascend and the record fits a segment.
        """
        if offset <= self.last:
            raise InvariantBroken("history offsets ascend", offset=offset, last=self.last)
        length = RECORD_BYTES + len(payload)
        known = self.name_ids.get(domain)
        if known is not None and self.end_byte + length <= SEGMENT_BYTES:
            start = self.end_byte
            self.end_byte += length
            self.last = offset
            return ((self.segment, start, offset, known, EVENTS, payload),)
        name = domain.encode()
        name_length = RECORD_BYTES + len(name)
        if HEADER_BYTES + name_length + length > SEGMENT_BYTES:
            raise InvariantBroken("a history record fits a segment", offset=offset, bytes=length)
        if self.end_byte + name_length + length > SEGMENT_BYTES:
            self.segment += 1
            self.end_byte = HEADER_BYTES
            self.name_ids.clear()
        number = self.name_ids[domain] = len(self.name_ids)
        start = self.end_byte + name_length
        naming = (self.segment, self.end_byte, offset, number, NAME, name)
        self.end_byte = start + length
        self.last = offset
        return naming, (self.segment, start, offset, number, EVENTS, payload)

    def place_run(self, offset: int, domain: str, payloads: Sequence[bytes]) -> Sequence[Placed]:
        """`place` for commands at consecutive offsets, the first one at `offset`."""
        known, start = self.name_ids.get(domain), self.end_byte
        end = start + RECORD_BYTES * len(payloads) + sum(map(len, payloads))
        placed: list[Placed] = []
        if known is None or offset <= self.last or end > SEGMENT_BYTES:
            for number, payload in enumerate(payloads, offset):
                placed += self.place(number, domain, payload)
            return placed
        segment = self.segment
        for number, payload in enumerate(payloads, offset):
            placed.append((segment, start, number, known, EVENTS, payload))
            start += RECORD_BYTES + len(payload)
        self.end_byte, self.last = end, placed[-1][2]
        return placed


class DecodedCommands:
    """The most recently used decoded commands, bounded by the size of their payloads.

    Two generations: when the young one is full it becomes the old one, and what is used of
    the old one becomes young again.  Every step is one dictionary operation, so readers on
    several threads need no lock; a race costs a second decoding at most.
    """

    __slots__ = ("_bytes", "_bytes_max", "_old", "_young")

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._young: dict[int, tuple[Sequence[Any], int]] = {}
        self._old: dict[int, tuple[Sequence[Any], int]] = {}
        self._bytes = 0

    def get(self, offset: int) -> Sequence[Any] | None:
        """The decoded events of a command; None when they are not kept."""
        found = self._young.get(offset)
        if found is None:
            found = self._old.get(offset)
            if found is None:
                return None
            self.put(offset, *found)
        return found[0]

    def put(self, offset: int, events: Sequence[Any], size: int) -> None:
        """Keep events whose payload has `size` bytes."""
        if self._bytes + size > self._bytes_max:
            self._old, self._young, self._bytes = self._young, {}, 0
        self._young[offset] = events, size
        self._bytes += size

    def clear(self) -> None:
        """Keep nothing."""
        self._young, self._old, self._bytes = {}, {}, 0


class DomainHistory:
    """Implements `model.domain.History`: one domain's events below an offset."""

    __slots__ = ("_decode", "_domain", "_kept", "_read", "_visible_end")

    def __init__(
        self,
        domain: str,
        read: Callable[[int, str], bytes | None],
        decode: Callable[[bytes], Sequence[Any]],
        kept: DecodedCommands,
        visible_end: Callable[[], int],
    ) -> None:
        self._domain = domain
        self._read = read
        self._decode = decode
        self._kept = kept
        self._visible_end = visible_end

    def events(self, offset: Offset) -> Sequence[Any] | None:
        """The decoded events of the accepted command at `offset`; None if it had none.

        Raises `InvariantBroken` when the file disagrees with its index.
        """
        if offset >= self._visible_end():
            return None
        events = self._kept.get(offset)
        if events is None:
            payload = self._read(offset, self._domain)
            if payload is None:
                return None
            events = self._decode(payload)
            self._kept.put(offset, events, len(payload))
        return events
