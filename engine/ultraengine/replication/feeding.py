"""What a leader sends to the copies that have joined it, and notes as sent."""

from collections.abc import Mapping

from ultraengine.replication.effects import ReplicaLimits, Sending
from ultraengine.replication.leader import Leader
from ultraengine.replication.messages import Append
from ultraengine.replication.peers import Peer
from ultraengine.replication.record import ReplicaId, Seat


def fed(
    leader: Leader,
    peers: Mapping[Seat, Peer],
    end: int,
    limits: ReplicaLimits,
    now: float,
    *,
    lives: bool,
) -> tuple[set[ReplicaId], list[Sending]]:
    """Who has joined, and the frames below `end` that each of them lacks.

    A disk gets none when another one was heard of in its place since: it would never answer.
    `lives`: those who lack nothing get a message as well, as a sign of life.
    """
    reached: set[ReplicaId] = set()
    sends: list[Sending] = []
    for seat, peer in peers.items():
        if not peer.joined or _is_replaced(seat, peers):
            continue
        reached.add(seat.replica)
        if peer.held_end < end and now - peer.moved_at >= limits.resend_s:
            peer.sent_end, peer.moved_at = peer.held_end, now
        until = min(end, peer.sent_end + limits.append_frames_max)
        if until == peer.sent_end and not lives:
            continue
        append = Append(
            leader.epoch,
            leader.me,
            seat,
            leader.record.version,
            seat in leader.record.isr,
            peer.sent_end,
            leader.committed_end,
            size=leader.record.size,
        )
        sends.append(Sending(seat.replica, append, until))
        peer.sent_end = until
    return reached, sends


def _is_replaced(seat: Seat, peers: Mapping[Seat, Peer]) -> bool:
    heard_at = peers[seat].heard_at
    return any(
        one.replica == seat.replica and other.heard_at > heard_at for one, other in peers.items()
    )
