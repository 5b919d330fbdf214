"""Stores what retention is about to remove, and proves that it can be read back.

Uses the ObjectStore and Disk ports and blocks.  Everything here may be interrupted at any
point and done again: names say what an object covers, and what is covered is not stored twice.
"""

import re
from collections.abc import Sequence
from typing import Final

import msgspec

from ultraengine.log import key_archive
from ultraengine.log.appender import Stamp
from ultraengine.log.reader import LogReader
from ultraengine.log.retention import SegmentSpan
from ultraengine.log.segment import KeyRing, Point, SegmentHeader
from ultraengine.log.survey import read_all
from ultraengine.model.ids import (
    NO_CHAIN,
    Epoch,
    FrameSequence,
    Instant,
    Offset,
    ShardId,
)
from ultraengine.model.policy import CompactionPolicy
from ultraengine.ports import Disk, ObjectStore, Random

KEY_POLICY: Final = "key"
_SEGMENT: Final = re.compile(r"[0-9]{20}-[0-9]{20}-[0-9]{20}-[0-9]{20}-([0-9]{20})\.log")
_KEYS: Final = re.compile(r"([0-9]{20})-([0-9]{20})\.uka")


class ArchiveFailed(Exception):
    """Something could not be stored or read back; its segment must stay in the log."""


class KeyRange(msgspec.Struct, frozen=True):
    """A key-compacted archive of one shard, by what it covers."""

    first_offset: int
    end_offset: int
    name: str


def segment_object(shard: ShardId, span: SegmentSpan) -> str:
    """Name of an archived segment."""
    return (
        f"{shard}/segments/{span.first_sequence:020d}-{span.end_sequence:020d}-"
        f"{span.first_offset:020d}-{span.end_offset:020d}-{span.sealed_at:020d}.log"
    )


def key_object(shard: ShardId, first_offset: int, end_offset: int) -> str:
    """Name of a key-compacted archive."""
    return f"{shard}/keys/{first_offset:020d}-{end_offset:020d}.uka"


class Archive:
    """One shard's archive."""

    def __init__(
        self,
        store: ObjectStore,
        policy: CompactionPolicy,
        disk: Disk,
        random: Random,
        ring: KeyRing,
        stamp: Stamp,
    ) -> None:
        self._store = store
        self._policy = policy
        self._disk = disk
        self._random = random
        self._ring = ring
        self._stamp = stamp

    def keep(
        self, spans: Sequence[SegmentSpan], reader: LogReader, now: Instant
    ) -> tuple[list[str], list[str]]:
        """Archive what the policy wants of segments that are about to be removed.

        Returns the names stored and the names removed.  Raises `ArchiveFailed`, after which
        none of `spans` may be removed; storing them again later does no harm.
        """
        try:
            if self._policy.name == KEY_POLICY:
                return self._keep_keys(spans, reader, now)
            return self._keep_segments(spans, now)
        except (OSError, LookupError, ValueError) as error:
            raise ArchiveFailed(f"{type(error).__name__}: {error}") from error

    def key_ranges(self) -> list[KeyRange]:
        """The key-compacted archives, ascending, without those that another one covers."""
        whole: list[KeyRange] = []
        for one in sorted(self._all_keys(), key=lambda one: (one.first_offset, -one.end_offset)):
            if not whole or one.end_offset > whole[-1].end_offset:
                whole.append(one)
        return whole

    def _all_keys(self) -> list[KeyRange]:
        prefix = f"{self._stamp.shard}/keys/"
        found = []
        for name in self._store.list(prefix):
            match = _KEYS.fullmatch(name.removeprefix(prefix))
            if match is not None:
                found.append(KeyRange(int(match[1]), int(match[2]), name))
        return found

    def _keep_segments(
        self, spans: Sequence[SegmentSpan], now: Instant
    ) -> tuple[list[str], list[str]]:
        stored = []
        for span in spans:
            if self._policy.archive(sealed_at=span.sealed_at, now=now):
                name = segment_object(self._stamp.shard, span)
                self._put(name, read_all(self._disk, span.path))
                stored.append(name)
        pruned = []
        prefix = f"{self._stamp.shard}/segments/"
        for name in self._store.list(prefix):
            match = _SEGMENT.fullmatch(name.removeprefix(prefix))
            if match is None or name in stored:
                continue
            if not self._policy.archive(sealed_at=Instant(int(match[1])), now=now):
                self._store.delete(name)
                pruned.append(name)
        return stored, pruned

    def _keep_keys(
        self, spans: Sequence[SegmentSpan], reader: LogReader, now: Instant
    ) -> tuple[list[str], list[str]]:
        stored: list[str] = []
        if spans:
            covered = max((one.end_offset for one in self.key_ranges()), default=0)
            first = max(covered, spans[0].first_offset)
            end = spans[-1].end_offset
            if first < end:
                entries = key_archive.newest_accepted(reader.groups(first, end), end)
                stored.append(self._put_keys(first, end, spans[-1].end_sequence, entries, now))
        return stored, self._tidy_keys(now, stored)

    def _tidy_keys(self, now: Instant, stored: list[str]) -> list[str]:
        """Merge the youngest archives while they are of like size; remove what is covered.

        So their number grows with the logarithm of the log, and so does the number of times
        that an entry is written.
        """
        ranges = self.key_ranges()
        while self._two_of_like_size(ranges):
            older, newer = ranges[-2:]
            old_header, old = key_archive.decode_archive(self._store.get(older.name), self._ring)
            new_header, new = key_archive.decode_archive(self._store.get(newer.name), self._ring)
            name = self._put_keys(
                old_header.point.offset,
                new_header.end_offset,
                new_header.end_sequence,
                list(key_archive.merge(old, new)),
                now,
            )
            stored.append(name)
            ranges = self.key_ranges()
        covered = [one.name for one in self._all_keys() if one not in ranges]
        for name in covered:
            self._store.delete(name)
        return covered

    def _two_of_like_size(self, ranges: Sequence[KeyRange]) -> bool:
        if len(ranges) < 2 or ranges[-2].end_offset != ranges[-1].first_offset:
            return False
        older, newer = (len(self._store.get(one.name)) for one in ranges[-2:])
        return older <= 2 * newer

    def _put_keys(
        self,
        first: int,
        end: int,
        end_sequence: int,
        entries: Sequence[key_archive.Entry],
        now: Instant,
    ) -> str:
        stamp = self._stamp
        start = Point(
            FrameSequence(0),
            Offset(first),
            Offset(0),
            Epoch(0),
            Instant(0),
            bytes(8),
            NO_CHAIN,
            NO_CHAIN,
        )
        header, keys = self._ring.create(
            SegmentHeader(
                shard=stamp.shard,
                cluster_uid=stamp.cluster_uid,
                created=now,
                point=start,
                salt=b"",
                master_key=stamp.master_key,
                chain_key=stamp.chain_key,
                archive=True,
                end_sequence=FrameSequence(end_sequence),
                end_offset=Offset(end),
                entries=len(entries),
            ),
            self._random,
        )
        data = key_archive.encode_archive(header, keys, entries, compress=stamp.compress)
        name = key_object(stamp.shard, first, end)
        self._put(name, data)
        # What it stands for is about to be removed: see that it can be opened, keys included.
        key_archive.decode_archive(data, self._ring)
        return name

    def _put(self, name: str, data: bytes) -> None:
        """Store and read back."""
        self._store.put(name, data)
        if self._store.get(name) != data:
            raise ArchiveFailed(f"{name} reads back with other bytes")
