"""The pure step of a shard: who is next, in which group, and what everybody is told.

    accept    admitted commands -> waiting, joined, refused, or to be verified
    form      waiting -> one group with offsets and a stamped time (nothing is executed)
    execute   a group that is durable and committed -> outcomes and answers
    unwritten outcomes travel with the next group's write

Offsets are assigned when a group is formed and taken back when its frame could not be
written, so they stay dense.  The machine mutates what it owns and touches nothing else.
"""

from collections import deque
from collections.abc import Sequence
from typing import Final

import msgspec

from ultraengine.execution.executor import Executor
from ultraengine.execution.registry import Admitted
from ultraengine.execution.system import TICK, SystemData, Tick, system_command, system_data
from ultraengine.log.frame import FrameDraft, FrameKind
from ultraengine.model.command import Command, fingerprint, identity_hash
from ultraengine.model.errors import EngineError, InvariantBroken
from ultraengine.model.ids import Epoch, Instant, Offset, slot_of
from ultraengine.model.limits import Limits
from ultraengine.model.outcome import Outcome
from ultraengine.model.policy import LogSerializer, SchedulingPolicy
from ultraengine.model.reply import DurabilityName, Durable, Reply
from ultraengine.reply import compose
from ultraengine.reply.recorded import Name, Recorded, name_of
from ultraengine.reply.waiters import Ticket
from ultraengine.shard.choosing import choose
from ultraengine.shard.eager import Held
from ultraengine.shard.effects import (
    Accepting,
    Answer,
    Executing,
    Group,
    Pending,
    answers_of,
    handler_alarm,
)
from ultraengine.shard.mailbox import refusal_of
from ultraengine.shard.ownership import Ownership
from ultraengine.shard.placement import Placement
from ultraengine.shard.unrecorded import Unrecorded, outcome_drafts

BYTES_PER_UNIT: Final = 64
"""Command data of this length counts as one unit of work: about one transfer."""

GIVEN_UP_RETRY_AFTER_S: Final = 5.0


class Machine:
    """Order, groups, idempotency and answers of one shard."""

    def __init__(
        self,
        executor: Executor,
        serializer: LogSerializer,
        limits: Limits,
        *,
        epoch: Epoch,
        policy: DurabilityName,
        group_bytes_max: int,
        scheduling: SchedulingPolicy | None = None,
        ownership: Ownership | None = None,
        eager: bool = False,
    ) -> None:
        """`eager`: outcomes are durable before anybody is told of them."""
        self.executor = executor
        # From here on commands are executed for the first time.
        executor.after = executor.registry.after
        self.limits = limits
        self.epoch = epoch
        self.placement = Placement(executor, ownership)
        """Which slots it takes commands of."""
        self.log_end = executor.applied_end
        """Next offset to assign."""
        self.durable_end = executor.applied_end
        """First offset that is not known to be durable here."""
        self.time = executor.time
        """Stamped time of the last formed group."""
        self.waiting: deque[Pending] = deque()
        self.waiting_bytes = 0
        self.in_flight: dict[Name, Pending] = {}
        """From acceptance to the answer."""
        self.unwritten: deque[FrameDraft] = deque()
        """OUTCOMES frames for the next write."""
        self.unrecorded = Unrecorded()
        """By offset: executed, and the outcome is not durable yet."""
        self.eager, self.held = eager, Held()
        self._serializer = serializer
        self._scheduling = scheduling
        self._group_bytes_max = min(group_bytes_max, limits.group_bytes_max)
        self.durable = Durable(policy, local=policy != "async", replicas=int(policy != "async"))
        """What replies say: only the `async` policy answers before the flush."""
        self.repeat_durable = Durable(policy, local=True, replicas=1)
        self._urgent: deque[SystemData] = deque()
        self._tick_formed = False
        """Whether a formed tick waits for its execution: one at a time per shard."""

    # --- accept --------------------------------------------------------------------------

    def accept(
        self,
        admitted: Sequence[Admitted],
        ticket: Ticket,
        first_index: int,
        closed: EngineError | None,
    ) -> Accepting:
        """Take commands in order.  `closed` refuses new ones; retries get their answer still."""
        effects = Accepting()
        in_flight = self.in_flight
        waiting, limits = self.waiting, self.limits
        dedupe = self.executor.dedupe
        find, nobody_refused = dedupe.find, closed is None and dedupe.floor_time <= 0
        foreign, carried = self.placement.foreign, self.placement.carried
        index = first_index
        for one in admitted:
            command = one.command
            if foreign is not None and foreign[one.slot]:
                reply = compose.refused(command.id, self.placement.error(one.slot))
                effects.answers.append(Answer(ticket, index, reply))
                index += 1
                continue
            name = (command.tenant, command.key, command.id)
            first = in_flight.get(name)
            if first is not None:
                self._join(first, one, ticket, index, effects)
            else:
                pending = Pending(one, ticket, index)
                try:
                    candidates = find(one.slot, one.identity)
                    if carried:
                        candidates += self.placement.candidates(one.slot, one.identity)
                except Exception as damage:  # noqa: BLE001  (spilled ids are read from files)
                    rest = admitted[index - first_index :]
                    return self._unreadable(effects, rest, ticket, index, damage)
                if candidates:
                    self._check_retry(pending, candidates, effects)
                else:
                    error = None
                    if not (
                        nobody_refused
                        and len(waiting) < limits.mailbox_commands_max
                        and self.waiting_bytes < limits.mailbox_bytes_max
                    ):
                        error = closed or self._refusal(one)
                    if error is None:
                        in_flight[name] = pending
                        waiting.append(pending)
                        self.waiting_bytes += len(command.data)
                    else:
                        effects.answers.append(
                            Answer(ticket, index, compose.refused(command.id, error))
                        )
            index += 1
        return effects

    def _unreadable(
        self,
        effects: Accepting,
        rest: Sequence[Admitted],
        ticket: Ticket,
        index: int,
        error: Exception,
    ) -> Accepting:
        """Whether these were done before cannot be known: none of them is taken."""
        closed = EngineError("the memory of ids cannot be read", code="SHARD_UNAVAILABLE")
        for position, one in enumerate(rest, index):
            reply = compose.refused(one.command.id, closed)
            effects.answers.append(Answer(ticket, position, reply))
        effects.failed = error
        return effects

    def _refusal(self, one: Admitted) -> EngineError | None:
        return refusal_of(
            one.command,
            self.limits,
            waiting=len(self.waiting),
            waiting_bytes=self.waiting_bytes,
            floor_time=self.executor.dedupe.floor_time,
        )

    def _join(
        self, first: Pending, one: Admitted, ticket: Ticket, index: int, effects: Accepting
    ) -> None:
        if first.admitted.fingerprint != one.fingerprint:
            if first.rivals is not None:
                first.rivals.append(Pending(one, ticket, index))
                return
            effects.answers.append(Answer(ticket, index, compose.mismatch(one.command.id)))
        elif first.joined is None:
            first.joined = [(ticket, index)]
        else:
            first.joined.append((ticket, index))

    def _check_retry(
        self, pending: Pending, candidates: tuple[int, ...], effects: Accepting
    ) -> None:
        """A hit of the packed index: an answer when memory has the outcome, else verify."""
        name = name_of(pending.admitted.command)
        for offset in candidates:
            recorded = self.unrecorded.get(offset)
            if recorded is None or name_of(recorded.command) != name:
                continue
            if not self.eager:
                effects.answers.extend(answers_of(pending, self._again(pending, recorded)))
            else:  # Decided again by the recovery, and not written since.
                pending.offset, self.in_flight[name] = Offset(offset), pending
                self.held.add(offset, pending, self._again(pending, recorded))
            return
        self.in_flight[name] = pending
        pending.rivals = []
        effects.verify.append((pending, candidates))

    def verified(
        self, pending: Pending, found: Recorded | None, closed: EngineError | None
    ) -> list[Answer]:
        """What the driver read for a possible retry: its first attempt, or None if it is new."""
        if found is not None:
            del self.in_flight[name_of(pending.admitted.command)]
            everybody = [pending, *(pending.rivals or ())]
            return [
                answer for one in everybody for answer in answers_of(one, self._again(one, found))
            ]
        error = closed or self._refusal(pending.admitted)
        if error is None:
            rivals, pending.rivals = pending.rivals or (), None
            self.waiting.append(pending)
            self.waiting_bytes += len(pending.admitted.command.data)
            wrong = compose.mismatch(pending.admitted.command.id)
            return [answer for one in rivals for answer in answers_of(one, wrong)]
        return self.refuse(pending, error)

    def awaits(self, pending: Pending) -> bool:
        """Whether a command that is being verified has not been given up meanwhile."""
        return self.in_flight.get(name_of(pending.admitted.command)) is pending

    def is_in_flight(self, tenant: str, key: str | None, command_id: str) -> bool:
        """Whether a command is accepted and not answered; without `key`, under any key."""
        if key is not None:
            return (tenant, key, command_id) in self.in_flight
        return any((name[0], name[2]) == (tenant, command_id) for name in self.in_flight)

    def candidates(self, tenant: str, key: str | None, command_id: str) -> tuple[int, ...]:
        """Offsets of logged commands that may be the named one, newest first.

        Without `key` every used slot is asked: a bounded, in-memory fan-out.
        """
        identity = identity_hash(tenant, command_id)

        def find(slot: int) -> tuple[int, ...]:
            own = self.executor.dedupe.find(slot, identity)
            return own + self.placement.candidates(slot, identity)

        if key is not None:
            return find(slot_of(tenant, key))
        found = [offset for slot in sorted(self.executor.slots) for offset in find(slot)]
        return tuple(sorted(found, reverse=True))

    def repeat_reply(self, recorded: Recorded) -> Reply:
        """The reply to a retry of a recorded command."""
        frame = compose.reply_frame(
            shard=self.executor.shard if recorded.shard is None else recorded.shard,
            epoch=recorded.epoch,
            time=recorded.time,
            durable=self.repeat_durable,
        )
        return compose.repeated(recorded.command, recorded.outcome, frame)

    def _again(self, pending: Pending, recorded: Recorded) -> Reply:
        admitted = pending.admitted
        if fingerprint(recorded.command) != admitted.fingerprint:
            return compose.mismatch(admitted.command.id)
        return self.repeat_reply(recorded)

    def refuse(self, pending: Pending, error: EngineError) -> list[Answer]:
        """End a command that was never logged."""
        command = pending.admitted.command
        self.in_flight.pop(name_of(command), None)
        reply = compose.refused(command.id, error)
        everybody = [pending, *(pending.rivals or ())]
        return [answer for one in everybody for answer in answers_of(one, reply)]

    def refuse_waiting(self, error: EngineError) -> list[Answer]:
        """End all commands that wait."""
        answers: list[Answer] = []
        while self.waiting:
            answers.extend(self.refuse(self.waiting.popleft(), error))
        self.waiting_bytes = 0
        return answers

    def give_up(self, why: str) -> list[Answer]:
        """End all commands in flight, which may be durable: nobody will execute them here."""
        answers: list[Answer] = []
        for pending in list(self.in_flight.values()):
            unknown = EngineError(
                why,
                code="OUTCOME_UNKNOWN",
                retry_after_s=GIVEN_UP_RETRY_AFTER_S,
                location=compose.outcome_location(pending.admitted.command),
            )
            answers.extend(self.refuse(pending, unknown))
        return answers

    # --- form ----------------------------------------------------------------------------

    def log_system(self, data: SystemData) -> None:
        """Put an engine's own command at the head of the next group."""
        self._urgent.append(data)

    def due(self, now: Instant) -> bool:
        """Whether a timer is due, so that a group is wanted without a command."""
        if self._urgent:
            return True
        next_due = self.executor.next_due()
        return not self._tick_formed and next_due is not None and next_due[0] <= now

    def form(self, now: Instant) -> Group | None:
        """The next group, or None when nothing waits and no timer is due."""
        time = Instant(max(now, self.time, self.placement.time_min))
        if not self.waiting and not self.due(time):
            return None
        refused = [answer for data in self._urgent for answer in self._let_go(data)]
        own = self._own_commands(time)
        before = sum(len(one.admitted.command.data) for one in own)
        count_max, bytes_max = self.limits.group_commands_max, self._group_bytes_max - before
        chosen, size = choose(self.waiting, self._scheduling, count_max, bytes_max)
        self.waiting_bytes -= size
        pendings = own + chosen
        base = self.log_end
        commands: list[Command] = []
        for offset, pending in enumerate(pendings, base):
            pending.offset = offset  # type: ignore[assignment]  # A call of Offset costs as much as a struct.
            commands.append(pending.admitted.command)
        payload = self._serializer.encode_commands(commands)
        draft = FrameDraft(FrameKind.COMMANDS, base, len(commands), time, payload)
        self.log_end = Offset(base + len(commands))
        self.time = time
        return Group(base, time, pendings, commands, draft, refused)

    def _let_go(self, data: SystemData) -> list[Answer]:
        """Refuse what waits behind a seal, that included whose ids are being looked up."""
        slot = self.placement.enters(data)
        if slot is None:
            return []
        gone = [one for one in self.in_flight.values() if one.is_unlogged_of(slot)]
        self.waiting = deque(one for one in self.waiting if one.admitted.slot != slot)
        self.waiting_bytes = sum(len(one.admitted.command.data) for one in self.waiting)
        error = self.placement.error(slot)
        return [answer for one in gone for answer in self.refuse(one, error)]

    def _own_commands(self, time: Instant) -> list[Pending]:
        datas: list[SystemData] = list(self._urgent)
        self._urgent.clear()
        next_due = self.executor.next_due()
        if next_due is not None and next_due[0] <= time and not self._tick_formed:
            # One tick at a time: the next is decided by what this one leaves.
            datas.append(Tick(next_due[1], self.limits.timers_per_tick_max))
            self._tick_formed = True
        return [
            Pending(Admitted(system_command(data, offset=Offset(offset)), None, None), None, 0)
            for offset, data in enumerate(datas, self.log_end)
        ]

    def undo(self, group: Group, error: EngineError) -> list[Answer]:
        """The group's frame was not written: take its offsets back and refuse its commands.

        The engine's own commands have nobody to send them again: they go into the next group.
        """
        if self.log_end != group.offset_end:
            raise InvariantBroken(
                "only the last group is undone", log_end=self.log_end, group_end=group.offset_end
            )
        self.log_end = group.base_offset
        answers: list[Answer] = []
        own: list[SystemData] = []
        for pending in group.pendings:
            command = pending.admitted.command
            if command.type == TICK:
                self._tick_formed = False
            elif pending.ticket is None:
                own.append(system_data(command))
            answers.extend(self.refuse(pending, error))
        self._urgent.extendleft(reversed(own))
        return answers

    def committed(self, group: Group) -> None:
        """The group's frame is durable wherever it must be: it may be executed."""
        if group.base_offset != self.durable_end:
            raise InvariantBroken(
                "groups commit in order", group=group.base_offset, durable_end=self.durable_end
            )
        self.durable_end = group.offset_end

    # --- execute -------------------------------------------------------------------------

    def execute(self, group: Group, units_max: int) -> Executing:
        """Execute the next part of a durable group: about `units_max` transfers' worth.

        What fails is in ``failed`` of the effects, and the shard halts; the commands before it were
        executed, and their answers are true.
        """
        if group.offset_end > self.durable_end:
            raise InvariantBroken(
                "nothing is executed before it is durable",
                group_end=group.offset_end,
                durable_end=self.durable_end,
            )
        effects = Executing()
        try:
            self._execute_slice(group, units_max, effects)
        except Exception as error:  # noqa: BLE001  (whatever it was, memory is void now)
            effects.failed = error
        return effects

    def _execute_slice(self, group: Group, units_max: int, effects: Executing) -> None:
        frame = compose.reply_frame(
            shard=self.executor.shard, epoch=self.epoch, time=group.time, durable=self.durable
        )
        pendings, units = group.pendings, 0
        time, epoch, outcomes, answers = group.time, self.epoch, group.executed, effects.answers
        execute, in_flight, executed = self.executor.execute, self.in_flight, compose.executed
        if group.next_index == 0:
            self.unrecorded.add(group.base_offset, group.commands, outcomes, epoch, time)
        while group.next_index < len(pendings) and units < units_max:
            pending = pendings[group.next_index]
            group.next_index += 1
            admitted = pending.admitted
            command = admitted.command
            done = execute(admitted, pending.offset, time, epoch)
            outcome = done.outcome
            outcomes.append(outcome)
            units += 1 + len(command.data) // BYTES_PER_UNIT
            if done.error is not None:
                effects.alarms.append(handler_alarm(command, done))
            ticket = pending.ticket
            if ticket is not None:
                reply = executed(command.id, outcome, done.result, frame)
                if self.eager:
                    self.held.add(pending.offset, pending, reply)
                    continue
                del in_flight[command.tenant, command.key, command.id]
                if pending.joined is None:
                    answers.append(Answer(ticket, pending.index, reply))
                else:
                    answers.extend(answers_of(pending, reply))
            elif command.type == TICK:
                self._tick_formed = False
            else:
                self.placement.executed(system_data(command))
        if group.next_index == len(pendings):
            effects.done = True
            self.executor.dedupe.advance(group.time, group.offset_end)
            self.unwritten.extend(self._drafts(group.executed, group.base_offset, group.time))

    def _drafts(self, outcomes: Sequence[Outcome], base: Offset, time: Instant) -> list[FrameDraft]:
        return outcome_drafts(self._serializer, outcomes, base, time, self.limits.frame_bytes_max)

    def adopt(self, redecided: Sequence[Recorded]) -> None:
        """Outcomes that recovery decided again: to be written first, and known to retries."""
        for recorded in redecided:
            offset = Offset(recorded.outcome.offset)
            self.unrecorded.add(
                offset, [recorded.command], [recorded.outcome], recorded.epoch, recorded.time
            )
            # One frame each: they may belong to several frames, and there are few of them.
            self.unwritten.extend(self._drafts([recorded.outcome], offset, recorded.time))

    def take_unwritten(self) -> list[FrameDraft]:
        """OUTCOMES frames to write before the next COMMANDS frame.

        They are stamped with the newest time: a frame's time is never below the one before.
        """
        time = self.time
        drafts = [msgspec.structs.replace(draft, time=time) for draft in self.unwritten]
        self.unwritten.clear()
        return drafts

    def give_back(self, drafts: Sequence[FrameDraft]) -> None:
        """These OUTCOMES frames were not written after all."""
        self.unwritten.extendleft(reversed(drafts))

    def recorded(self, drafts: Sequence[FrameDraft]) -> list[Answer]:
        """These OUTCOMES frames are durable: the log remembers for us now; eager answers leave."""
        answers: list[Answer] = []
        for draft in drafts:
            self.unrecorded.drop(draft.base_offset, draft.count)
            for pending, reply in self.held.below(draft.base_offset + draft.count):
                del self.in_flight[name_of(pending.admitted.command)]
                answers.extend(answers_of(pending, reply))
        return answers

    @property
    def recorded_end(self) -> Offset:
        """First executed offset whose outcome is not durable."""
        return Offset(next(iter(self.unrecorded), self.executor.applied_end))
