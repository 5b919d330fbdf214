"""Which backup a position is restored from, and which segments lead there.  Pure."""

from collections.abc import Iterable, Sequence

import msgspec

from ultraengine.backup.errors import BackupRefused
from ultraengine.backup.manifest import Backup, Piece


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """What is wanted: everything, the offsets below one, or the commands up to a moment."""

    offset: int | None = None
    time: int | None = None
    """µs since the Unix epoch; what was stamped later is left out."""

    def covers(self, backup: Backup) -> bool:
        """Whether the backup's snapshot holds nothing beyond the target."""
        if self.offset is not None:
            return backup.at.offset_end <= self.offset
        return self.time is None or backup.at.time <= self.time

    def beyond(self, *, offset_end: int, time: int) -> bool:
        """Whether a group that ends there has something beyond the target."""
        if self.offset is not None:
            return offset_end > self.offset
        return self.time is not None and time > self.time


def choose(backups: Sequence[Backup], target: Target) -> Backup:
    """The newest backup from which the target is reached.  Raises `BackupRefused`."""
    fitting = [one for one in backups if target.covers(one)]
    if fitting:
        return max(fitting, key=lambda one: (one.at.offset_end, one.created))
    if not backups:
        raise BackupRefused("the store holds no backup of this shard")
    oldest = min(backups, key=lambda one: one.at.offset_end)
    raise BackupRefused(
        f"the oldest backup is of offset {oldest.at.offset_end}, stamped {oldest.at.time} µs: "
        "nothing before can be restored from it"
    )


def pieces(backup: Backup, there: Iterable[Piece]) -> list[Piece]:
    """The log from the backup's first segment on, as far as it goes without a gap.

    What was sealed goes before what was copied while it was written: a start after a crash
    writes the last frames anew, in the next segment.
    """
    known = {one.name: one for one in backup.log}
    best: dict[int, Piece] = {}
    for piece in (*there, *backup.log):
        other = best.get(piece.first_sequence)
        if other is None or _rank(piece) > _rank(other):
            best[piece.first_sequence] = piece
    found: list[Piece] = []
    at = backup.log[0].first_sequence if backup.log else 0
    while at in best:
        piece = best.pop(at)
        found.append(known.get(piece.name, piece))
        at = piece.end_sequence
    return found


def _rank(piece: Piece) -> tuple[bool, int]:
    return piece.sealed, piece.end_sequence
