"""Key-compacted archives: the newest accepted command per (tenant, key) (`FORMAT.md`).

They answer questions about the past of a key after its segments are gone.  They recover
nothing: older and rejected commands are not in them.  Pure.
"""

import heapq
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import msgspec

from ultraengine.log import frame as frames
from ultraengine.log.frame import FrameDamaged, FrameDraft, FrameKind, Keys, Place
from ultraengine.log.reader import RecordedGroup
from ultraengine.log.segment import (
    HEADER_BYTES,
    KeyRing,
    SegmentDamaged,
    SegmentHeader,
    decode_header,
    encode_header,
)
from ultraengine.log.serializer import MSGPACK
from ultraengine.model.command import Command
from ultraengine.model.ids import (
    NO_CHAIN,
    ConfigVersion,
    Epoch,
    FrameSequence,
    Instant,
    Offset,
)
from ultraengine.model.outcome import Outcome, Status

CHUNK_BYTES: Final = 1024 * 1024
"""A frame is closed when its entries have reached this length."""


class Entry(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The newest accepted command of one (tenant, key).  Array form, fields appended only."""

    tenant: str
    key: str
    offset: Offset
    epoch: Epoch
    time: Instant
    """Stamped time of the command's frame."""
    command: Command
    outcome: Outcome


class ArchiveDamaged(ValueError):
    """The bytes are not a complete key-compacted archive."""


_ARRAY_HEAD_BYTES: Final = 5
_ENCODE: Final = msgspec.msgpack.Encoder().encode
_DECODE: Final = msgspec.msgpack.Decoder(list[Entry]).decode


def sort_key(entry: Entry) -> tuple[bytes, bytes]:
    """Order within an archive: tenant and key as UTF-8."""
    return entry.tenant.encode(), entry.key.encode()


def newest_accepted(groups: Iterable[RecordedGroup], end_offset: int) -> list[Entry]:
    """Entries of the commands below `end_offset`, in archive order.

    Raises LookupError when a group has no outcomes yet: it must not leave the log.
    """
    newest: dict[tuple[str, str], Entry] = {}
    for group in groups:
        header = group.header
        if group.outcomes is None:
            raise LookupError(f"the commands from offset {header.base_offset} on have no outcomes")
        for command, outcome in zip(group.commands, group.outcomes, strict=True):
            if outcome.status == Status.ACCEPTED and outcome.offset < end_offset:
                newest[command.tenant, command.key] = Entry(
                    command.tenant,
                    command.key,
                    Offset(outcome.offset),
                    header.epoch,
                    header.time,
                    command,
                    outcome,
                )
    return sorted(newest.values(), key=sort_key)


def merge(older: Iterable[Entry], newer: Iterable[Entry]) -> Iterator[Entry]:
    """One archive's entries out of two with adjoining ranges: the higher offset stays."""
    last: Entry | None = None
    for entry in heapq.merge(older, newer, key=sort_key):
        if last is not None and sort_key(last) == sort_key(entry):
            last = max(last, entry, key=lambda one: one.offset)
            continue
        if last is not None:
            yield last
        last = entry
    if last is not None:
        yield last


def encode_archive(
    header: SegmentHeader, keys: Keys, entries: Sequence[Entry], *, compress: bool
) -> bytes:
    """The file.  `header` has ``archive`` set, its range, salt and keys; entries are in order."""
    header = msgspec.structs.replace(header, entries=len(entries))
    content = [encode_header(header)]
    chain, written = NO_CHAIN, 0
    for sequence, chunk in enumerate(_chunks(entries)):
        draft = FrameDraft(
            FrameKind.ENTRIES, written, len(chunk), header.created, b"".join(_array(chunk))
        )
        frames.check_draft(draft)
        place = Place(
            header.shard,
            Epoch(0),
            ConfigVersion(0),
            FrameSequence(sequence),
            bytes(frames.HANDLERS_BYTES),
            FrameSequence(0),
            chain,
            header.salt,
            MSGPACK,
        )
        parts, _, chain = frames.encode(draft, place, keys, compress=compress)
        content += parts
        written += len(chunk)
    return b"".join(content)


def decode_archive(data: bytes, ring: KeyRing) -> tuple[SegmentHeader, list[Entry]]:
    """Inverse of `encode_archive`.

    Raises `ArchiveDamaged` for anything but a complete archive, `LogRefused` for keys.
    """
    try:
        header = decode_header(data[:HEADER_BYTES])
    except SegmentDamaged as error:
        raise ArchiveDamaged(str(error)) from None
    if not header.archive:
        raise ArchiveDamaged("this is a segment, not a key-compacted archive")
    keys = ring.open(header)
    entries: list[Entry] = []
    position, sequence, chain = HEADER_BYTES, 0, NO_CHAIN
    while position < len(data):
        try:
            found = frames.decode(data, position, keys)
            head = found.header
            if (head.kind, head.sequence, head.chain, head.salt, head.base_offset) != (
                FrameKind.ENTRIES,
                sequence,
                chain,
                header.salt,
                len(entries),
            ):
                raise FrameDamaged("the frame does not continue the archive")
            chunk = _DECODE(found.payload)
        except ValueError as error:
            raise ArchiveDamaged(f"byte {position}: {error}") from None
        if len(chunk) != head.count:
            raise ArchiveDamaged(f"byte {position}: {len(chunk)} entries instead of {head.count}")
        entries += chunk
        position += head.frame_bytes
        sequence, chain = sequence + 1, found.chain
    if len(entries) != header.entries:
        raise ArchiveDamaged(f"{len(entries)} entries instead of {header.entries}")
    return header, entries


def _chunks(entries: Sequence[Entry]) -> Iterator[list[bytes]]:
    """Encoded entries, grouped into frames."""
    chunk: list[bytes] = []
    length = 0
    for entry in entries:
        encoded = _ENCODE(entry)
        if len(encoded) > frames.PAYLOAD_BYTES_MAX - _ARRAY_HEAD_BYTES:
            raise ValueError(f"the command at offset {entry.offset} is too large for an archive")
        if chunk and (length + len(encoded) > CHUNK_BYTES or len(chunk) == frames.COUNT_MAX):
            yield chunk
            chunk, length = [], 0
        chunk.append(encoded)
        length += len(encoded)
    if chunk:
        yield chunk


def _array(chunk: Sequence[bytes]) -> Iterator[bytes]:
    """A msgpack array of encoded elements (array 32, whatever the count)."""
    yield b"\xdd" + len(chunk).to_bytes(4, "big")
    yield from chunk
