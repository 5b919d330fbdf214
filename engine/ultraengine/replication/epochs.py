"""Which epoch wrote what: the table that rejoin truncates by (clause 8; KIP-101).

A log is a run of frames, and each epoch's frames stand together: the table of (epoch, position
of its first frame) says all about who wrote where.  Two logs agree up to the end of the newest
part of an epoch that both have, since an epoch has one leader and a leader's log only grows.

A log may have been cut at its beginning, or begun behind a snapshot.  Its table then begins with
its first position and the epoch of the frame before it, which is not there any more.  Only what is
committed is ever cut there, so all of it is in the history of every later leader.
"""

from collections.abc import Sequence
from typing import Protocol

import msgspec

from ultraengine.model.errors import InvariantBroken
from ultraengine.model.ids import Epoch


class EpochStart(msgspec.Struct, frozen=True, order=True):
    """The first frame of an epoch in a log."""

    epoch: Epoch
    position: int
    """Frame sequence."""


EpochTable = tuple[EpochStart, ...]
"""Ascending by epoch and by position; behind a cut, the first two may share their position."""


class LogView(Protocol):
    """What the protocol asks a replica's own log.  Positions are frame sequences."""

    @property
    def end(self) -> int:
        """First position without a frame."""

    @property
    def durable_end(self) -> int:
        """First position that is not synced."""

    @property
    def epochs(self) -> EpochTable:
        """Of all frames there are."""

    def chain(self, position: int) -> object:
        """Chain hash of all frames below `position`; comparable with a leader's.  None where that
        has been cut."""


def last_epoch(table: EpochTable) -> Epoch:
    """Epoch of the newest frame; 0 without one."""
    return table[-1].epoch if table else Epoch(0)


def first_of(table: EpochTable, end: int) -> int:
    """First position that is kept; everything below is committed."""
    return table[0].position if table else end


def common_end(mine: EpochTable, my_end: int, theirs: EpochTable, their_end: int) -> int:
    """Up to where two logs hold the same frames, by their tables.

    Never below the first position that both keep: there the chains say whether they agree, and one
    of them may not reach so far.
    """
    ends = _ends(mine, my_end)
    agreed = kept = max(first_of(mine, my_end), first_of(theirs, their_end))
    for epoch, (start, end) in _ends(theirs, their_end).items():
        if epoch not in ends:
            continue
        my_start, my_epoch_end = ends[epoch]
        if my_start != start and max(my_start, start) != kept:
            raise InvariantBroken(
                "an epoch starts at one position", epoch=epoch, mine=my_start, theirs=start
            )
        agreed = max(agreed, min(end, my_epoch_end))
    return agreed


def _ends(table: EpochTable, end: int) -> dict[Epoch, tuple[int, int]]:
    ends: dict[Epoch, tuple[int, int]] = {}
    for one in reversed(table):
        ends[one.epoch] = (one.position, end)
        end = one.position
    return ends


def cut(table: EpochTable, end: int) -> EpochTable:
    """The table of the same log cut to `end`."""
    return tuple(
        one for number, one in enumerate(table) if one.position < end or number == 0 < one.position
    )


def trimmed(table: EpochTable, first: int, epoch: Epoch) -> EpochTable:
    """The table of the same log without what is below `first`, where a frame of `epoch` ends."""
    if first == 0:
        return table
    later = (one for one in table if one.position >= first and one.epoch > epoch)
    return (EpochStart(epoch, first), *later)


def extended(table: EpochTable, starts: Sequence[EpochStart]) -> EpochTable:
    """The table with later frames' starts.  Raises `InvariantBroken` when they are not later."""
    made = table
    for start in starts:
        if made and start.epoch == made[-1].epoch:
            continue
        behind_a_cut = len(made) == 1 and start.position == made[0].position > 0
        late = made and start.position <= made[-1].position and not behind_a_cut
        if late or (made and start.epoch < made[-1].epoch):
            raise InvariantBroken("epochs only grow along a log", table=made, start=start)
        made = (*made, start)
    return made
