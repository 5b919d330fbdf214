"""The report of a replica, from what its machine knows.  Nothing reads it to decide."""

from collections.abc import Mapping
from typing import Final

import msgspec

from ultraengine.replication.messages import Told
from ultraengine.replication.record import Record, ReplicaId, Seat
from ultraengine.replication.replica import Replica
from ultraengine.replication.watching.marks import Marks

STALE_S: Final = 5.0
"""A copy whose leader is silent for so long, or that executes so late, may be far behind."""


class Positions(msgspec.Struct, frozen=True, kw_only=True):
    """How far a copy is: frames of the log, and offsets of commands where it says so."""

    end: int
    """First frame that is not written here."""
    durable_end: int
    """First frame that is not synced here."""
    committed_end: int
    """First frame that is not known to be committed."""
    executed_end: int
    """First offset that is not executed here."""


class FollowerReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a leader knows of another copy."""

    replica: int
    in_sync: bool
    held_end: int | None
    """First frame that it is not known to hold; None before it has joined."""
    executed_end: int | None
    """First offset that it has not executed, as it says."""
    lag_frames: int | None
    lag_bytes: int | None
    lag_s: float | None
    """Age of the oldest frame that it is not known to hold."""
    silent_s: float | None
    """Since it was last heard."""
    flush_age_s: float | None
    """How long its oldest flush has been under way, as it said last."""
    barred: bool
    """Its execution differs, and it is not chosen to lead."""
    url: str
    """Where clients reach it."""


class Failover(msgspec.Struct, frozen=True, kw_only=True):
    """How the leadership of this replica began, and why nothing was lost."""

    old_epoch: int
    new_epoch: int
    acknowledged_end: int
    """First frame that was not known here to be committed: at least so much was acknowledged."""
    acknowledged_offset: int
    """First offset that was not executed here: likewise, of commands."""
    promoted_end: int
    """First frame of the new epoch; everything below was adopted."""
    promoted_offset: int
    chain: str
    """Hash of everything below ``promoted_end``; every copy has the same there."""
    lossless: bool
    """Led by a member of an ISR all of whose members hold what was acknowledged.  Not so after a
    roll-back of the record: then the newest history that was heard leads."""
    silent_since: str
    """When the leader before was last heard here, RFC 3339."""
    elected_at: str
    """When this replica had sworn to lead."""
    serving_at: str | None
    """When commands were taken again."""
    took_s: float | None
    """From ``silent_since`` to ``serving_at``."""


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """Where execution came out differently here than at the leader."""

    offset: int
    command_type: str
    recorded: str
    decided: str


class ReplicaReport(msgspec.Struct, frozen=True, kw_only=True):
    """One replica of a shard."""

    replica: int
    replicas: int
    role: str
    """``leader``, ``candidate`` (it is to lead, and not enough copies have sworn yet), or
    ``follower``."""
    epoch: int
    """The newest that its disk has sworn to."""
    leader: int | None
    """Whom it leads or follows: the replica that the record names."""
    leader_url: str | None
    in_sync: list[int]
    """By the newest record that it has seen."""
    min_isr: int | None
    positions: Positions
    flush_age_s: float
    barred: bool
    divergence: Difference | None
    followers: list[FollowerReport]
    """By number; known to a leader alone."""
    last_failover: Failover | None
    """Known to the leader that it has made."""


def role_of(machine: Replica) -> str:
    """In one word."""
    if not machine.leads:
        return "follower"
    return "leader" if machine.may_append else "candidate"


def leader_of(machine: Replica, record: Record | None) -> ReplicaId | None:
    """Who leads, as far as this replica knows: whom its disk obeys, unless the record is newer."""
    holder = machine.promise.holder
    if record is not None and (record.epoch > machine.promise.epoch or holder is None):
        holder = record.holder
    return None if holder is None else holder.seat.replica


def url_of(replica: ReplicaId | None, told: Mapping[ReplicaId, Told]) -> str | None:
    """Where clients reach a replica, as it has said; None when it has not."""
    found = None if replica is None else told.get(replica)
    return (found.url or None) if found is not None else None


def lagging(machine: Replica, record: Record | None, *, heard_s: float, late_s: float) -> str:
    """Why a copy may show what is old, or stand still; empty for one that keeps up.

    `heard_s`: since its leader was heard; `late_s`: what it executes has been committed so long.
    """
    known = in_force(machine, record)
    if machine.barred:
        return "it executes nothing"
    if known is None or machine.me.seat not in known.isr:
        return "it is not in sync"
    if heard_s > STALE_S:
        return "its leader is silent"
    if late_s > STALE_S:
        return f"it executes {late_s:.0f} s late"
    return ""


def in_force(machine: Replica, record: Record | None) -> Record | None:
    """The newest record that is known here."""
    leader = machine.leader
    led = None if leader is None else leader.record
    found = [one for one in (led, record) if one is not None]
    return max(found, key=lambda one: one.order, default=None)


def followers(
    machine: Replica, told: Mapping[ReplicaId, Told], marks: Marks, now: float
) -> list[FollowerReport]:
    """What a leader knows of the others; nothing of a replica that follows, and nothing of a copy
    that neither counts nor is wished."""
    leader = machine.leader
    if leader is None or not machine.leads:
        return []
    record, wish = leader.record, machine.wish
    places = max(record.replicas, 0 if wish is None else wish.replicas)
    seats: dict[ReplicaId, Seat] = {}
    for seat in (*leader.record.isr, *machine.peers):
        if seat.replica != machine.me.seat.replica:
            seats[seat.replica] = seat
    for replica, said in told.items():
        if replica != machine.me.seat.replica:
            seats.setdefault(replica, said.seat)
    return [
        _follower(machine, seat, told.get(replica), marks, now)
        for replica, seat in sorted(seats.items())
        if replica < places or seat in record.isr
    ]


def _follower(
    machine: Replica, seat: Seat, told: Told | None, marks: Marks, now: float
) -> FollowerReport:
    leader, peer = machine.leader, machine.peers.get(seat)
    joined = peer is not None and peer.joined
    lag = marks.lag(peer.held_end, machine.log.end, now) if peer is not None and joined else None
    return FollowerReport(
        replica=int(seat.replica),
        in_sync=leader is not None and seat in leader.record.isr,
        held_end=peer.held_end if peer is not None and joined else None,
        executed_end=None if told is None else told.executed_end,
        lag_frames=None if lag is None else lag.frames,
        lag_bytes=None if lag is None else lag.bytes,
        lag_s=None if lag is None else lag.seconds,
        silent_s=None if peer is None else max(0.0, now - peer.heard_at),
        flush_age_s=None if told is None else told.flush_age_s,
        barred=told is not None and told.answer.barred,
        url="" if told is None else told.url,
    )
