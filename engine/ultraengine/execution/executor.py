"""The deterministic heart of a shard: commands in, outcomes out, one writer, no locks.

`Executor.execute` decides and evolves a command that is durable and committed.
`Executor.replay` evolves a recorded outcome; no user decision runs.  Both end in the same
state, which is what recovery and replication rest on (requirement 001 §1.3, §1.5).

Nothing here waits, reads a clock or touches a file.  The executor mutates the state that
it owns and returns values; drivers do the rest.
"""

import heapq
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, Protocol

import msgspec

from ultraengine.execution import system
from ultraengine.execution.carried import CARRIED, CarriedHistory
from ultraengine.execution.context import CommandContext, EventPlace
from ultraengine.execution.moves import Moves, NoMoves
from ultraengine.execution.pipeline import NO_EVENTS, AfterHook, EvolveFailed, Verdict, internal
from ultraengine.execution.registry import Admitted, Handler, Registry
from ultraengine.execution.slots import SlotImage
from ultraengine.model.command import Command, identity_hash
from ultraengine.model.domain import History
from ultraengine.model.errors import InvariantBroken
from ultraengine.model.ids import Epoch, Instant, Offset, ShardId, SlotId, slot_of
from ultraengine.model.outcome import EMPTY_ARRAY, NIL, Failure, Outcome, Status

_ENCODER: Final = msgspec.msgpack.Encoder()
_Raw: Final = msgspec.Raw
# Bound once: the hot path reads it with every command.


class Dedupe(Protocol):
    """The idempotency memory (`execution/dedup.py`), grouped by slot."""

    def find(self, slot: int, identity: bytes, /) -> tuple[int, ...]:
        """Offsets of commands that may have this identity, newest first."""

    def add(self, slot: int, identity: bytes, offset: int, /) -> None:
        """Remember a command."""

    def raise_floor(self, offset: int, /) -> None:
        """Forget commands below `offset`; a logged decision."""

    def drop_slot(self, slot: int, offset: int, /) -> None:
        """Forget commands of one slot below `offset`: it has left this shard."""

    def advance(self, time: Instant, offset_end: Offset, /) -> None:
        """A group ended: forget what is older than the window, at the same place everywhere."""

    @property
    def floor_time(self) -> Instant:
        """Ids made before this may have been forgotten; 0 while nothing was."""

    @property
    def floor_offset(self) -> Offset:
        """Commands below this offset may have been forgotten; 0 while none was."""


class HistoryStore(Protocol):
    """Where accepted events are kept for ever (`execution/history.py`)."""

    def append(self, offset: int, domain: str, payload: bytes, /) -> None:
        """Keep the encoded events of the command at `offset`; buffered, never waits."""

    def view(self, domain: str, visible_end: Callable[[], int], /) -> History:
        """Reads of one domain, below the offset that `visible_end` gives at the time."""


def _other_version(offset: Offset, expected: int, version: int) -> Verdict:
    verdict = Verdict(Status.REJECTED)
    verdict.failure = Failure(
        "VERSION_MISMATCH",
        f"expected version {expected}, found {version}",
        "/expected_version",
        version,
    )
    verdict.outcome = Outcome(offset, verdict.status, version, NIL, EMPTY_ARRAY, verdict.failure)
    return verdict


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
            CommandContext(shard, history.view(domain.name, lambda: self.applied_end))
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
            return _other_version(offset, expected, version)
        index = handler.domain_index
        context, place = self._contexts[index], self._place
        if context.used:
            context.renew()
        context.time = place.time = time
        context.offset = place.offset = offset
        lineage = image.lineage
        if lineage is not None:
            context.offset = place.offset = Offset(offset + lineage.base)
        if lineage is not context.lineage:
            context.lineage = lineage
            context.history = self.history_of(image, index, lambda: self.applied_end)
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
        events = EMPTY_ARRAY
        if verdict.changed:
            version += 1
            image.versions[name] = version
            image.versions_changed.add(name)
            recorded = verdict.events
            if recorded is not NO_EVENTS:
                self.history.append(offset, handler.domain_name, recorded)
                events = _Raw(recorded)
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
            self._messages(verdict, context) if context.messages else NIL,
        )
        for hook in self.after:
            self._observe(hook, command, verdict)
        return verdict

    @staticmethod
    def _messages(verdict: Verdict, context: CommandContext) -> msgspec.Raw:
        """Messages of accepted commands; a command that changed nothing sends nothing."""
        if not verdict.changed:
            return NIL
        return msgspec.Raw(_ENCODER.encode(context.messages))

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
            lineage = self.slots[slot].lineage
            place.offset = offset if lineage is None else Offset(offset + lineage.base)
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
            self._evolve_system(data, offset)
        if epoch < self.epoch:
            raise InvariantBroken("epochs only grow", epoch=epoch, before=self.epoch)
        verdict = Verdict(Status.ACCEPTED)
        verdict.outcome = Outcome(offset, verdict.status, 0, NIL, events)
        return verdict

    def _evolve_system(self, data: system.Lasting, offset: int) -> None:
        """What the engine has decided, by the command's own words: there are no events."""
        if isinstance(data, system.EpochStart):
            self.epoch = Epoch(data.epoch)
            self.epoch_handlers = dict(data.handlers)
        elif isinstance(data, system.Skip):
            self.skipped.add(data.offset)
        elif isinstance(data, system.RaiseFloor):
            self.dedupe.raise_floor(data.offset)
        elif isinstance(data, system.MoveConsumer):
            if data.offset > self.consumers.get(data.name, -1):
                self.consumers[data.name] = data.offset
            first, end = self.moves_only
            self.moves_only = (first if end == offset else offset, offset + 1)
        elif isinstance(data, system.StepSlot | system.FillSlot):
            self.moves.evolve(self, data, offset)
        else:
            self.consumers.pop(data.name, None)

    def _record_expiries(self, domain: str, triples: list[Any], offset: Offset) -> msgspec.Raw:
        if not triples:
            return EMPTY_ARRAY
        self.history.append(offset, domain, _ENCODER.encode([event for _, _, event in triples]))
        return msgspec.Raw(_ENCODER.encode(triples))

    # --- replay --------------------------------------------------------------------------

    def replay(self, command: Command, outcome: Outcome, *, time: Instant, epoch: Epoch) -> None:
        """Evolve a recorded outcome.

        Raises `EvolveFailed` when ``evolve`` fails or this build cannot read the events, with
        the offset in its facts.
        """
        offset = Offset(outcome.offset)
        if offset != self.applied_end or time < self.time:
            raise self._out_of_order(offset, time)
        if system.is_system(command):
            self._replay_system(command, outcome, offset, time)
        else:
            self._replay_domain(command, outcome, offset, time)
        self.applied_end = Offset(offset + 1)
        self.time = time
        if epoch < self.epoch:
            raise InvariantBroken("epochs only grow", epoch=epoch, before=self.epoch)

    def _replay_domain(
        self, command: Command, outcome: Outcome, offset: Offset, time: Instant
    ) -> None:
        slot = slot_of(command.tenant, command.key)
        self.dedupe.add(slot, identity_hash(command.tenant, command.id), offset)
        image = self.slot(slot)
        if outcome.status != Status.ACCEPTED or offset in self.skipped:
            return
        index = self.registry.domain_index.get(command.type.partition(".")[0])
        if index is None:
            raise EvolveFailed("no domain for a recorded command", offset=offset, type=command.type)
        if outcome.version != image.versions.get((command.tenant, command.key), 0):
            image.accept(command.tenant, command.key, outcome.version)
        image.changed = True
        raw = bytes(outcome.events)
        if raw == b"\x90":
            return
        domain, place = self.registry.domains[index], self._place
        state = self.state(slot, index)
        lineage = image.lineage
        place.offset = offset if lineage is None else Offset(offset + lineage.base)
        place.time = time
        place.tenant, place.key = command.tenant, command.key
        try:
            focus = domain.focus(state, command.tenant, command.key)
            for position, event in enumerate(self.registry.events[index].decode(raw)):
                place.index = position
                domain.evolve(focus, event, place)
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
            self._evolve_system(data, offset)
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
