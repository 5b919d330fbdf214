"""The report of a running replica, and the story of how it came to lead."""

from collections.abc import Mapping

import msgspec

from ultraengine.log.driver import Written
from ultraengine.model.ids import Instant
from ultraengine.model.instant import format_instant
from ultraengine.ports import Clock
from ultraengine.replication import epochs as tables
from ultraengine.replication.messages import Told
from ultraengine.replication.record import Record, ReplicaId
from ultraengine.replication.replica import Replica
from ultraengine.replication.watching import report as reports
from ultraengine.replication.watching.marks import Marks
from ultraengine.replication.watching.report import (
    Difference,
    Failover,
    Positions,
    ReplicaReport,
)
from ultraengine.replication.writing.driver import ReplicaFiles


class Watching:
    """What one life of a replica has seen.  Used on the event loop's thread."""

    def __init__(self, machine: Replica, files: ReplicaFiles, replicas: int, clock: Clock) -> None:
        self.told: dict[ReplicaId, Told] = {}
        """What each replica has said of itself last."""
        self.record: Record | None = None
        """The newest that was read here."""
        self.difference: Difference | None = None
        self.fed_at = float("-inf")
        """When the leader that is copied was heard last; monotonic."""
        self._machine = machine
        self._files = files
        self._replicas = replicas
        self._clock = clock
        self._marks = Marks()
        self._failover: Failover | None = None
        self._silent_at = clock.monotonic()

    def read(self, record: Record | None) -> None:
        """The record was read."""
        if record is not None:
            self.record = record

    def written(self, written: Written) -> None:
        """This leader's log has grown."""
        self._marks.add(int(written.end_sequence), written.bytes, self._clock.monotonic())

    def begins(self, executed_end: int) -> None:
        """The epoch-start frame is about to be written: what is adopted is known."""
        machine, leader, point = self._machine, self._machine.leader, self._files.view.log.point
        if leader is None:
            return
        now = self._clock.monotonic()
        self._marks, self._silent_at = Marks(), machine.heard_at
        self._failover = Failover(
            old_epoch=int(tables.last_epoch(self._files.view.epochs)),
            new_epoch=int(leader.epoch),
            acknowledged_end=machine.follower.committed_end,
            acknowledged_offset=executed_end,
            promoted_end=int(point.sequence),
            promoted_offset=int(point.offset),
            chain=point.chain.hex(),
            lossless=leader.record.settled,
            silent_since=self._ago(now - machine.heard_at),
            elected_at=self._ago(now - machine.entered_at),
            serving_at=None,
            took_s=None,
        )

    def serves(self) -> None:
        """Commands are taken."""
        if self._failover is not None and self._failover.serving_at is None:
            self._failover = msgspec.structs.replace(
                self._failover,
                serving_at=self._ago(0.0),
                took_s=self._clock.monotonic() - self._silent_at,
            )

    def _ago(self, seconds: float) -> str:
        return format_instant(Instant(self._clock.now() - round(seconds * 1e6)))

    def lagging(self, late_s: float) -> str:
        """Why what is shown here may be old, as it is executed so late; empty when it is not."""
        heard_s = self._clock.monotonic() - self.fed_at
        return reports.lagging(self._machine, self.record, heard_s=heard_s, late_s=late_s)

    @property
    def leader_url(self) -> str | None:
        """Where clients reach the leader."""
        return reports.url_of(reports.leader_of(self._machine, self.record), self.told)

    def refusal(self) -> str:
        """Why this replica does not answer, and who does."""
        leader = reports.leader_of(self._machine, self.record)
        me = self._machine.me.seat.replica
        if leader is None or leader == me:
            return f"replica {me} does not lead, and nobody else does as far as it knows"
        where = self.leader_url
        return f"replica {leader} leads{f', at {where}' if where else ''}; this is replica {me}"

    def report(self, executed_end: int) -> ReplicaReport:
        """All of it, of this moment."""
        machine, view = self._machine, self._files.view
        record = reports.in_force(machine, self.record)
        leader = reports.leader_of(machine, self.record)
        told: Mapping[ReplicaId, Told] = self.told
        return ReplicaReport(
            replica=int(machine.me.seat.replica),
            replicas=self._replicas if record is None else record.replicas,
            role=reports.role_of(machine),
            epoch=int(machine.promise.epoch),
            leader=None if leader is None else int(leader),
            leader_url=reports.url_of(leader, told),
            in_sync=[] if record is None else [int(seat.replica) for seat in record.isr],
            min_isr=None if record is None else record.min_isr,
            positions=Positions(
                end=view.end,
                durable_end=view.durable_end,
                committed_end=machine.committed_end,
                executed_end=executed_end,
            ),
            flush_age_s=self._files.flush_age_s,
            barred=machine.barred,
            divergence=self.difference,
            followers=reports.followers(machine, told, self._marks, self._clock.monotonic()),
            last_failover=self._failover if machine.leads else None,
        )
