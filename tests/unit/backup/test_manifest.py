"""Names and manifests: what they say, and that nothing else is taken for one."""

import msgspec
import pytest

from ultraengine.backup.choosing import pieces
from ultraengine.backup.errors import BackupDamaged
from ultraengine.backup.manifest import (
    Backup,
    Piece,
    Position,
    decode_backup,
    encode_backup,
    piece_of,
    shard_of,
    tail_name,
)
from ultraengine.log.archive import segment_object
from ultraengine.log.digest import crc32c
from ultraengine.log.retention import SegmentSpan
from ultraengine.model.ids import Instant, ShardId


def piece(first: int, end: int, *, sealed: bool = True) -> Piece:
    named = Piece(
        name="", first_sequence=first, end_sequence=end, first_offset=first, end_offset=end,
        sealed=sealed,
    )  # fmt: skip
    if sealed:
        span = SegmentSpan("", first, end, first, end, 0, Instant(5))
        return msgspec.structs.replace(named, name=segment_object(ShardId(3), span))
    return msgspec.structs.replace(named, name=tail_name(3, named))


def backup(*log: Piece) -> Backup:
    return Backup(
        cluster_uid="00", shard=3, created=1, at=Position(), state_hash=None, end=Position(),
        recorded_end=0, epoch=1, handlers={}, secrets=(), slots=None, snapshots=(), log=log,
        history=(),
    )  # fmt: skip


@pytest.mark.parametrize("sealed", [True, False])
def test_a_name_says_what_a_segment_covers(sealed: bool) -> None:
    one = piece(7, 1234, sealed=sealed)
    assert piece_of(one.name) == one


@pytest.mark.parametrize(
    "name",
    [
        piece(1, 2).name.replace("segments", "tails"),
        piece(1, 2, sealed=False).name.replace("tails", "segments"),
        "3/segments/1-2-3-4-5.log",
        "3/history/" + piece(1, 2).name,
        "3/OWNER",
    ],
)
def test_another_name_is_no_segment(name: str) -> None:
    assert piece_of(name) is None


def test_a_place_is_known_by_its_owner() -> None:
    assert [shard_of(name) for name in ("3/OWNER", "3/owner", "x/OWNER", "OWNER", "3/a/OWNER")] == [
        3, None, None, None, None,
    ]  # fmt: skip


def test_a_manifest_is_read_as_it_was_written() -> None:
    written = backup(piece(0, 4))
    assert decode_backup(encode_backup(written), "name") == written


@pytest.mark.parametrize("line", [b"{}", b"[]", b'{"format":"x"}', b"\xff"])
def test_a_good_checksum_over_another_content_is_damage(line: bytes) -> None:
    with pytest.raises(BackupDamaged, match="name"):
        decode_backup(line + f"\n{crc32c(line):08x}\n".encode(), "name")


def test_the_log_goes_on_as_far_as_there_is_no_gap() -> None:
    known = backup(piece(4, 8), piece(8, 10, sealed=False))
    there = [piece(0, 4), piece(8, 12), piece(12, 15, sealed=False), piece(16, 20)]
    found = pieces(known, there)
    assert [(one.first_sequence, one.end_sequence) for one in found] == [(4, 8), (8, 12), (12, 15)]


def test_what_was_sealed_outranks_a_longer_copy_of_what_was_written() -> None:
    # After a crash the frames that were not proved durable stand in the next segment.
    known = backup(piece(0, 10, sealed=False))
    found = pieces(known, [piece(0, 8), piece(8, 9, sealed=False), piece(8, 12, sealed=False)])
    assert [(one.first_sequence, one.end_sequence) for one in found] == [(0, 8), (8, 12)]


def test_without_a_log_there_is_nothing_to_go_on_from() -> None:
    assert pieces(backup(), []) == []
