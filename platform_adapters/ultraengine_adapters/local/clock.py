"""The Clock port on the clocks of the machine."""

import time

from ultraengine.model.ids import Instant


class SystemClock:
    """CLOCK_REALTIME for instants, CLOCK_MONOTONIC for durations."""

    def now(self) -> Instant:
        """Wall-clock time in microseconds since the Unix epoch; may jump."""
        return Instant(time.time_ns() // 1000)

    def monotonic(self) -> float:
        """Seconds that never go back; they stand still while the machine is suspended."""
        return time.monotonic()
