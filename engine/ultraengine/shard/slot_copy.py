"""A copy of one slot, made of what its shard has recorded: a replica of that slot alone.

    source        recorded groups -> `parts`: the slot's own commands and expiries, in order
    destination   `SlotCopy.take` evolves them as a recovery does; nothing is decided
    both          `slot_digest`: equal digests are equal states, versions and remembered ids

A batch of parts names the range of the source's offsets that it covers, so one that is repeated or
out of order changes nothing, and a copy that was interrupted goes on at its position.  Parts keep
the source's offsets and the places of events in their command: a domain finds its own positions
in the copy as they were.

Pure.  Not joined to a shard yet (`docs/slot-moves.md`): the copy is held in memory.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final, Protocol

import msgspec

from ultraengine.execution.executor import Executor
from ultraengine.execution.packed import decode_entries, mirror
from ultraengine.execution.registry import Registry
from ultraengine.execution.system import TICK, is_system, system_data
from ultraengine.log.frame import FrameHeader
from ultraengine.model.command import Command, identity_hash
from ultraengine.model.domain import History
from ultraengine.model.errors import InvariantBroken
from ultraengine.model.ids import Epoch, Instant, Offset, ShardId, slot_of
from ultraengine.model.outcome import Outcome
from ultraengine.reply.recorded import Name, Recorded, name_of
from ultraengine.shard.validation import NothingRemembered
from ultraengine.snapshot.image import Section, StateHash

_TRIPLES: Final = msgspec.msgpack.Decoder(list[tuple[str, str, msgspec.Raw]])
_SCHEMA: Final = 1
"""Of what the digest holds beside the domains' own dumps."""


class Done(msgspec.Struct, frozen=True, array_like=True, tag="done"):
    """A command of the slot, with what was recorded of it."""

    offset: int
    time: int
    epoch: int
    command: Command
    outcome: Outcome
    skipped: bool = False
    """A person has overridden it: remembered, and not evolved."""


class Expired(msgspec.Struct, frozen=True, array_like=True, tag="expired"):
    """Expiries of the slot's timers, of those that one tick has caused."""

    offset: int
    time: int
    domain: str
    events: list[tuple[int, str, str, msgspec.Raw]]
    """(place among the tick's events, tenant, key, event)."""


Part = Done | Expired


class Group(Protocol):
    """What is read of a group (`log.reader.RecordedGroup`)."""

    @property
    def header(self) -> FrameHeader:
        """Of its COMMANDS frame."""

    @property
    def commands(self) -> list[Command]:
        """In order."""

    @property
    def outcomes(self) -> list[Outcome] | None:
        """Of all of them, or None."""


def parts(group: Group, slot: int, *, skipped: Iterable[int] = ()) -> list[Part]:
    """What a recorded group holds of one slot.

    Raises `InvariantBroken` for a group whose outcomes are not recorded: what is not durable is
    not copied.
    """
    if group.outcomes is None:
        raise InvariantBroken("only recorded groups are copied", base=group.header.base_offset)
    time, epoch, overridden = group.header.time, group.header.epoch, set(skipped)
    found: list[Part] = []
    for command, outcome in zip(group.commands, group.outcomes, strict=True):
        offset = outcome.offset
        if not is_system(command):
            if slot_of(command.tenant, command.key) == slot:
                found.append(
                    Done(offset, time, epoch, command, outcome, skipped=offset in overridden)
                )
        elif command.type == TICK and offset not in overridden:
            events = [
                (place, tenant, key, event)
                for place, (tenant, key, event) in enumerate(_TRIPLES.decode(outcome.events))
                if slot_of(tenant, key) == slot
            ]
            if events:
                found.append(Expired(offset, time, system_data(command).domain, events))
    return found


class CopiedHistory:
    """The events of the copy, by the source's offsets.  Implements `executor.HistoryStore`."""

    def __init__(self, decoders: dict[str, Callable[[bytes], Sequence[Any]]]) -> None:
        self._decoders = decoders
        self._events: dict[int, tuple[str, Sequence[Any]]] = {}

    def append(self, offset: int, domain: str, payload: bytes, /) -> None:
        """Keep the events of one command."""
        self._events[offset] = domain, self._decoders[domain](payload)

    def append_run(self, offset: int, domain: str, payloads: Sequence[bytes], /) -> None:
        """Keep the events of commands at consecutive offsets."""
        for number, payload in enumerate(payloads, offset):
            self.append(number, domain, payload)

    def place(self, offset: int, domain: str, events: dict[int, Any]) -> None:
        """Keep some events of a tick at their places; the others are not of this slot."""
        self._events[offset] = domain, [events.get(n) for n in range(max(events) + 1)]

    def view(self, domain: str, visible_end: Callable[[], int], /) -> History:
        """Reads of one domain."""
        return _CopiedView(self._events, domain, visible_end)


class _CopiedView:
    def __init__(
        self,
        events: dict[int, tuple[str, Sequence[Any]]],
        domain: str,
        visible_end: Callable[[], int],
    ) -> None:
        self._events = events
        self._domain = domain
        self._visible_end = visible_end

    def events(self, offset: Offset) -> Sequence[Any] | None:
        """As `model.domain.History`."""
        domain, events = self._events.get(offset, ("", ()))
        return events if domain == self._domain and offset < self._visible_end() else None


class SlotCopy:
    """One slot of another shard, up to a position of that shard's log."""

    def __init__(self, registry: Registry, source: ShardId, slot: int) -> None:
        self.slot = slot
        self.history = CopiedHistory(registry.decoders)
        self.executor = Executor(registry, source, dedupe=NothingRemembered(), history=self.history)
        self.position = Offset(0)
        """First offset of the source that is not in the copy."""
        self._recorded: dict[Name, Recorded] = {}

    def take(self, start: int, end: int, batch: Iterable[Part]) -> bool:
        """Take what the source's offsets ``start <= offset < end`` hold of the slot.

        Returns whether it was taken: a batch that does not begin at `position` changes nothing.
        Raises `EvolveFailed`, after which the copy is void.
        """
        if start != self.position:
            return False
        for part in batch:
            if not self.position <= part.offset < end:
                raise InvariantBroken("parts ascend in their range", offset=part.offset, end=end)
            if isinstance(part, Done):
                self._do(part)
            else:
                self._expire(part)
            self.position = Offset(part.offset + 1)
        self.position = self.executor.applied_end = Offset(end)
        return True

    def _do(self, part: Done) -> None:
        time, epoch = Instant(part.time), Epoch(part.epoch)
        self.executor.applied_end = Offset(part.offset)
        if part.skipped:
            self.executor.skipped.add(part.offset)
        self.executor.replay(part.command, part.outcome, time=time, epoch=epoch)
        self._recorded[name_of(part.command)] = Recorded(part.command, part.outcome, epoch, time)

    def _expire(self, part: Expired) -> None:
        registry = self.executor.registry
        decode = registry.expiries[registry.domain_index[part.domain]].decode
        kept: dict[int, Any] = {}
        for place, tenant, key, raw in part.events:
            ((_, _, event),) = decode(msgspec.msgpack.encode([(tenant, key, raw)]))
            kept[place] = event
            self.executor.replay_expiry(
                part.domain,
                (tenant, key, event),
                place=place,
                offset=Offset(part.offset),
                time=Instant(part.time),
            )
        self.history.place(part.offset, part.domain, kept)

    def find(self, name: Name) -> Recorded | None:
        """The command of this name and what was recorded of it: what a retry is answered with."""
        return self._recorded.get(name)

    def digest(self, floor: int) -> bytes:
        """`slot_digest` of the copy, with the ids from the source's floor on."""
        ids = sorted(
            (mirror(identity_hash(one.command.tenant, one.command.id)), one.outcome.offset)
            for one in self._recorded.values()
            if one.outcome.offset >= floor
        )
        return slot_digest(self.executor, self.slot, ids)


def remembered(chunks: Iterable[bytes]) -> Iterator[tuple[int, int]]:
    """(mirrored hash, offset) of the dump of a slot's ids (`DedupIndex.dump_slot`)."""
    for chunk in chunks:
        hashes, offsets = decode_entries(chunk)
        for number, offset in enumerate(offsets):
            yield int.from_bytes(hashes[number * 8 : number * 8 + 8], "big"), offset


def slot_digest(executor: Executor, slot: int, ids: Iterable[tuple[int, int]]) -> bytes:
    """Hash of all that decides what the slot does next: states, versions and remembered ids."""
    digest = StateHash()
    image = executor.slots.get(slot)
    if image is not None:
        for chunk in image.dump_versions(full=True):
            digest.add(Section(slot, "versions", _SCHEMA, chunk))
        for domain, state in zip(executor.registry.domains, image.states, strict=True):
            for chunk in () if state is None else domain.dump(state):
                digest.add(Section(slot, domain.name, domain.schema, chunk))
    for mirrored, offset in ids:
        entry = mirrored.to_bytes(8, "big") + offset.to_bytes(8, "big")
        digest.add(Section(slot, "id", _SCHEMA, entry))
    return digest.value()
