"""Which epoch wrote what: the table that rejoin truncates by (clause 8; KIP-101).

A log is a run of frames, and each epoch's frames stand together: the table of (epoch, position
of its first frame) says all about who wrote where.  Two logs agree up to the end of the newest
part of an epoch that both have, since an epoch has one leader and a leader's log only grows.
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
"""Ascending by epoch and by position."""


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
        """Chain hash of all frames below `position`; comparable with a leader's."""


def last_epoch(table: EpochTable) -> Epoch:
    """Epoch of the newest frame; 0 without one."""
    return table[-1].epoch if table else Epoch(0)


def common_end(mine: EpochTable, my_end: int, theirs: EpochTable, their_end: int) -> int:
    """Up to where two logs hold the same frames, by their tables."""
    ends = _ends(mine, my_end)
    agreed = 0
    for epoch, (start, end) in _ends(theirs, their_end).items():
        if epoch not in ends:
            continue
        my_start, my_epoch_end = ends[epoch]
        if my_start != start:
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
    return tuple(one for one in table if one.position < end)


def extended(table: EpochTable, starts: Sequence[EpochStart]) -> EpochTable:
    """The table with later frames' starts.  Raises `InvariantBroken` when they are not later."""
    made = table
    for start in starts:
        if made and start.epoch == made[-1].epoch:
            continue
        if made and (start.epoch < made[-1].epoch or start.position <= made[-1].position):
            raise InvariantBroken("epochs only grow along a log", table=made, start=start)
        made = (*made, start)
    return made
