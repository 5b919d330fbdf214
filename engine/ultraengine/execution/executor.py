"""The deterministic heart of a shard: commands in, outcomes out, one writer, no locks.

`Executor.execute` decides and evolves a command that is durable and committed.
`Executor.replay` evolves a recorded outcome; no user decision runs.  Both end in the same
state, which is what recovery and replication rest on (requirement 001 §1.3, §1.5).

Nothing here waits, reads a clock or touches a file.  The executor mutates the state that
it owns and returns values; drivers do the rest.
"""

import heapq
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import msgspec

from ultraengine.execution import system
from ultraengine.execution.carried import CARRIED, CarriedHistory
from ultraengine.execution.context import CommandContext, EventPlace
from ultraengine.execution.lasting import evolve_lasting
from ultraengine.execution.moves import Moves, NoMoves
from ultraengine.execution.pipeline import (
    NO_EVENTS,
    AfterHook,
    EvolveFailed,
    NoDomain,
    Verdict,
    internal,
    other_version,
)
from ultraengine.execution.registry import Admitted, Handler, Registry
from ultraengine.execution.slots import SlotImage
from ultraengine.execution.stores import Dedupe, HistoryStore
from ultraengine.model.command import Command, identity_hash, run_end
from ultraengine.model.domain import History, Recorded
from ultraengine.model.errors import InvariantBroken
from ultraengine.model.ids import Epoch, Instant, Offset, ShardId, SlotId, slot_of
from ultraengine.model.outcome import EMPTY_ARRAY, NIL, Outcome, Status

_ENCODER: Final = msgspec.msgpack.Encoder()
_Raw: Final = msgspec.Raw
# Bound once: the hot path reads it with every command.


class Executor:
    """State and execution of one shard."""

    def __init__(
        self,
        registry: Registry,
        shard: ShardId,
        *,
        dedupe: Dedupe,
        history: HistoryStore,
        moves: Moves | None = None,
    ) -> None:
        self.moves = NoMoves() if moves is None else moves
        self.registry = registry
        self.shard = shard
        self.dedupe = dedupe
        self.history = history
        self.slots: dict[int, SlotImage] = {}
        self.applied_end = Offset(0)
        """First offset not executed yet."""
        self.time = Instant(0)
        """Stamped time of the last executed command."""
        self.epoch = Epoch(0)
        self.epoch_handlers: dict[str, int] = {}
        """Handler versions as the last epoch start announced them."""
        self.skipped: set[int] = set()
        """Offsets that a person has overridden."""
        self.after: tuple[AfterHook, ...] = ()
        """Told of each command.  Nobody is where commands are decided again: at a start, to prove a
        snapshot, to validate; who serves sets it (`shard.machine`)."""
        self.consumers: dict[str, int] = {}
        """Consumer slots of the feed: everything below the offset is confirmed."""
        self.moves_only = (0, 0)
        """The newest offsets that hold nothing but moves of consumers; no part of the state."""
        self.hook_failures = 0
        self.before_mutation: Callable[[SlotId], None] | None = None
        """Set while a cooperative snapshot needs slots as they are."""
        self._timers: list[tuple[int, int, int]] = []
        """Heap of (due, slot, domain index); entries that a slot no longer holds are stale."""
        self._place = EventPlace()
        self._contexts = tuple(
            CommandContext(shard, history.view(domain.name, lambda: self.applied_end), domain)
            for domain in registry.domains
        )
        self._empty = tuple(domain.new_state() for domain in registry.domains)

    # --- state ---------------------------------------------------------------------------

    def slot(self, slot: int) -> SlotImage:
        """The image of a slot, made when it is first asked for."""
        image = self.slots.get(slot)
        if image is None:
            image = self.slots[slot] = SlotImage(len(self.registry.domains))
        return image

    def state(self, slot: int, domain_index: int) -> Any:
        """A domain's state of a slot, made when it is first asked for."""
        image = self.slot(slot)
        state = image.states[domain_index]
        if state is None:
            state = image.states[domain_index] = self.registry.domains[domain_index].new_state()
        return state

    def slot_state(self, domain: str, tenant: str, key: str) -> Any:
        """Committed state of the slot of (tenant, key), to read; an empty one when unused."""
        index = self.registry.domain_index[domain]
        image = self.slots.get(slot_of(tenant, key))
        state = None if image is None else image.states[index]
        return self._empty[index] if state is None else state

    def version(self, tenant: str, key: str) -> int:
        """Number of accepted commands of an aggregate."""
        image = self.slots.get(slot_of(tenant, key))
        return 0 if image is None else image.versions.get((tenant, key), 0)

    # --- execution -----------------------------------------------------------------------

    def execute(self, admitted: Admitted, offset: Offset, time: Instant, epoch: Epoch) -> Verdict:
        """Decide and evolve the command at `offset`, which must be `applied_end`.

        Raises `EvolveFailed` when ``evolve`` raises: the shard halts and the state is void.
        """
        if offset != self.applied_end or time < self.time:
            raise self._out_of_order(offset, time)
        command, handler = admitted.command, admitted.handler
        if handler is None:
            verdict = self._execute_system(command, offset, time, epoch)
        else:
            slot = admitted.slot
            if self.before_mutation is not None:
                self.before_mutation(slot)
            image = self.slots.get(slot)
            if image is None:
                image = self.slot(slot)
            verdict = self._decide(handler, admitted, image, offset, time, epoch)
            self.dedupe.add(slot, admitted.identity, offset)
        self.applied_end += 1  # type: ignore[assignment]  # A call of Offset costs as much as a struct.
        self.time = time
        return verdict

    def _out_of_order(self, offset: Offset, time: Instant) -> InvariantBroken:
        if offset != self.applied_end:
            return InvariantBroken(
                "commands execute in order", offset=offset, applied_end=self.applied_end
            )
        return InvariantBroken("time never goes back", offset=offset, time=time, before=self.time)

    def _decide(
        self,
        handler: Handler,
        admitted: Admitted,
        image: SlotImage,
        offset: Offset,
        time: Instant,
        epoch: Epoch,
    ) -> Verdict:
        command = admitted.command
        tenant, key = name = command.tenant, command.key
        version = image.versions.get(name, 0)
        expected = command.expected_version
        if expected is not None and expected != version:
            return other_version(offset, expected, version)
        index = handler.domain_index
        context, place = self._contexts[index], self._place
        if context.used:
            context.renew()
        context.time = place.time = time
        context.offset = place.offset = offset
        if image.lineage is not None or context.lineage is not None:
            self._go_by_positions(image, index, context)
        context.epoch = epoch
        context.tenant = place.tenant = tenant
        context.key = place.key = key
        context.principal = command.principal
        state = image.states[index]
        if state is None:
            state = image.states[index] = handler.domain.new_state()
        image.changed = True
        try:
            focus = handler.focus(state, tenant, key)
        except Exception as error:  # noqa: BLE001  (a poison command must not stop the shard)
            verdict = internal(error)
        else:
            verdict = handler.run(focus, command, admitted.payload, context, place)
        events, messages = EMPTY_ARRAY, NIL
        if verdict.changed:
            version += 1
            image.versions[name] = version
            image.versions_changed.add(name)
            recorded = verdict.events
            if recorded is not NO_EVENTS:
                self.history.append(offset, handler.domain_name, recorded)
                events = _Raw(recorded)
            if context.messages:
                messages = _Raw(_ENCODER.encode(context.messages))
        due = handler.due(state)
        if due != image.due[index]:
            self._schedule(image, admitted.slot, index, due)
        verdict.outcome = Outcome(
            offset,
            verdict.status,
            version,
            verdict.raw_result,
            events,
            verdict.failure,
            messages,
        )
        for hook in self.after:
            self._observe(hook, command, verdict)
        return verdict

    def _go_by_positions(self, image: SlotImage, index: int, context: CommandContext) -> None:
        """Of a slot that has moved here, or the first of another one after it."""
        context.offset = self._place.offset = image.placed(context.offset)
        if image.lineage is not context.lineage:
            context.lineage = image.lineage
            context.history = self.history_of(image, index, lambda: self.applied_end)

    def _observe(self, hook: AfterHook, command: Command, verdict: Verdict) -> None:
        try:
            hook(command, verdict)
        except Exception:  # noqa: BLE001  (an observer may not change what it observes)
            self.hook_failures += 1

    def history_of(
        self, image: SlotImage | None, index: int, visible_end: Callable[[], int]
    ) -> History:
        """Reads of a domain's history as a slot sees it: by the positions that it keeps."""
        domain = self.registry.domains[index].name
        own = self.history.view(domain, visible_end)
        if image is None or image.lineage is None:
            return own
        carried = self.history.view(CARRIED, visible_end)
        return CarriedHistory(domain, image.lineage, own, carried, self.registry.decoders)

    # --- timers --------------------------------------------------------------------------

    def _schedule(self, image: SlotImage, slot: int, index: int, due: Instant | None) -> None:
        image.due[index] = due
        if due is not None:
            heapq.heappush(self._timers, (due, slot, index))

    def next_due(self) -> tuple[Instant, str] | None:
        """The earliest timer of the shard and its domain; None when there is none."""
        while self._timers:
            due, slot, index = self._timers[0]
            image = self.slots.get(slot)
            if image is not None and image.due[index] == due:
                return Instant(due), self.registry.domains[index].name
            heapq.heappop(self._timers)
        return None

    def reschedule(self) -> None:
        """Build the timers anew from the slots, after they were loaded."""
        self._timers = []
        for slot, image in sorted(self.slots.items()):
            self.wake(slot, image)

    def wake(self, slot: int, image: SlotImage) -> None:
        """Let the timers of a slot run, unless it sleeps."""
        for index, state in enumerate(image.states):
            if state is not None and not image.asleep:
                self._schedule(image, slot, index, self.registry.domains[index].due(state))

    def _expire(self, tick: system.Tick, offset: Offset, time: Instant) -> list[Any]:
        """Expire due timers of one domain, in order of (due, slot); returns the triples."""
        index = self.registry.domain_index[tick.domain]
        domain = self.registry.domains[index]
        others: list[tuple[int, int, int]] = []
        expired: list[tuple[str, str, Any]] = []
        while self._timers and len(expired) < tick.count_max:
            due, slot, owner = self._timers[0]
            if due > time:
                break
            heapq.heappop(self._timers)
            image = self.slots.get(slot)
            if image is None or image.due[owner] != due:
                continue
            if owner != index:
                others.append((due, slot, owner))
                continue
            image.due[index] = None  # Rescheduled by what its expiries leave.
            batch = domain.expire(image.states[index], time, tick.count_max - len(expired))
            if not batch:
                raise EvolveFailed("a due timer expires", offset=offset, slot=slot, due=due)
            self._evolve_triples(index, batch, offset, time, len(expired))
            expired.extend(batch)
        for entry in others:
            heapq.heappush(self._timers, entry)
        return expired

    def _evolve_triples(
        self,
        index: int,
        triples: Sequence[tuple[str, str, Any]],
        offset: Offset,
        time: Instant,
        first: int,
    ) -> None:
        domain, place = self.registry.domains[index], self._place
        place.time = time
        for position, (tenant, key, event) in enumerate(triples):
            slot = slot_of(tenant, key)
            if self.before_mutation is not None:
                self.before_mutation(slot)
            state = self.state(slot, index)
            place.offset = self.slots[slot].placed(offset)
            place.index, place.tenant, place.key = first + position, tenant, key
            try:
                domain.evolve(domain.focus(state, tenant, key), event, place)
            except Exception as error:
                raise EvolveFailed("evolve may not fail", offset=offset) from error
            image = self.slots[slot]
            image.changed = True
            due = domain.due(state)
            if due != image.due[index]:
                self._schedule(image, slot, index, due)

    # --- system commands -----------------------------------------------------------------

    def _execute_system(
        self, command: Command, offset: Offset, time: Instant, epoch: Epoch
    ) -> Verdict:
        data = system.system_data(command)
        events = EMPTY_ARRAY
        if isinstance(data, system.Tick):
            triples = self._expire(data, offset, time)
            events = self._record_expiries(data.domain, triples, offset)
        else:
            evolve_lasting(self, data, offset)
        if epoch < self.epoch:
            raise InvariantBroken("epochs only grow", epoch=epoch, before=self.epoch)
        verdict = Verdict(Status.ACCEPTED)
        verdict.outcome = Outcome(offset, verdict.status, 0, NIL, events)
        return verdict

    def _record_expiries(self, domain: str, triples: list[Any], offset: Offset) -> msgspec.Raw:
        if not triples:
            return EMPTY_ARRAY
        self.history.append(offset, domain, _ENCODER.encode([event for _, _, event in triples]))
        return msgspec.Raw(_ENCODER.encode(triples))

    # --- replay --------------------------------------------------------------------------

    def replay_group(
        self, commands: list[Command], outcomes: list[Outcome], *, time: Instant, epoch: Epoch
    ) -> None:
        """`replay` of commands of one group, many at once if possible; as many outcomes."""
        index, count = 0, len(commands)
        if len(outcomes) != count:
            raise InvariantBroken(
                "every command has one outcome", commands=count, outcomes=len(outcomes)
            )
        while index < count:
            stop = run_end(commands, index)
            self._replay_run(commands, outcomes, index, stop, time, epoch)
            index = stop

    def _replay_run(
        self,
        commands: list[Command],
        outcomes: list[Outcome],
        index: int,
        stop: int,
        time: Instant,
        epoch: Epoch,
    ) -> None:
        """Commands of one type, tenant and key: by their lane as far as it goes, then one."""
        handler = self.registry.handler(commands[index].type, commands[index].tenant)
        here = range(self.applied_end, self.applied_end + stop - index)
        overridden = bool(self.skipped) and not self.skipped.isdisjoint(here)
        lane = None if handler is None or overridden else handler.recorded
        while index < stop:
            events = 0
            # Of what was rejected nothing may be looked up: that may be why it was rejected.
            ordinary = outcomes[index].status == Status.ACCEPTED and time >= self.time
            if ordinary and lane is not None and handler is not None:
                done, events = self._take(handler, lane, commands, outcomes, index, stop, time)
                index += done
            if index < stop:
                one, outcome = commands[index], outcomes[index]
                self.replay(one, outcome, time=time, epoch=epoch, evolved=events)
                index += 1
        if epoch < self.epoch:
            raise InvariantBroken("epochs only grow", epoch=epoch, before=self.epoch)

    def _take(
        self,
        handler: Handler,
        lane: Recorded,
        commands: list[Command],
        outcomes: list[Outcome],
        index: int,
        stop: int,
        time: Instant,
    ) -> tuple[int, int]:
        """(commands that the lane has replayed whole, events evolved of the one behind them)."""
        offset, place = self.applied_end, self._place
        tenant, key = place.tenant, place.key = commands[index].tenant, commands[index].key
        slot, domain = slot_of(tenant, key), handler.domain
        image, state = self.slot(slot), self.state(slot, handler.domain_index)
        if image.lineage is not None:
            return 0, 0  # A lane places by offsets, and such a slot keeps positions.
        place.offset, place.time, place.index = offset, time, 0
        try:
            focus = domain.focus(state, tenant, key)
            done, events = lane(focus, outcomes, index, stop, place)
        except Exception as error:
            raise EvolveFailed("a recorded event evolves", offset=offset) from error
        if not done:
            return 0, events
        end = index + done
        identities = [identity_hash(tenant, one.id) for one in commands[index:end]]
        self.dedupe.add_run(slot, identities, offset)
        payloads = [bytes(one.events) for one in outcomes[index:end]]
        self.history.append_run(offset, domain.name, payloads)
        image.accept(tenant, key, outcomes[end - 1].version)
        image.changed = True
        self.applied_end, self.time = Offset(offset + done), time
        return done, events

    def replay(
        self, command: Command, outcome: Outcome, *, time: Instant, epoch: Epoch, evolved: int = 0
    ) -> None:
        """Evolve a recorded outcome, but for its first `evolved` events, which are.

        Raises `EvolveFailed` when ``evolve`` fails or this build cannot read the events, with
        the offset in its facts.
        """
        offset = Offset(outcome.offset)
        if offset != self.applied_end or time < self.time:
            raise self._out_of_order(offset, time)
        if system.is_system(command):
            self._replay_system(command, outcome, offset, time)
        else:
            self._replay_domain(command, outcome, offset, time, evolved)
        self.applied_end = Offset(offset + 1)
        self.time = time
        if epoch < self.epoch:
            raise InvariantBroken("epochs only grow", epoch=epoch, before=self.epoch)

    def _replay_domain(
        self, command: Command, outcome: Outcome, offset: Offset, time: Instant, evolved: int
    ) -> None:
        slot = slot_of(command.tenant, command.key)
        self.dedupe.add(slot, identity_hash(command.tenant, command.id), offset)
        image = self.slot(slot)
        if outcome.status != Status.ACCEPTED or offset in self.skipped:
            return
        index = self.registry.domain_index.get(command.type.partition(".")[0])
        if index is None:
            raise NoDomain("no domain for a recorded command", offset=offset, type=command.type)
        if outcome.version != image.versions.get((command.tenant, command.key), 0):
            image.accept(command.tenant, command.key, outcome.version)
        image.changed = True
        raw = bytes(outcome.events)
        if raw == b"\x90":
            return
        domain, place = self.registry.domains[index], self._place
        state = self.state(slot, index)
        place.offset, place.time = image.placed(offset), time
        place.tenant, place.key = command.tenant, command.key
        try:
            focus = domain.focus(state, command.tenant, command.key)
            events = self.registry.events[index].decode(raw)
            for position in range(evolved, len(events)):
                place.index = position
                domain.evolve(focus, events[position], place)
        except Exception as error:
            raise EvolveFailed("a recorded event evolves", offset=offset) from error
        self.history.append(offset, domain.name, raw)
        due = domain.due(state)
        if due != image.due[index]:
            self._schedule(image, slot, index, due)

    def _replay_system(
        self, command: Command, outcome: Outcome, offset: Offset, time: Instant
    ) -> None:
        data = system.system_data(command)
        if not isinstance(data, system.Tick):
            evolve_lasting(self, data, offset)
        elif bytes(outcome.events) != b"\x90" and offset not in self.skipped:
            index = self.registry.domain_index[data.domain]
            triples = self.registry.expiries[index].decode(outcome.events)
            self._evolve_triples(index, triples, offset, time, 0)
            self._record_expiries(data.domain, triples, offset)

    # --- queries -------------------------------------------------------------------------

    def check(self) -> Iterator[str]:
        """Broken invariants of all domains, slot by slot, as sentences."""
        for slot, image in sorted(self.slots.items()):
            for domain, state in zip(self.registry.domains, image.states, strict=True):
                if state is not None:
                    for sentence in domain.check(state):
                        yield f"{domain.name}, slot {slot}: {sentence}"
