"""The state of a shard from its files alone: newest snapshot plus recorded tail.

Changes nothing and takes no lock, so it may look at the directory of a running process; it
then sees a moment of it.  No handler runs: recorded events are evolved, and commands whose
outcome is not recorded yet are left out.
"""

import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, TypeVar

import msgspec

from ultraengine.execution.dedup import DedupIndex, DedupOptions
from ultraengine.execution.executor import Executor
from ultraengine.execution.pipeline import EvolveFailed
from ultraengine.execution.registry import Registry
from ultraengine.extensions import NONE, Extensions
from ultraengine.log.reader import RecordedGroup
from ultraengine.log.standing import Standing, standing_log
from ultraengine.model.domain import Domain, History
from ultraengine.model.ids import Epoch, Instant, Offset, ShardId
from ultraengine.model.limits import DEFAULT_LIMITS
from ultraengine.ports import Disk, Secrets
from ultraengine.shard.image import ExecutorImage, readable
from ultraengine.shard.recovery import skips
from ultraengine.shard.slot_moves import SlotMoves
from ultraengine.shard.validation import NothingRemembered
from ultraengine.snapshot import tools as snapshots
from ultraengine.snapshot.codec import Codecs
from ultraengine.snapshot.errors import SnapshotDamaged, SnapshotRefused
from ultraengine.snapshot.image import Image, ImagePosition
from ultraengine.snapshot.manifest import SnapshotEntry, check_log_end, plan_load
from ultraengine.snapshot.migrate import Migrations

T = TypeVar("T")


class _NoEvents:
    """The history of a state that decides nothing."""

    def events(self, offset: Offset) -> Sequence[Any] | None:
        """Nothing, at any offset."""
        del offset
        return None


class NoHistory:
    """A history store that keeps nothing."""

    def append(self, _offset: int, _domain: str, _payload: bytes, /) -> None:
        """Drop it."""

    def append_run(self, _offset: int, _domain: str, _payloads: Sequence[bytes], /) -> None:
        """Drop them."""

    def view(self, _domain: str, _visible_end: Callable[[], int], /) -> History:
        """Nothing to see."""
        return _NoEvents()


NO_HISTORY: Final = NoHistory()


class LoadedState(msgspec.Struct, frozen=True):
    """A shard's state and where it came from."""

    executor: Executor
    snapshot_end: int
    """First offset that was not in the snapshot; 0 without one."""
    replayed: int
    """Commands of the tail."""


def load_state(
    disk: Disk, secrets: Secrets, domains: Sequence[Domain], extensions: Extensions = NONE
) -> LoadedState:
    """Load the newest good snapshot and evolve what is recorded after it.

    As a start does, it passes damaged snapshots by and honours logged overrides.  Raises
    `SnapshotError`, `LogError` and `InvariantBroken` where a start would fail.
    """
    registry = Registry(domains, hooks=extensions.hooks)
    tools = snapshots.Tools(
        disk=disk,
        secrets=secrets,
        codecs=Codecs(extensions.snapshot_codecs),
        migrations=Migrations(readable(registry), extensions.migrations),
    )
    # The list first: of a running engine the log may only be newer.
    entries = snapshots.listed(tools)
    log = standing_log(disk, secrets, threading.Lock(), codecs=extensions.serializers)
    check_log_end(entries, log.end.sequence)
    return overriding(
        log.reader.groups, lambda skipped: _state(log, tools, entries, registry, skipped)
    )


def _state(
    log: Standing,
    tools: snapshots.Tools,
    entries: Sequence[SnapshotEntry],
    registry: Registry,
    skipped: frozenset[int],
) -> LoadedState:
    executor = _from_snapshot(tools, entries, registry, log)
    executor.skipped |= skipped
    start = executor.applied_end
    for group in log.reader.groups(start):
        if group.last_frame is not None:
            evolve(executor, group)
    return LoadedState(executor, int(start), int(executor.applied_end - start))


def _from_snapshot(
    tools: snapshots.Tools, entries: Sequence[SnapshotEntry], registry: Registry, log: Standing
) -> Executor:
    unusable: set[str] = set()
    nothing = NothingRemembered()
    while True:
        executor = Executor(
            registry, log.identity.shard, dedupe=nothing, history=NO_HISTORY, moves=SlotMoves()
        )
        image, position = ExecutorImage(executor, nothing), None
        for entry in plan_load(entries, unusable=unusable) or ():
            try:
                position = snapshots.load(tools, image, entry)
            except (SnapshotDamaged, OSError):
                unusable.add(entry.file)
                break
        else:
            if position is not None:
                check_chain(log, position)
            return image.resume(position)


def check_chain(log: Standing, position: ImagePosition) -> None:
    """Raise `SnapshotRefused` for a snapshot of another log than the one beside it."""
    found = log.reader.chain_at(position.sequence_end)
    if found != position.chain:
        raise SnapshotRefused(
            f"the snapshot at offset {position.offset_end} was taken of another log: the chain "
            f"before frame {position.sequence_end} is {found.hex()} here and "
            f"{position.chain.hex()} there"
        )


def overriding(
    groups: Callable[[int], Iterable[RecordedGroup]], attempt: Callable[[frozenset[int]], T]
) -> T:
    """What `attempt` returns, which is told the offsets whose effect is left out.

    A logged override that lies behind the failing command is honoured, as at a start.  `groups`
    gives those from an offset on.
    """
    skipped: set[int] = set()
    while True:
        try:
            return attempt(frozenset(skipped))
        except EvolveFailed as failure:
            offset = int(str(failure.facts["offset"]))
            if offset in skipped or offset not in set(skips(groups(offset))):
                raise
            skipped.add(offset)


def empty_image(domains: Sequence[Domain], shard: int) -> Image:
    """An image with everything in memory, to prove and merge snapshots with."""
    options = msgspec.structs.replace(DedupOptions.of(DEFAULT_LIMITS), bytes_max=0)
    dedupe = DedupIndex(options)
    executor = Executor(
        Registry(domains), ShardId(shard), dedupe=dedupe, history=NO_HISTORY, moves=SlotMoves()
    )
    return ExecutorImage(executor, dedupe)


def evolve(executor: Executor, group: RecordedGroup, end: int | None = None) -> None:
    """Evolve what is recorded of a group from the executor's position on, below `end`."""
    header = group.header
    part = slice(
        max(0, executor.applied_end - header.base_offset),
        None if end is None else end - header.base_offset,
    )
    executor.replay_group(
        group.commands[part],
        (group.outcomes or [])[part],
        time=Instant(header.time),
        epoch=Epoch(header.epoch),
    )


def shard_number(name: str) -> int:
    """The shard of a directory called ``shard-NNNN``; 0 for any other name."""
    digits = name.removeprefix("shard-")
    return int(digits) if digits.isdecimal() else 0
