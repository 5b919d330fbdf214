"""Whoever plans failovers: one round after the other, values in and values out.

    read the record -> ask the replicas -> wait -> nothing to do | swap | reserve an epoch

The record is read *before* the disks are asked: an answer that is older than the read could
have been given before a change which the record has lost since, and would not show it (clause 11).
The other way round costs at most a round: a change between the two looks like a roll-back, so a
roll-back is believed when a second round has seen it too.

Only time in which it has looked is silence of the leader's.  A planner that stood still itself (its
process was stopped, its machine is busy) has not read what came meanwhile: it waits once more for
the answers of its round, and does not count what it has slept.

One runs beside each replica, and plans for all (ADR 18); with `only`, for its own seat alone.
"""

import enum
from typing import Final

import msgspec

from ultraengine.model.ids import Epoch
from ultraengine.replication import promise as promises
from ultraengine.replication import promotion
from ultraengine.replication.effects import Swap
from ultraengine.replication.messages import Ask, Lead, Reserve, Told
from ultraengine.replication.promotion import Answer, Refused
from ultraengine.replication.record import Record, Seat

PATIENCE: Final = 2
"""Rounds between the first attempts of two planners: in so many, a new leader has begun."""


class PlannerLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Times; none of them decides what is safe."""

    round_s: float = 0.2
    """From one round's start to the next one's."""
    answers_s: float = 0.3
    """How long answers are waited for."""
    silence_s: float = 0.6
    """A leader that has not answered for so long is replaced."""


class PlannerEffects(msgspec.Struct):
    """Work for the driver."""

    read: bool = False
    """Ask for a quorum read of the record."""
    ask: Ask | Reserve | None = None
    """To every replica."""
    lead: Lead | None = None
    """To the holder that it names."""
    swap: Swap | None = None


class _Phase(enum.Enum):
    IDLE = "idle"
    READING = "reading"
    ASKING = "asking"
    RESERVING = "reserving"


class Planner:
    """One planner.  It may forget everything at any time."""

    def __init__(
        self,
        cluster_uid: bytes,
        replicas: int,
        limits: PlannerLimits,
        now: float,
        *,
        only: Seat | None = None,
        numbers_from: int = 0,
        patience: int = 0,
    ) -> None:
        """`replicas`: how many are asked.  `numbers_from`: above the questions of an earlier
        planner at the same place, whose late answers would say what was true before this one's
        read.  `patience`: so many rounds more are waited before an epoch is reserved, which makes
        an end of every other planner's attempt: where several plan, no two have the same."""
        self._cluster_uid = cluster_uid
        self._replicas = replicas
        self._limits = limits
        self._only = only
        self._phase = _Phase.IDLE
        self._since = now
        self._led_at = now
        """When the leader was last known to lead; later by all that was slept since."""
        self._ticked_at = now
        self._waits_again = False
        """Whether this phase began anew because it was slept through."""
        self._number = numbers_from
        """Of the question that is asked; answers to others do not count."""
        self._record: Record | None = None
        self._epoch = Epoch(0)
        """Asked to be reserved."""
        self._patience = patience
        self._refused = 0
        """Rounds so far that have seen a roll-back, or a record that is not settled."""
        self._answers: dict[Seat, Answer] = {}
        self._leads: dict[Seat, Epoch | None] = {}

    @property
    def number(self) -> int:
        """Of the newest question."""
        return self._number

    def tick(self, now: float) -> PlannerEffects:
        """Time has passed."""
        effects = PlannerEffects()
        slept, self._ticked_at = now - self._ticked_at - self._limits.answers_s, now
        if slept > 0:
            self._led_at += slept
            if not self._waits_again:
                self._waits_again, self._since = True, now
        waited = now - self._since
        if self._phase is _Phase.IDLE:
            if waited >= self._limits.round_s:
                self._phase, self._since = _Phase.READING, now
                self._waits_again = False
                effects.read = True
        elif waited >= self._limits.answers_s or (
            self._phase is not _Phase.READING and len(self._answers) == self._replicas
        ):
            phase, self._phase, self._since = self._phase, _Phase.IDLE, now
            if self._record is not None and phase is _Phase.ASKING:
                self._decide(self._record, now, effects)
            elif self._record is not None and phase is _Phase.RESERVING:
                self._recover(self._record, effects)
        return effects

    def record_read(self, record: Record | None, now: float) -> PlannerEffects:
        """The quorum read that was asked for.  Without a record nothing is planned: it has been
        lost, and a person says what it was."""
        effects = PlannerEffects()
        if self._phase is _Phase.READING and record is not None:
            self._record = record
            self._ask(_Phase.ASKING, now)
            effects.ask = Ask(self._number)
        return effects

    def told(self, message: Told) -> None:
        """A replica has answered.  One whose disk hangs neither leads nor is chosen to."""
        if message.number == self._number and message.flush_age_s < self._limits.silence_s:
            self._answers[message.seat] = message.answer
            self._leads[message.seat] = message.leads

    def swap_answered(self, swap: Swap, current: Record | None) -> PlannerEffects:
        """The outcome of a swap.  Only one that is known won is told to its holder; the next round
        finds out about the others."""
        return PlannerEffects(lead=Lead(swap.new) if current == swap.new else None)

    def _ask(self, phase: _Phase, now: float) -> None:
        self._phase, self._since = phase, now
        self._waits_again = False
        self._number += 1
        self._answers, self._leads = {}, {}

    def _decide(self, record: Record, now: float, effects: PlannerEffects) -> None:
        holder = record.holder
        answer = self._answers.get(holder.seat)
        behind = any(
            promises.is_behind(record, one.promise, self._cluster_uid)
            for one in self._answers.values()
        )
        if not behind and answer is not None and answer.start == holder.start:
            if self._leads[holder.seat] == record.epoch and not self._split(record):
                self._led_at, self._refused = now, 0
                return
            effects.lead = Lead(record)  # It was in force when it was read.
        if not behind and now - self._led_at < self._limits.silence_s:
            return
        plan = promotion.plan_failover(
            record,
            self._answers,
            cluster_uid=self._cluster_uid,
            only=self._only,
        )
        if isinstance(plan, Record):
            self._refused = 0
            effects.swap = Swap(record, plan)
        elif plan in {Refused.UNSETTLED, Refused.ROLLED_BACK}:
            self._refused += 1
            believed = 2 if plan is Refused.ROLLED_BACK else 1
            if self._refused >= believed + self._patience:
                self._reserve(record, now, effects)

    def _split(self, record: Record) -> bool:
        """Whether a disk has sworn this epoch to another candidate, which a record that went back
        had named: it obeys nobody before the next epoch."""
        return any(
            one.promise.epoch == record.epoch and one.promise.holder not in {None, record.holder}
            for one in self._answers.values()
        )

    def _reserve(self, record: Record, now: float, effects: PlannerEffects) -> None:
        self._epoch = promotion.recovery_epoch(record, self._answers)
        self._ask(_Phase.RESERVING, now)
        effects.ask = Reserve(self._number, self._epoch)

    def _recover(self, record: Record, effects: PlannerEffects) -> None:
        sworn = {
            seat: answer
            for seat, answer in self._answers.items()
            if answer.promise.epoch == self._epoch and answer.promise.holder is None
        }
        plan = promotion.plan_recovery(record, self._epoch, sworn)
        if isinstance(plan, Record):
            effects.swap = Swap(record, plan)
