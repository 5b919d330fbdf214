"""How far a build is, how fast it goes, and when it will be there.

The rate is that of the last half minute, so an estimate follows a database that got slower, and
a pause does not spoil it for good.  Time is an argument.
"""

from collections import deque
from collections.abc import Mapping
from typing import Final

import msgspec

from ultraengine.model.ids import Offset, ShardId
from ultraengine.projection.target import Checkpoint

WINDOW_S: Final = 30.0
SAMPLES_MAX: Final = 128


class Progress(msgspec.Struct, frozen=True):
    """How far a build is now."""

    done: int
    """Commands in the tables."""
    total: int
    """Commands in the feed when it was seen last; it may grow."""
    rate: float
    """Commands per second lately."""

    @property
    def fraction(self) -> float:
        """0.0 to 1.0."""
        return min(1.0, self.done / self.total) if self.total else 1.0

    @property
    def eta_s(self) -> float | None:
        """Seconds to go at this rate; None while it stands still."""
        left = self.total - self.done
        if left <= 0:
            return 0.0
        return left / self.rate if self.rate > 0 else None


class Speedometer:
    """The rate of something that is counted, over the last `WINDOW_S` seconds."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, int]] = deque(maxlen=SAMPLES_MAX)

    def observe(self, now: float, count: int) -> None:
        """`count` so far.  Too frequent samples are left out, so the window stays whole."""
        samples = self._samples
        if samples and now - samples[-1][0] < WINDOW_S / SAMPLES_MAX:
            return
        samples.append((now, count))
        while len(samples) > 2 and now - samples[0][0] > WINDOW_S:
            samples.popleft()

    def rate(self, now: float, count: int) -> float:
        """Per second, with `count` now."""
        if not self._samples:
            return 0.0
        started, before = self._samples[0]
        return (count - before) / (now - started) if now > started else 0.0


def commands_done(positions: Mapping[ShardId, Checkpoint]) -> int:
    """Commands in the tables of a set."""
    return sum(position.offset for position in positions.values())


def is_caught_up(
    positions: Mapping[ShardId, Checkpoint], ends: Mapping[ShardId, Offset | None]
) -> bool:
    """Whether a set holds all that its feed had when each shard was read last.

    `ends` names every shard of the engine; a shard without an end was not read yet.
    """
    return bool(ends) and all(
        end is not None and (end == 0 or (shard in positions and positions[shard].offset >= end))
        for shard, end in ends.items()
    )
