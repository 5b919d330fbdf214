"""Which snapshots count, and what follows from that: what to load, keep and cut.

The manifest lists verified snapshots and nothing else (`FORMAT.md`, MANIFEST).  All
functions are pure.  An increment names its base by position and chain, not by file: every
snapshot at one position of one history holds the same state, so a merged full image can take
the place of the chain it was merged from while increments on top of that chain go on.
"""

from collections.abc import Collection, Iterable, Sequence
from typing import Final

import msgspec

from ultraengine.model.ids import FrameSequence, Offset
from ultraengine.snapshot.errors import SnapshotDamaged, SnapshotRefused
from ultraengine.snapshot.format import NO_HASH, BasePosition, Footer, Header, crc32c
from ultraengine.snapshot.image import ImagePosition

FORMAT: Final = 1
FULL_SUFFIX: Final = ".full"
INCREMENT_SUFFIX: Final = ".increment"
TEMPORARY_SUFFIX: Final = ".tmp"
FULLS_AT_ONE_POSITION: Final = 2


class BaseEntry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The base of a listed increment; `BasePosition` in text."""

    offset_end: int
    sequence_end: int
    chain: str
    state_hash: str | None


class SnapshotEntry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One verified snapshot.  Binary values in hexadecimal."""

    file: str
    """Name within the directory of snapshots."""
    number: int
    """Grows with each snapshot of the shard; no two files share one."""
    bytes: int
    shard: int
    epoch: int
    offset_end: int
    sequence_end: int
    chain: str
    content_hash: str
    state_hash: str | None
    base: BaseEntry | None
    created: int
    """µs since the Unix epoch by the wall clock."""
    sections: int
    codec: int
    encrypted: bool

    @property
    def full(self) -> bool:
        """Whether it stands on its own."""
        return self.base is None

    def as_base(self) -> BasePosition:
        """How an increment on top of this one names it."""
        return BasePosition(
            offset_end=Offset(self.offset_end),
            sequence_end=FrameSequence(self.sequence_end),
            chain=bytes.fromhex(self.chain),
            state_hash=NO_HASH if self.state_hash is None else bytes.fromhex(self.state_hash),
        )


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The list, and the number of the next snapshot."""

    format: int = FORMAT
    next_number: int = 1
    entries: tuple[SnapshotEntry, ...] = ()


_DECODER: Final = msgspec.json.Decoder(Manifest)


def encode_manifest(manifest: Manifest) -> bytes:
    """A line of JSON and a line with its checksum."""
    line = msgspec.json.encode(manifest)
    return line + f"\n{crc32c(line):08x}\n".encode()


def decode_manifest(data: bytes, path: str) -> Manifest:
    """Inverse of `encode_manifest`.  Raises `SnapshotDamaged` or, for a later format, refuses."""
    line, _, rest = data.partition(b"\n")
    if rest != f"{crc32c(line):08x}\n".encode():
        raise SnapshotDamaged(path, 0, "the manifest does not match its checksum")
    try:
        found = msgspec.json.decode(line, type=dict[str, msgspec.Raw])
        version = msgspec.json.decode(found.get("format", b"0"), type=int)
        if version > FORMAT:
            raise SnapshotRefused(
                f"{path} has manifest format {version}; this release reads {FORMAT}"
            )
        return _DECODER.decode(line)
    except msgspec.DecodeError as problem:
        raise SnapshotDamaged(path, 0, str(problem)) from None


def file_name(position: ImagePosition, number: int, *, full: bool) -> str:
    """Name of a snapshot's file, sorted by offset."""
    suffix = FULL_SUFFIX if full else INCREMENT_SUFFIX
    return f"{position.offset_end:020d}-{number:010d}{suffix}"


def number_of(name: str) -> int | None:
    """The number in a snapshot's file name; None for other names."""
    stem, dot, suffix = name.partition(".")
    offset, dash, number = stem.partition("-")
    known = dot + suffix in (FULL_SUFFIX, INCREMENT_SUFFIX)
    if not known or not dash or not offset.isdecimal() or not number.isdecimal():
        return None
    return int(number)


def entry_of(name: str, number: int, header: Header, footer: Footer, size: int) -> SnapshotEntry:
    """The entry of a verified file of `size` bytes."""
    at, base = header.position, header.base
    listed = None
    if base is not None:
        listed = BaseEntry(
            offset_end=base.offset_end,
            sequence_end=base.sequence_end,
            chain=base.chain.hex(),
            state_hash=None if base.state_hash == NO_HASH else base.state_hash.hex(),
        )
    return SnapshotEntry(
        file=name,
        number=number,
        bytes=size,
        shard=at.shard,
        epoch=at.epoch,
        offset_end=at.offset_end,
        sequence_end=at.sequence_end,
        chain=at.chain.hex(),
        content_hash=footer.content_hash.hex(),
        state_hash=None if footer.state_hash is None else footer.state_hash.hex(),
        base=listed,
        created=header.created,
        sections=footer.sections,
        codec=header.codec,
        encrypted=header.encrypted,
    )


def stands_on(entry: SnapshotEntry, base: SnapshotEntry) -> bool:
    """Whether `entry` is an increment that can be loaded on top of `base`."""
    named = entry.base
    if named is None or base.sequence_end >= entry.sequence_end:
        return False
    same_place = (named.offset_end, named.sequence_end, named.chain) == (
        base.offset_end,
        base.sequence_end,
        base.chain,
    )
    hashes = {named.state_hash, base.state_hash} - {None}
    return same_place and len(hashes) <= 1


def _preference(entry: SnapshotEntry) -> tuple[int, int, bool, int]:
    """Newest position first; there, a full image before an increment, then the newest file."""
    return (-entry.sequence_end, -entry.offset_end, not entry.full, -entry.number)


def chain_of(
    tip: SnapshotEntry, entries: Sequence[SnapshotEntry]
) -> tuple[SnapshotEntry, ...] | None:
    """The shortest way from a full image to `tip`; None when there is none."""
    if tip.full:
        return (tip,)
    found: tuple[SnapshotEntry, ...] | None = None
    for base in sorted(entries, key=_preference):
        if stands_on(tip, base):
            below = chain_of(base, entries)
            if below is not None and (found is None or len(below) < len(found) - 1):
                found = (*below, tip)
    return found


def chain_at(
    entry: SnapshotEntry, entries: Sequence[SnapshotEntry]
) -> tuple[SnapshotEntry, ...] | None:
    """The shortest chain to the state that `entry` holds; another file may hold it too."""
    place = (entry.sequence_end, entry.offset_end, entry.chain)
    same = [e for e in entries if (e.sequence_end, e.offset_end, e.chain) == place]
    for each in sorted(same, key=_preference):
        chain = chain_of(each, entries)
        if chain is not None:
            return chain
    return None


def plan_load(
    entries: Sequence[SnapshotEntry],
    *,
    unusable: Collection[str] = (),
    sequence_max: int | None = None,
) -> tuple[SnapshotEntry, ...] | None:
    """The chain to load: the newest position that can be reached, by the shortest way.

    `unusable` names files that turned out to be damaged.  With `sequence_max`, only snapshots
    whose sequence end is not above it.  None when there is nothing to load.
    """
    usable = [each for each in entries if each.file not in unusable]
    for tip in sorted(usable, key=_preference):
        if sequence_max is not None and tip.sequence_end > sequence_max:
            continue
        chain = chain_of(tip, usable)
        if chain is not None:
            return chain
    return None


def retained(entries: Sequence[SnapshotEntry], *, fulls: int) -> tuple[SnapshotEntry, ...]:
    """What stays: the full images at the newest `fulls` positions, and what stands on them.

    Of several full images at one position (a converted one beside its original, or one that
    was asked for while nothing happened) the newest `FULLS_AT_ONE_POSITION` stay.
    """
    images = sorted((each for each in entries if each.full), key=_preference)
    kept_at: dict[int, int] = {}
    usable = [each for each in entries if not each.full]
    for each in images:
        count = kept_at.get(each.sequence_end, 0)
        if count < FULLS_AT_ONE_POSITION and (count or len(kept_at) < fulls):
            kept_at[each.sequence_end] = count + 1
            usable.append(each)
    kept = {each.file for each in usable if chain_of(each, usable) is not None}
    return tuple(each for each in entries if each.file in kept)


def oldest_full(entries: Sequence[SnapshotEntry]) -> SnapshotEntry | None:
    """The lowest point that may still have to be loaded: the log is kept from there on."""
    return max((each for each in entries if each.full), key=_preference, default=None)


def check_log_end(entries: Iterable[SnapshotEntry], sequence_end: int) -> None:
    """Raise `SnapshotRefused` for a snapshot beyond the end of its log."""
    for entry in entries:
        if entry.sequence_end > sequence_end:
            raise SnapshotRefused(
                f"{entry.file} stands at frame {entry.sequence_end} and the log ends at"
                f" {sequence_end}: a part of the log is missing. Bring it back, or move the"
                " snapshot away to start without what it holds"
            )
