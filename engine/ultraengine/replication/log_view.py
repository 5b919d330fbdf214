"""A log, as the protocol asks it: `epochs.LogView` on `log.driver.Log`.

It says what has been written and reported, which is what the machine was told of; a driver tells
it of each write when that is done, and of a cut.
"""

from collections.abc import Sequence

from ultraengine.log.driver import Log, Written
from ultraengine.log.frame import Frame
from ultraengine.model.ids import NO_CHAIN, Epoch
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
        starts = log.reader().epoch_starts()
        self.epochs: EpochTable = tuple(EpochStart(epoch, int(at)) for epoch, at in starts)

    @property
    def durable_end(self) -> int:
        """First position that is not synced."""
        return min(self.end, int(self.log.durable.durable_end))

    def chain(self, position: int) -> bytes:
        """Chain hash of all frames below `position`."""
        if position == self.end:
            return self.tip
        if position == 0:
            return NO_CHAIN
        (frame,) = self.log.reader().frames(position, position + 1, unsynced=True)
        return frame.header.chain

    def grown(self, epoch: int, written: Written) -> None:
        """Frames of this epoch have been written."""
        self.epochs = tables.extended(self.epochs, [EpochStart(Epoch(epoch), self.end)])
        self.end, self.tip = int(written.end_sequence), written.chain

    def copied(self, frames: Sequence[Frame], written: Written) -> None:
        """A leader's frames have been written."""
        starts = [EpochStart(one.header.epoch, int(one.header.sequence)) for one in frames]
        self.epochs = tables.extended(self.epochs, starts)
        self.end, self.tip = int(written.end_sequence), written.chain
