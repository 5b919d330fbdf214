"""A log, as the protocol asks it: `epochs.LogView` on `log.driver.Log`.

It says what has been written and reported, which is what the machine was told of; a driver tells
it of each write when that is done, and of a cut.
"""

from collections.abc import Sequence

from ultraengine.log.damage import BelowRetention
from ultraengine.log.driver import Log, Written
from ultraengine.log.frame import Frame
from ultraengine.model.ids import Epoch
from ultraengine.replication import epochs as tables
from ultraengine.replication.epochs import EpochStart, EpochTable


class OpenLog:
    """One replica's log, while it is open.

    It is opened anew by `reopened` after a cut; the machine keeps this object.
    """

    def __init__(self, log: Log) -> None:
        self.reopened(log)

    def reopened(self, log: Log) -> None:
        """The log has been opened, and knows nothing of what was in it before."""
        self.log = log
        self.end = int(log.recovered.end_sequence)
        self.tip: bytes = log.recovered.chain
        self._reader = log.reader()
        starts = tuple(EpochStart(epoch, int(at)) for epoch, at in self._reader.epoch_starts())
        first = self._reader.first
        self._table = tables.trimmed(starts, int(first.sequence), first.epoch)

    @property
    def epochs(self) -> EpochTable:
        """Of what is there now: retention cuts the beginning away at any time."""
        first = self._reader.first
        if first.sequence > tables.first_of(self._table, self.end):
            self._table = tables.trimmed(self._table, int(first.sequence), first.epoch)
        return self._table

    @property
    def durable_end(self) -> int:
        """First position that is not synced."""
        return min(self.end, int(self.log.durable.durable_end))

    def chain(self, position: int) -> bytes | None:
        """Chain hash of all frames below `position`; None when retention has cut it."""
        if position == self.end:
            return self.tip
        first = self._reader.first
        if position == first.sequence:
            return first.chain
        try:
            (frame,) = self._reader.frames(position, position + 1, unsynced=True)
        except BelowRetention:
            return None
        return frame.header.chain

    def grown(self, epoch: int, written: Written) -> None:
        """Frames of this epoch have been written."""
        self._table = tables.extended(self._table, [EpochStart(Epoch(epoch), self.end)])
        self.end, self.tip = int(written.end_sequence), written.chain

    def copied(self, frames: Sequence[Frame], written: Written) -> None:
        """A leader's frames have been written."""
        starts = [EpochStart(one.header.epoch, int(one.header.sequence)) for one in frames]
        self._table = tables.extended(self._table, starts)
        self.end, self.tip = int(written.end_sequence), written.chain
