"""A shard of the counter on a simulated disk, its store, and what a restore makes of it."""

from collections.abc import Iterator, Sequence

import msgspec

from ultraengine.backup.choosing import Target
from ultraengine.backup.manifest import Backup
from ultraengine.backup.restoring import Order, Restored, restore
from ultraengine.backup.taking import Source, Taken, take
from ultraengine.cli.offline import NO_HISTORY, evolve
from ultraengine.domains.counter import DOMAIN
from ultraengine.execution.dedup import DedupIndex, DedupOptions
from ultraengine.execution.executor import Executor
from ultraengine.execution.registry import Admitted, Registry
from ultraengine.log.frame import FrameKind
from ultraengine.log.reader import RecordedGroup
from ultraengine.log.segment import KeyRing
from ultraengine.log.serializer import serializers
from ultraengine.log.survey import walk
from ultraengine.model.ids import Instant, ShardId
from ultraengine.model.reply import Reply
from ultraengine.ports import Disk, ObjectStore
from ultraengine.shard.image import ExecutorImage
from ultraengine.shard.slot_moves import SlotMoves
from ultraengine.snapshot.image import state_hash
from ultraengine.testing.sim_clock import SimClock, SimRandom, SimSecrets
from ultraengine.testing.sim_disk import SimDisk
from ultraengine.testing.sim_objects import SimObjectStore
from ultraengine.testing.sim_shard import SIM_LIMITS, SimShard

SECRETS = SimSecrets({})
ENGINE = b"e" * 16


def added(shard: SimShard, number: int) -> Admitted:
    """A command that every second time is refused by the counter's maximum."""
    return shard.registry.admit(
        id=f"c{number}", type="counter.add", key=f"k{number % 5}",
        data=msgspec.json.encode({"delta": number, "maximum": 60}), codec="json",
        tenant="t", principal="p", scopes=frozenset({"*:write"}),
    )  # fmt: skip


class World:
    """One shard that lives, and the store that it is backed up to."""

    def __init__(self, store: ObjectStore | None = None, *, seed: int = 0) -> None:
        self.seed = seed
        self.disk = SimDisk()
        self.clock = SimClock()
        self.store = store or SimObjectStore()
        self.told: dict[int, Reply] = {}
        """The first reply by number of the command."""
        self.stamps: dict[int, int] = {}
        """When it was sent, µs."""
        self.count = 0
        self.start()

    def start(self) -> None:
        """Begin another life."""
        self.shard = SimShard(self.disk, self.clock, [DOMAIN], seed=self.seed)

    def die(self) -> None:
        """End without a word, and begin another life."""
        self.disk = self.disk.kill()
        self.start()

    def send(self, commands: int) -> None:
        """One group; time passes."""
        self.clock.advance(1.0)
        numbers = range(self.count, self.count + commands)
        self.count += commands
        replies = self.shard.send(*(added(self.shard, number) for number in numbers))
        self.told |= dict(zip(numbers, replies, strict=True))
        self.stamps |= dict.fromkeys(numbers, int(self.clock.now()))

    def back_up(self) -> Taken:
        """Copy what is there."""
        self.clock.advance(0.25)
        return take(
            Source(disk=self.disk, secrets=SECRETS), self.store, Instant(int(self.clock.now()))
        )

    @property
    def end(self) -> int:
        """First offset that was not executed."""
        return int(self.shard.executor.applied_end)


def restored(
    store: ObjectStore,
    target: Target | None = None,
    *,
    base: Backup | None = None,
    disk: SimDisk | None = None,
) -> tuple[SimDisk, Restored]:
    """A new directory."""
    order = Order(
        shard=0, target=target or Target(), engine_uid=ENGINE, cluster_uid=b"n" * 16, base=base
    )
    disk = disk or SimDisk()
    return disk, restore(order, store, disk, SECRETS, SimClock(), SimRandom(9))


def state_at(disk: Disk, end: int | None = None) -> tuple[int, str]:
    """Offset and hash of the state that the records of a whole log lead to, below an offset."""
    options = DedupOptions.of(SIM_LIMITS)
    # As many ids as the shard's own, all of them in memory.
    in_memory = DedupOptions(
        entries_max=options.entries_total_max, bytes_max=0, window_us=options.window_us
    )
    dedupe = DedupIndex(in_memory)
    executor = Executor(
        Registry([DOMAIN]), ShardId(0), dedupe=dedupe, history=NO_HISTORY, moves=SlotMoves()
    )
    image = ExecutorImage(executor, dedupe)
    image.resume(None)
    for group in recorded_groups(disk):
        if end is not None and executor.applied_end >= end:
            break
        evolve(executor, group, end)
        if executor.applied_end in {end, group.header.offset_end}:
            dedupe.advance(Instant(group.header.time), executor.applied_end)
    return int(executor.applied_end), state_hash(image.sections(full=True)).hex()


def recorded_groups(disk: Disk) -> Iterator[RecordedGroup]:
    """All groups whose outcomes are recorded, in order."""
    codecs = serializers()
    waiting: list[RecordedGroup] = []
    for _path, _position, frame, _point in walk(disk, KeyRing(SECRETS)):
        if frame.header.kind == FrameKind.COMMANDS:
            waiting.append(RecordedGroup(frame, codecs[frame.header.codec]))
        elif waiting and frame.header.base_offset >= waiting[0].header.base_offset:
            waiting[0].add(frame)
            if waiting[0].recorded:
                yield waiting.pop(0)


def names(store: ObjectStore, folder: str) -> Sequence[str]:
    """Objects of the shard in one folder."""
    return store.list(f"0/{folder}/")
