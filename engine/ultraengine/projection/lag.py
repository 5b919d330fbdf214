"""How far a set is behind its engine, in commands and in seconds, and when somebody is told.

Seconds count from the stamped time of the oldest group that is not in the tables yet: an engine
that was idle for a night is not behind by a night.  All of it is arithmetic on what the driver
has seen; nothing is read.
"""

import enum
from typing import Final

import msgspec

from ultraengine.model.ids import Instant, Offset
from ultraengine.projection.target import Checkpoint

MICROSECONDS: Final = 1_000_000
CALM_SHARE: Final = 0.5
"""An alert ends when the lag is below this share of its threshold: no flapping at the edge."""


class Lag(msgspec.Struct, frozen=True):
    """How far one shard of a set is behind."""

    commands: int
    seconds: float


NONE: Final = Lag(0, 0.0)


def lag(
    position: Checkpoint,
    end: Offset,
    end_time: Instant,
    oldest_waiting: Instant | None,
    now: Instant,
) -> Lag:
    """The lag of one shard.

    `end` and `end_time` are the feed's, as seen last; `oldest_waiting` is the stamped time of the
    first group that was read and is not written, None when none was read.
    """
    commands = max(0, end - position.offset)
    if commands == 0:
        return NONE
    since = oldest_waiting
    if since is None:
        # Nothing was read of what waits: it is not older than what was written last, and not
        # younger than the newest group.
        since = position.time or end_time
    return Lag(commands, max(0.0, (now - since) / MICROSECONDS))


def worst(lags: list[Lag]) -> Lag:
    """Of all shards of a set: all commands, and the longest time."""
    return Lag(sum(one.commands for one in lags), max((one.seconds for one in lags), default=0.0))


class Alert(enum.IntEnum):
    """How bad a lag is."""

    CALM = 0
    WARN = 1
    ALARM = 2


class LagAlerts:
    """Turns a lag that changes all the time into the few moments that matter."""

    def __init__(self, warn_s: float, alarm_s: float) -> None:
        self._thresholds = {Alert.WARN: warn_s, Alert.ALARM: alarm_s}
        self.level = Alert.CALM

    def observe(self, seconds: float) -> Alert | None:
        """The new level when it changed, None when there is nothing to tell."""
        level = max(
            (one for one, threshold in self._thresholds.items() if self._holds(one, seconds)),
            default=Alert.CALM,
        )
        if level is self.level:
            return None
        self.level = level
        return level

    def _holds(self, level: Alert, seconds: float) -> bool:
        threshold = self._thresholds[level]
        if self.level >= level:
            return seconds >= threshold * CALM_SHARE
        return seconds >= threshold
