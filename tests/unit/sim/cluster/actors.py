"""Who else takes part in a run: clients, and the clocks of the processes."""

from collections.abc import Callable

from tests.unit.sim.cluster.state import Add

from ultraengine.model.ids import Instant
from ultraengine.testing.sim_clock import START, SimClock


class Client:
    """Sends one command after the other, each until it is answered."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.count = 0
        self.add: Add | None = None
        self.asked_end = 0
        self.attempt = 0


class SkewedClock(SimClock):
    """A process's clock: virtual time at a rate of its own."""

    def __init__(self, elapsed: Callable[[], float], rate: float, wall_s: float) -> None:
        super().__init__()
        self.elapsed = elapsed
        self.rate = rate
        self.wall_s = wall_s

    def monotonic(self) -> float:
        return self.elapsed() * self.rate

    def now(self) -> Instant:
        return Instant(START + round((self.elapsed() * self.rate + self.wall_s) * 1_000_000))
