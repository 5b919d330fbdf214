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
    """Who has joined and answers, and the frames below `end` that each of them lacks.

    Who has not answered for `silence_s` gets none: its disk may have been replaced, and then nobody
    would ever answer.  A beacon is answered by whoever is there, and then it is fed again.
    `lives`: those who lack nothing get a message as well, as a sign of life.
    """
    reached: set[ReplicaId] = set()
    sends: list[Sending] = []
    for seat, peer in peers.items():
        if not peer.joined or peer.heard_at < now - limits.silence_s:
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
        )
        sends.append(Sending(seat.replica, append, until))
        peer.sent_end = until
    return reached, sends
