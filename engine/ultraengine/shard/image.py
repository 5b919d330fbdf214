"""The executor as an image: what a snapshot of a shard holds, section by section.

Per slot: each domain's state under the domain's name, ``versions``, ``dedup``.  Shard-wide:
``shard`` (overrides, handler versions of the epoch, consumers of the feed), ``dedup`` (floor
and time index) and, once a slot has moved, ``moves``.
"""

from collections.abc import Iterator, Sequence
from typing import Final, Protocol

import msgspec

from ultraengine.execution.executor import Executor
from ultraengine.execution.registry import Registry
from ultraengine.model.errors import InvariantBroken
from ultraengine.model.ids import Epoch, slot_of
from ultraengine.snapshot.errors import SnapshotRefused
from ultraengine.snapshot.image import SHARD_WIDE, ImagePosition, Section
from ultraengine.snapshot.migrate import Readable

_ENCODER: Final = msgspec.msgpack.Encoder()
VERSIONS: Final = "versions"
DEDUP: Final = "dedup"
MOVES: Final = "moves"
SHARD: Final = "shard"
ENGINE_SCHEMA: Final = 1
"""Of the sections that belong to the engine itself."""
CONSUMERS_SCHEMA: Final = 2
"""Of the section ``shard`` where there are consumers.  Without any it is written in the schema
before, so that a release that knows no consumers can still take over."""


def readable(registry: Registry) -> dict[str, Readable]:
    """The section schemas that this build loads, by name."""
    own = {name: Readable(ENGINE_SCHEMA) for name in (DEDUP, VERSIONS, MOVES)}
    own[SHARD] = Readable(CONSUMERS_SCHEMA, ENGINE_SCHEMA)
    return {**own, **{domain.name: Readable(domain.schema) for domain in registry.domains}}


class _Shared(msgspec.Struct, frozen=True, array_like=True):
    skipped: list[int]
    handlers: dict[str, int]
    consumers: dict[str, int] = {}
    """From `CONSUMERS_SCHEMA` on."""


class _Schema1(msgspec.Struct, frozen=True, array_like=True):
    skipped: list[int]
    handlers: dict[str, int]


class DedupeImage(Protocol):
    """How the idempotency memory is dumped and loaded, slot by slot."""

    def dump_slot(self, slot: int, *, full: bool = True) -> Iterator[bytes]:
        """Everything of a slot within the window, or what came since ``mark``."""

    def load_slot(self, slot: int, chunk: bytes) -> None:
        """Take one chunk of ``dump_slot``."""

    def dump_shard(self) -> bytes:
        """What belongs to no slot: the floor and when offsets were logged."""

    def load_shard(self, chunk: bytes) -> None:
        """Take ``dump_shard``; before any slot."""

    def load_done(self) -> None:
        """Everything was loaded."""

    def mark(self, slot: int | None = None) -> None:
        """Start of the next increment, of all slots or of one."""


class ExecutorImage:
    """Implements `snapshot.image.Image` over an executor."""

    def __init__(self, executor: Executor, dedupe: DedupeImage) -> None:
        self._executor = executor
        self._dedupe = dedupe

    def slots(self) -> Sequence[int]:
        """`SHARD_WIDE`, then all slots that were ever used."""
        return [SHARD_WIDE, *sorted(self._executor.slots)]

    def sections(self, *, full: bool) -> Iterator[Section]:
        """All sections, or those of slots that changed since ``mark``."""
        for slot in self.slots():
            yield from self.slot_sections(slot, full=full)

    def slot_sections(self, slot: int, *, full: bool) -> Iterator[Section]:
        """The sections of one slot, by name."""
        executor = self._executor
        if slot == SHARD_WIDE:
            yield Section(slot, DEDUP, ENGINE_SCHEMA, self._dedupe.dump_shard())
            moves = executor.moves.dump(executor)
            if moves is not None:
                yield Section(slot, MOVES, ENGINE_SCHEMA, moves)
            yield self._shared()
            return
        image = executor.slots[slot]
        parts: dict[str, tuple[int, Iterator[bytes]]] = {
            DEDUP: (ENGINE_SCHEMA, self._dedupe.dump_slot(slot, full=full)),
            VERSIONS: (ENGINE_SCHEMA, image.dump_versions(full=full)),
        }
        if full or image.changed:
            for domain, state in zip(executor.registry.domains, image.states, strict=True):
                if state is not None:
                    chunks = domain.dump(state) if full else domain.changes(state)
                    parts[domain.name] = (domain.schema, iter(chunks))
        for name in sorted(parts):
            schema, chunks_of = parts[name]
            for chunk in chunks_of:
                yield Section(slot, name, schema, chunk)

    def _shared(self) -> Section:
        executor = self._executor
        skipped = sorted(executor.skipped)
        handlers = dict(sorted(executor.epoch_handlers.items()))
        consumers = dict(sorted(executor.consumers.items()))
        if not consumers:
            chunk = _ENCODER.encode(_Schema1(skipped, handlers))
            return Section(SHARD_WIDE, SHARD, ENGINE_SCHEMA, chunk)
        chunk = _ENCODER.encode(_Shared(skipped, handlers, consumers))
        return Section(SHARD_WIDE, SHARD, CONSUMERS_SCHEMA, chunk)

    def load(self, section: Section) -> None:
        """Take one section.

        Raises `InvariantBroken` for a domain that this engine lacks, and `SnapshotRefused` for a
        slot with keys of another one.
        """
        executor, slot, name = self._executor, section.slot, section.name
        if slot == SHARD_WIDE:
            if name == DEDUP:
                self._dedupe.load_shard(section.chunk)
            elif name == MOVES:
                executor.moves.load(executor, section.chunk)
            else:
                shared = msgspec.msgpack.decode(section.chunk, type=_Shared)
                executor.skipped.update(shared.skipped)
                executor.epoch_handlers = dict(shared.handlers)
                executor.consumers = dict(shared.consumers)
            return
        if name == DEDUP:
            executor.slot(slot)
            self._dedupe.load_slot(slot, section.chunk)
        elif name == VERSIONS:
            image = executor.slot(slot)
            image.load_versions(section.chunk)
            _check_slot(slot, *next(iter(image.versions), (None, None)))
        else:
            index = executor.registry.domain_index.get(name)
            if index is None:
                raise InvariantBroken("the snapshot's domains are loaded", missing=name)
            domain = executor.registry.domains[index]
            domain.load(executor.state(slot, index), section.chunk, section.schema)

    def mark(self, slot: int | None = None) -> None:
        """Start of the next increment, of all slots or of one."""
        executor = self._executor
        for number in sorted(executor.slots) if slot is None else [slot]:
            image = executor.slots.get(number)
            if image is None:
                continue
            image.changed = False
            image.versions_changed.clear()
            for domain, state in zip(executor.registry.domains, image.states, strict=True):
                if state is not None:
                    domain.mark(state)
        self._dedupe.mark(slot)

    def take_dropped(self) -> bool:
        """Whether a slot has gone since the last time: the next snapshot must be full then."""
        return self._executor.moves.take_dropped()

    def resume(self, position: ImagePosition | None) -> Executor:
        """End loading: the executor stands at `position`, or is empty."""
        executor = self._executor
        self._dedupe.load_done()
        if position is not None:
            executor.applied_end = position.offset_end
            executor.time = position.time
            executor.epoch = Epoch(position.epoch)
            executor.reschedule()
        return executor


def _check_slot(slot: int, tenant: str | None, key: str | None) -> None:
    """A slot holds its own keys.

    Commits of before ADR 17 had other slots: what they kept would never be found, and a retry of
    what they acknowledged would be done twice.  All keys of such a snapshot lie elsewhere, so one
    of each slot is enough.
    """
    if tenant is None or key is None or slot_of(tenant, key) == slot:
        return
    raise SnapshotRefused(
        f"the snapshot keeps the key {key!r} of tenant {tenant!r} in slot {slot}, and it belongs "
        f"in slot {slot_of(tenant, key)}: it was written by a commit from before the first "
        f"release. Nothing was changed. While the log begins at offset 0, move 'snapshots', "
        f"'history' and 'dedup' away: the start then replays all of it"
    )
