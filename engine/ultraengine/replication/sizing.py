"""How many copies there are to be, and the next step of a leader towards it (clause 14).

    more:  the copy of the next place comes in sync, and knows it -> there is one place more
    less:  all others are in sync -> there is one place less -> the copy of the last one leaves
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
    """Copies of places below may be in sync: those of the shard, and the next one that is wished.

    That of a last place that goes is in sync until all have sworn that it goes (`record.elders`).
    """
    more = wish is not None and wish.replicas > record.replicas and not record.before
    return record.replicas + more


def surplus(record: Record, wish: Wish | None) -> list[Seat]:
    """Copies in sync of places that the shard has no more."""
    return [seat for seat in record.isr if seat.replica >= places(record, wish)]


def steps(record: Record, wish: Wish | None) -> list[Callable[[Leader], Leader]]:
    """What a leader may try; it turns out as not allowed before its time."""
    replicas = record.replicas
    if wish is None or wish.replicas == replicas:
        return []
    if wish.replicas < replicas:
        return [partial(leaders.narrowing, min_isr=wish.fewest(replicas - 1))]
    return [partial(leaders.widening, min_isr=wish.fewest(replicas + 1))]
