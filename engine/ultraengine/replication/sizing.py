"""How many copies there are to be, and the next step of a leader towards it (clause 14).

    more:  the copy of the next place comes in sync, and knows it -> there is one place more
    less:  the copy of the last place leaves, if it may -> all others are in sync -> there is one
           place less -> that copy leaves, if it could not before
    both:  the copies of before have sworn to the new number -> said in the record -> the next step

One place at a time.  Every step is a swap of the leader's, so it lands on what it was computed
from, or not at all; whoever leads next goes on with the wish that its own settings name.
"""

from collections.abc import Callable
from functools import partial

import msgspec

from ultraengine.replication import leader as leaders
from ultraengine.replication.leader import Leader
from ultraengine.replication.record import Record, Seat


class Wish(msgspec.Struct, frozen=True):
    """What the settings of a replica say."""

    replicas: int
    min_isr: int = 0
    """0: more than half."""

    def fewest(self, replicas: int) -> int:
        """``min_isr`` of so many copies."""
        return min(self.min_isr, replicas) or replicas // 2 + 1


def goes(wish: Wish, place: int) -> bool:
    """Whether the copy in this place is not to be any more: it does not lead then."""
    return place >= wish.replicas


def places(record: Record, wish: Wish | None) -> int:
    """Copies of places below are to be in sync: one place ahead of the number, while it changes.

    A copy that is needed stays all the same, and so does one that has perhaps not sworn to the
    number that is in force (`record.elders`).
    """
    if wish is None or record.before or wish.replicas == record.replicas:
        return record.replicas
    return record.replicas + (1 if wish.replicas > record.replicas else -1)


def surplus(record: Record, wish: Wish | None) -> list[Seat]:
    """Copies in sync that are not to be."""
    return [seat for seat in record.isr if seat.replica >= places(record, wish)]


def steps(record: Record, wish: Wish | None) -> list[Callable[[Leader], Leader]]:
    """What a leader may try; it turns out as not allowed before its time."""
    replicas = record.replicas
    if wish is None or wish.replicas == replicas:
        return []
    if wish.replicas < replicas:
        return [partial(leaders.narrowing, min_isr=wish.fewest(replicas - 1))]
    return [partial(leaders.widening, min_isr=wish.fewest(replicas + 1))]
