"""A log as it stands in a directory, to be read by somebody who does not own it.

Nothing is changed and no lock is taken: no torn tail is cut, no segment begun.  So it may look
at the directory of a running process, and then sees a moment of it, as `tools.verify` does.
What the survey passes over is checked by the reader, frame by frame, when it is read.
"""

from collections.abc import Sequence
from typing import Final

import msgspec

from ultraengine.log.archived import ArchivedSegments, check_owner
from ultraengine.log.catalog import Catalog, Guard, LogSegment
from ultraengine.log.damage import LogDamaged, LogRefused
from ultraengine.log.identity import IDENTITY_PATH, IdentityDamaged, LogIdentity, decode_identity
from ultraengine.log.mark import Mark
from ultraengine.log.reader import LogReader
from ultraengine.log.segment import LOG_DIRECTORY, KeyRing, Point
from ultraengine.log.serializer import serializers
from ultraengine.log.survey import read_all, survey_beside
from ultraengine.model.policy import LogSerializer
from ultraengine.ports import Disk, ObjectStore, Secrets

_NO_FRAME: Final = 1 << 62
"""Verified from here on: the last segment, and that the others lead to it."""


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """A log that can be read, and where it begins and ends."""

    identity: LogIdentity
    reader: LogReader
    first_offset: int
    """The lowest offset that can be read, from the archive if one is given."""
    end: Point
    """Behind the last good frame."""


def standing_log(
    disk: Disk,
    secrets: Secrets,
    guard: Guard,
    *,
    codecs: Sequence[LogSerializer] = (),
    archive: ObjectStore | None = None,
) -> Standing:
    """The log of `disk`, with what `archive` has of its older segments; `guard` is a mutex.

    Raises `LogDamaged`, `LogRefused` (keys, formats, no log at all, another engine's archive),
    FileNotFoundError without IDENTITY, and OSError.
    """
    try:
        identity = decode_identity(read_all(disk, IDENTITY_PATH))
    except IdentityDamaged as error:
        raise LogDamaged(
            str(error),
            file=IDENTITY_PATH,
            byte_position=0,
            sequence=0,
            offset=0,
            advice="Restore the file from a backup of this directory.",
        ) from None
    ring = KeyRing(secrets)
    found = survey_beside(disk, ring, verify_from=_NO_FRAME, cluster_uid=identity.cluster_uid)
    if found.damage is not None:
        raise found.damage
    segments = tuple(
        LogSegment(one.path, one.header, one.index, ring)
        for one in found.findings
        if one.header is not None and one.index is not None
    )
    scan = found.findings[-1].scan if found.findings else None
    if scan is None:
        raise LogRefused(f"{LOG_DIRECTORY} holds no segment, so there is nothing to read")
    end = scan.end.point
    if archive is not None:
        check_owner(archive, identity.shard, identity.cluster_uid)
    archived = None if archive is None else ArchivedSegments(archive, identity.shard, ring)
    catalog = Catalog(segments, Mark(end.sequence, end.chain), guard)
    log_first = segments[0].header
    older = () if archived is None else archived.spans(log_first)
    return Standing(
        identity=identity,
        reader=LogReader(disk, catalog, serializers(codecs), guard, archived),
        first_offset=older[0].first_offset if older else int(log_first.point.offset),
        end=end,
    )
