"""Rounds of questions by which a leader proves that it still leads (clause 9).  Values in and out.

    a read arrives -> a round that is not sent yet is wanted -> sent, when the one before has ended
    -> every member of the wait set has answered it -> the reads that waited for it are answered

Whoever leads next is a member of this leader's wait set: ISRs are drawn from ISRs, and nobody
enters one before an epoch has begun.  A member that has answered in this epoch had not sworn a
later one then; so nothing of a later epoch was acknowledged before the read arrived.  No clock
takes part in it, and a leader that is cut off answers nothing.

Reads that arrive during a round share the next one, however many they are.
"""

from collections.abc import Iterable

from ultraengine.replication.record import Seat


class Rounds:
    """The rounds of one leadership."""

    def __init__(self) -> None:
        self._wanted = 0
        self._sent = 0
        self._heard: dict[Seat, int] = {}

    def want(self) -> int:
        """A read has arrived: the number of the round that it waits for."""
        self._wanted = self._sent + 1
        return self._wanted

    def heard(self, seat: Seat, number: int) -> None:
        """A copy has answered a round."""
        self._heard[seat] = max(number, self._heard.get(seat, 0))

    def proved(self, waited: Iterable[Seat]) -> int:
        """The newest round that all of these have answered; with nobody to ask, the newest."""
        return min((self._heard.get(seat, 0) for seat in waited), default=self._sent)

    def due(self, waited: Iterable[Seat]) -> int | None:
        """The round to send now: one is wanted, and none is under way."""
        if self._wanted <= self._sent or self.proved(waited) < self._sent:
            return None
        self._sent = self._wanted
        return self._sent

    def unanswered(self, waited: Iterable[Seat]) -> tuple[int, list[Seat]]:
        """The round that is under way, and who has not answered it: to be asked again."""
        return self._sent, [seat for seat in waited if self._heard.get(seat, 0) < self._sent]
