"""What a leader knows of the other copies, and what follows: who is silent, who has caught up, and
up to where the log may be cut.

A copy that lives keeps what it has not got yet in the log.  One that has not been heard for
`ReplicaLimits.kept_s` keeps nothing: it gets a snapshot when it is back.
"""

from collections.abc import Callable, Iterable, Mapping
from functools import partial

import msgspec

from ultraengine.replication import leader as leaders
from ultraengine.replication.effects import ReplicaLimits
from ultraengine.replication.leader import Leader
from ultraengine.replication.record import ReplicaId, Seat
from ultraengine.replication.sizing import Wish, places, steps, surplus


class Peer(msgspec.Struct):
    """How far a leader is with one copy."""

    start: int
    sent_end: int
    """Frames below were sent to it, or are there."""
    held_end: int = 0
    heard_at: float = 0.0
    moved_at: float = 0.0
    """When it last held more than before, or was sent something again."""
    joined: bool = False
    behind: bool = False
    """What it needs has been cut: it has to say hello again."""
    hello: int = 0
    """Number of the greeting that was answered."""

    def knows(self, start: int, hello: int) -> bool:
        """Whether a greeting is late.  A life greets until it has joined; it greets anew, with a
        higher number, when a late word that it is behind has made it leave after it had joined."""
        if start != self.start:
            return start < self.start
        return self.joined and hello <= self.hello


Peers = Mapping[Seat, Peer]


def changes(
    leader: Leader,
    peers: Peers,
    entered_at: float,
    end: int,
    limits: ReplicaLimits,
    now: float,
    wish: Wish | None = None,
) -> list[Callable[[Leader], Leader]]:
    """What a leader may do about its ISR, first things first; each may turn out as not allowed."""
    since, lag_max = now - limits.silence_s, limits.lag_frames_max
    isr = leader.record.isr
    gone = silent(isr, peers, leader.me.seat, entered_at=entered_at, since=since)
    there = caught_up(isr, peers, end=end, lag_max=lag_max, since=since)
    there = [seat for seat in there if seat.replica < places(leader.record, wish)]
    return [
        leaders.settling,
        leaders.agreeing,
        *(partial(leaders.dropping, seat=one) for one in (*surplus(leader.record, wish), *gone)),
        *(partial(leaders.adding, seat=one) for one in there),
        *steps(leader.record, wish),
    ]


def silent(
    isr: Iterable[Seat], peers: Peers, me: Seat, *, entered_at: float, since: float
) -> list[Seat]:
    """Members of the ISR that have not answered since a time; nobody has before the epoch began."""
    found = []
    for seat in isr:
        peer = peers.get(seat)
        heard_at = entered_at if peer is None else peer.heard_at
        if seat != me and max(heard_at, entered_at) < since:
            found.append(seat)
    return found


def caught_up(
    isr: Iterable[Seat], peers: Peers, *, end: int, lag_max: int, since: float
) -> list[Seat]:
    """Copies outside of the ISR that could be taken in."""
    inside = set(isr)
    return [
        seat
        for seat, peer in peers.items()
        if seat not in inside
        and peer.joined
        and peer.heard_at >= since
        and end - peer.held_end <= lag_max
    ]


def needed(
    places: Iterable[ReplicaId],
    peers: Peers,
    filling: Mapping[ReplicaId, tuple[int, float]],
    entered_at: float,
    since: float,
) -> dict[ReplicaId, int]:
    """By place, the first position that its copy still needs in this leader's log.

    `filling` says from where on a copy that is being filled from a snapshot will need it, and when
    it was last heard.  A place that nobody has been heard of needs everything, until the epoch is
    older than `since`.
    """
    found: dict[ReplicaId, int] = {}
    for place in places:
        ends = [
            max(peer.held_end, 0 if peer.joined else peer.sent_end)
            for seat, peer in peers.items()
            if seat.replica == place and peer.heard_at >= since
        ]
        base, heard_at = filling.get(place, (0, since - 1))
        if heard_at >= since:
            ends = [max([base, *ends])]
        if ends:
            found[place] = max(ends)
        elif entered_at >= since:
            found[place] = 0
    return found
