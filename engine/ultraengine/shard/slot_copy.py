"""A copy of one slot, made of what its shard has recorded: a replica of that slot alone.

    source        recorded groups -> `parts`: what the slot has brought along, then its own
                  commands and expiries, in order
    destination   `carry` evolves them as a recovery does; nothing is decided
    both          `slot_digest`: equal digests are equal states and versions

Parts keep the position and the places of events in their command, so a domain finds its own
positions in the copy as they were.  Pure.
"""

from collections.abc import Container, Iterable, Sequence
from typing import Final, Protocol

import msgspec

from ultraengine.execution.carried import (
    Done,
    Expired,
    Lineage,
    Part,
    decode_parts,
    encode_parts,
    encoded_events,
    is_evolved,
)
from ultraengine.execution.context import EventPlace
from ultraengine.execution.executor import Executor
from ultraengine.execution.system import FILL_SLOT, TICK, is_system, system_data
from ultraengine.log.frame import FrameHeader
from ultraengine.model.command import Command
from ultraengine.model.errors import InvariantBroken
from ultraengine.model.ids import Epoch, Instant, Offset, ShardId, slot_of
from ultraengine.model.outcome import Outcome
from ultraengine.reply.recorded import Name, Recorded, name_of
from ultraengine.snapshot.image import Section, StateHash

EXPIRIES: Final = msgspec.msgpack.Decoder(list[tuple[str, str, msgspec.Raw]])
"""(tenant, key, event) of a recorded expiry."""
_SCHEMA: Final = 1
"""Of what the digest holds beside the domains' own dumps."""
LOOKED_THROUGH_BYTES_MAX: Final = 16 * 1024 * 1024
"""Log that one batch is looked for in."""


class Group(Protocol):
    """What is read of a group (`log.reader.RecordedGroup`)."""

    @property
    def header(self) -> FrameHeader:
        """Of its COMMANDS frame."""

    @property
    def commands_payload(self) -> bytes:
        """As they are logged."""

    @property
    def commands(self) -> list[Command]:
        """In order."""

    @property
    def outcomes(self) -> list[Outcome] | None:
        """Of all of them, or None."""


class Origin(msgspec.Struct, frozen=True):
    """Which records of a shard's log are a slot's, in the era in which the shard owns it."""

    shard: ShardId
    slot: int
    base: int = 0
    """As of `Lineage`."""
    since: int = 0
    chunks: frozenset[int] = frozenset()
    """Offsets of the batches that the slot has come in."""

    @classmethod
    def of(cls, shard: ShardId, slot: int, lineage: Lineage | None) -> "Origin":
        """Of a slot's image as it is now."""
        if lineage is None:
            return cls(shard, slot)
        return cls(shard, slot, lineage.base, lineage.since, frozenset(lineage.chunks))

    @property
    def start(self) -> int:
        """Below this offset the log holds nothing of it."""
        return min(self.chunks, default=self.since)


def parts(
    group: Group, origin: Origin, start: int, end: int, *, skipped: Container[int] = ()
) -> list[Part]:
    """What a recorded group holds of one slot at offsets ``start <= offset < end``.

    Raises `InvariantBroken` for a group whose outcomes are not recorded: what is not durable is
    not copied.
    """
    if group.outcomes is None:
        raise InvariantBroken("only recorded groups are copied", base=group.header.base_offset)
    found: list[Part] = []
    for command, outcome in zip(group.commands, group.outcomes, strict=True):
        if not start <= outcome.offset < end:
            continue
        if command.type == FILL_SLOT and is_system(command):
            if outcome.offset in origin.chunks:
                found += decode_parts(system_data(command).parts)
        elif outcome.offset >= origin.since:
            part = _own_part(group.header, command, outcome, origin, skipped)
            if part is not None:
                found.append(part)
    return found


def next_batch(
    groups: Iterable[Group],
    origin: Origin,
    position: int,
    end: int,
    skipped: Container[int],
    bytes_max: int,
) -> tuple[int, bytes]:
    """What the source's offsets from `position` on hold, and below which offset that is all.

    Ends at `end`, at a group without all outcomes, or when there is enough: `bytes_max` of parts,
    or `LOOKED_THROUGH_BYTES_MAX` of log.
    """
    found: list[Part] = []
    size = looked = 0
    reached = position
    for group in groups:
        if group.outcomes is None:
            return reached, encode_parts(found)
        more = parts(group, origin, position, end, skipped=skipped)
        looked += len(group.commands_payload)
        size += len(encode_parts(more)) if more else 0
        found += more
        reached = max(position, min(int(group.header.offset_end), end))
        if size >= bytes_max or looked >= LOOKED_THROUGH_BYTES_MAX:
            return reached, encode_parts(found)
    return max(position, end), encode_parts(found)


def _own_part(
    header: FrameHeader, command: Command, outcome: Outcome, origin: Origin, skipped: Container[int]
) -> Part | None:
    offset = outcome.offset
    position, slot, is_skipped = origin.base + offset, origin.slot, offset in skipped
    if not is_system(command):
        if slot_of(command.tenant, command.key) != slot:
            return None
        shard = origin.shard
        return Done(position, header.time, header.epoch, shard, command, outcome, is_skipped)
    if command.type != TICK or is_skipped:
        return None
    events = [
        (place, tenant, key, event)
        for place, (tenant, key, event) in enumerate(EXPIRIES.decode(outcome.events))
        if slot_of(tenant, key) == slot
    ]
    return Expired(position, header.time, system_data(command).domain, events) if events else None


def carry(executor: Executor, slot: int, part: Part) -> None:
    """Evolve a part in the image of a sleeping slot.

    Raises KeyError for a domain that is not here, and whatever evolving raises: the copy is void.
    """
    image, place = executor.slot(slot), EventPlace()
    image.changed = True
    place.offset, place.time = Offset(part.position), Instant(part.time)
    if isinstance(part, Expired):
        events = executor.registry.decoders[part.domain](encoded_events(part))
        for (number, tenant, key, _), event in zip(part.events, events, strict=True):
            place.index, place.tenant, place.key = number, tenant, key
            _evolve(executor, slot, part.domain, [event], place)
        return
    command, outcome = part.command, part.outcome
    if not is_evolved(part):
        return
    if outcome.version != image.versions.get((command.tenant, command.key), 0):
        image.accept(command.tenant, command.key, outcome.version)
    place.index, place.tenant, place.key = 0, command.tenant, command.key
    domain = command.type.partition(".")[0]
    _evolve(executor, slot, domain, executor.registry.decoders[domain](outcome.events), place)


def _evolve(
    executor: Executor, slot: int, name: str, events: Sequence[object], place: EventPlace
) -> None:
    index = executor.registry.domain_index[name]
    domain = executor.registry.domains[index]
    state = executor.state(slot, index)
    focus = domain.focus(state, place.tenant, place.key) if events else None
    for event in events:
        domain.evolve(focus, event, place)
        place.index += 1


def find_carried(recorded: Recorded, name: Name) -> Recorded | None:
    """The command of this name in a batch that a slot has come in: what a retry is answered with.

    A name with an empty key matches any key.
    """
    if recorded.command.type != FILL_SLOT or not is_system(recorded.command):
        return None
    tenant, key, command_id = name
    for part in decode_parts(system_data(recorded.command).parts):
        if isinstance(part, Done):
            found = name_of(part.command)
            if (found[0], found[2]) == (tenant, command_id) and key in ("", found[1]):
                epoch, time = Epoch(part.epoch), Instant(part.time)
                shard = ShardId(part.shard)
                return Recorded(part.command, part.outcome, epoch, time, shard)
    return None


def slot_digest(executor: Executor, slot: int) -> bytes:
    """Hash of what decides what the slot does next: states and versions."""
    digest = StateHash()
    image = executor.slots.get(slot)
    if image is not None:
        for chunk in image.dump_versions(full=True):
            digest.add(Section(slot, "versions", _SCHEMA, chunk))
        for domain, state in zip(executor.registry.domains, image.states, strict=True):
            for chunk in () if state is None else domain.dump(state):
                digest.add(Section(slot, domain.name, domain.schema, chunk))
    return digest.value()
