"""A planner beside each replica, as production has them; its address is `BESIDE` its replica's.

It lives and ends with the process, and is paused, cut off and late with it.  What it reads of the
record is shown to its replica too.
"""

from collections.abc import Callable
from typing import Final, Protocol

from tests.unit.sim.cluster.node import CLUSTER, Node

from ultraengine.replication.effects import Effects
from ultraengine.replication.messages import Told
from ultraengine.replication.planner import PATIENCE, Planner, PlannerEffects, PlannerLimits
from ultraengine.replication.record import Record

BESIDE: Final = 100
LIFE: Final = 1_000_000
"""More than one asks."""


class Around(Protocol):
    """What such a planner sees of the world."""

    def send(self, source: int, to: int | None, message: object) -> None: ...
    def ask_api(self, source: int, effects: Effects | PlannerEffects) -> None: ...
    def guarded(self, number: int, node: Node, action: Callable[[], None]) -> None: ...


def place(address: int) -> int:
    """The replica at, or beside, which this address is."""
    return address - BESIDE if address >= BESIDE else address


class Beside:
    """The planner of one life of a replica."""

    def __init__(self, node: Node, replicas: int, limits: PlannerLimits, around: Around) -> None:
        self.node = node
        self._replicas = replicas
        self._limits = limits
        self._around = around
        self._epoch = 0
        self._address = BESIDE + node.number
        # Answers to the life before do not reach this one: its connections are over.
        self._planner = self._anew(LIFE * node.start)

    def _anew(self, numbers_from: int) -> Planner:
        now = self.node.clock.monotonic()
        patience = PATIENCE * self.node.number
        return Planner(
            CLUSTER, self._replicas, self._limits, now, numbers_from=numbers_from, patience=patience
        )

    def tick(self) -> None:
        """Time has passed."""
        self._do(self._planner.tick(self.node.clock.monotonic()))

    def told(self, message: Told) -> None:
        """A replica has answered."""
        self._around.guarded(self.node.number, self.node, lambda: self._planner.told(message))

    def record_read(self, record: Record | None) -> None:
        """Its read has answered."""
        now = self.node.clock.monotonic()
        self.node.do(self.node.machine.record_read(record, now))
        if record is None:
            return  # It is not made again: the disks hold something.
        if record.epoch != self._epoch:
            self._epoch = record.epoch
            self._planner = self._anew(self._planner.number)
        else:
            self._do(self._planner.record_read(record, now))

    def swapped(self, effects: Callable[[Planner], PlannerEffects]) -> None:
        """Its swap has come to something."""
        self._do(effects(self._planner))

    def _do(self, effects: PlannerEffects) -> None:
        if effects.ask is not None:
            for number in range(self._replicas):
                self._around.send(self._address, number, effects.ask)
        if effects.lead is not None:
            holder = effects.lead.record.holder
            self._around.send(self._address, int(holder.seat.replica), effects.lead)
        self._around.ask_api(self._address, PlannerEffects(read=effects.read, swap=effects.swap))
