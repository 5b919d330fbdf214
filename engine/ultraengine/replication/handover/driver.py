"""A handover in real time: whoever asks for one waits here until it is known how it ended."""

import asyncio
from collections.abc import Callable
from typing import Final

from ultraengine.model.ids import Epoch
from ultraengine.replication.effects import Effects
from ultraengine.replication.handover.plan import Handover, Phase
from ultraengine.replication.messages import Beacon, Lead
from ultraengine.replication.record import Record, Seat
from ultraengine.replication.replica import Replica

AGAIN_S: Final = 0.05
"""Until the successor is told again that it leads: a message may be lost."""
TELL_S: Final = 1.0
"""How long it is told; then it finds out from the record."""


class HandingOver:
    """The handovers of one replica.  Used on the event loop's thread."""

    def __init__(
        self, step: Callable[[Callable[[float], Effects]], None], tell: Callable[..., None]
    ) -> None:
        """`step` lets something happen to the machine, later; `tell` sends a message to a place."""
        self._step = step
        self._tell = tell
        self._ended: asyncio.Future[Record | None] | None = None
        self._heard = Epoch(0)
        """Newest epoch that a leader has spoken of."""

    async def to(self, machine: Replica, seat: Seat, wait_s: float) -> Record | None:
        """Let a copy lead, and wait for the end of it: the record that names it, or None when this
        leader goes on.

        Waits for ever while the fate of the swap is not known: meanwhile nobody may go on.
        """
        ended: asyncio.Future[Record | None] = asyncio.get_running_loop().create_future()

        def begin(now: float) -> Effects:
            before = machine.handover
            effects = machine.hand_over(seat, now + wait_s, now)
            if machine.handover is before:
                ended.set_result(None)  # It leads no more, or hands over already.
            else:
                self._ended = ended
            return effects

        self._step(begin)
        return await ended

    def is_over(self, handover: Handover | None) -> bool:
        """Take notice of how it stands; whether another leads."""
        if handover is None:
            return False
        ended = self._ended
        if ended is not None and not ended.done():
            if handover.phase is Phase.WON:
                ended.set_result(handover.swap)
            elif handover.phase is Phase.GIVEN_UP:
                ended.set_result(None)
        return handover.phase is Phase.WON

    def heard(self, beacon: Beacon) -> None:
        """A leader has spoken."""
        self._heard = max(self._heard, beacon.epoch)

    async def tell_successor(self, record: Record) -> bool:
        """Say that the swap was won until the successor speaks as a leader; whether it did."""
        for _ in range(round(TELL_S / AGAIN_S)):
            if self._heard >= record.epoch:
                return True
            self._tell(record.holder.seat.replica, Lead(record))
            await asyncio.sleep(AGAIN_S)
        return False
