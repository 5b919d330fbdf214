"""The state of a shard from its files alone: newest snapshot plus recorded tail.

Changes nothing and takes no lock, so it may look at the directory of a running process; it
then sees a moment of it.  No handler runs: recorded events are evolved, and commands whose
outcome is not recorded yet are left out.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import msgspec

from ultraengine.execution.dedup import DedupIndex, DedupOptions
from ultraengine.execution.executor import Executor
from ultraengine.execution.registry import Registry
from ultraengine.log.frame import FrameKind
from ultraengine.log.reader import RecordedGroup
from ultraengine.log.segment import KeyRing
from ultraengine.log.serializer import serializers
from ultraengine.log.survey import walk
from ultraengine.model.domain import Domain, History
from ultraengine.model.ids import Epoch, Instant, Offset, ShardId
from ultraengine.model.limits import DEFAULT_LIMITS
from ultraengine.ports import Disk, Secrets
from ultraengine.shard.image import ExecutorImage
from ultraengine.shard.slot_moves import SlotMoves
from ultraengine.shard.validation import NothingRemembered
from ultraengine.snapshot import tools as snapshots
from ultraengine.snapshot.codec import Codecs
from ultraengine.snapshot.image import Image
from ultraengine.snapshot.manifest import plan_load


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


def load_state(disk: Disk, secrets: Secrets, domains: Sequence[Domain], shard: int) -> LoadedState:
    """Load the newest usable snapshot and evolve what is recorded after it.

    Raises `SnapshotError`, `LogError` and `InvariantBroken` as the start of a process would.
    """
    registry = Registry(domains)
    nothing = NothingRemembered()
    executor = Executor(
        registry, ShardId(shard), dedupe=nothing, history=NO_HISTORY, moves=SlotMoves()
    )
    image = ExecutorImage(executor, nothing)
    reader = snapshots.Tools(disk=disk, secrets=secrets, codecs=Codecs())
    position = None
    for entry in plan_load(snapshots.listed(reader)) or ():
        position = snapshots.load(reader, image, entry)
    image.resume(position)
    start = executor.applied_end
    for group in recorded_groups(disk, secrets, start):
        evolve(executor, group)
    return LoadedState(executor, int(start), int(executor.applied_end - start))


def empty_image(domains: Sequence[Domain], shard: int) -> Image:
    """An image with everything in memory, to prove and merge snapshots with."""
    options = msgspec.structs.replace(DedupOptions.of(DEFAULT_LIMITS), bytes_max=0)
    dedupe = DedupIndex(options)
    executor = Executor(
        Registry(domains), ShardId(shard), dedupe=dedupe, history=NO_HISTORY, moves=SlotMoves()
    )
    return ExecutorImage(executor, dedupe)


def recorded_groups(disk: Disk, secrets: Secrets, from_offset: int) -> Iterator[RecordedGroup]:
    """Groups with all outcomes recorded that hold `from_offset` or a later offset, in order."""
    codecs = serializers()
    waiting: list[RecordedGroup] = []
    for _path, _position, frame, _point in walk(disk, KeyRing(secrets)):
        if frame.header.kind == FrameKind.COMMANDS:
            if frame.header.offset_end > from_offset:
                waiting.append(RecordedGroup(frame, codecs[frame.header.codec]))
        elif waiting and frame.header.base_offset >= waiting[0].header.base_offset:
            waiting[0].add(frame)
            if waiting[0].recorded:
                yield waiting.pop(0)


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
