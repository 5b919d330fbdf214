"""A log on a simulated disk with made-up commands, for the tests of this package."""

from collections.abc import Iterable
from typing import Any

import msgspec

from ultraengine.log.driver import Log, LogOptions, Written
from ultraengine.log.frame import FrameDraft, FrameKind
from ultraengine.log.serializer import MsgpackSerializer
from ultraengine.model.command import Command
from ultraengine.model.ids import Epoch, ShardId
from ultraengine.model.limits import Limits
from ultraengine.model.outcome import EMPTY_ARRAY, Outcome, Status
from ultraengine.testing.sim_clock import SimClock, SimRandom, SimSecrets
from ultraengine.testing.sim_disk import SimDisk

SERIALIZER = MsgpackSerializer()
SECRETS = SimSecrets({"disk": b"m" * 32, "old": b"o" * 32, "chain": b"c" * 32})
LIMITS = Limits(
    segment_bytes=16 * 1024, frame_bytes_max=8 * 1024, reserve_bytes=4096, segments_prepared=1
)
START = 1_700_000_000_000_000


def command(offset: int, *, key: str | None = None, size: int = 20) -> Command:
    """A command that can be told from all others."""
    data = msgspec.msgpack.encode(f"{offset}:".ljust(size, "x"))
    return Command(
        f"id-{offset}", "t.do@1", key or f"k{offset % 3}", msgspec.Raw(data), "acme", "p"
    )


def outcome(offset: int, status: Status = Status.ACCEPTED) -> Outcome:
    """The outcome of `command(offset)`."""
    result = msgspec.Raw(msgspec.msgpack.encode(offset))
    return Outcome(offset, status, offset + 1, result, EMPTY_ARRAY)


def options(**changes: Any) -> LogOptions:
    """Options of a small log."""
    base = LogOptions(shard=ShardId(3), epoch=Epoch(1), handlers=b"12345678", limits=LIMITS)
    return msgspec.structs.replace(base, **changes)


class World:
    """A log that writes in the caller's thread, and what it was asked to do."""

    def __init__(self, disk: SimDisk | None = None, seed: int = 0, **changes: Any) -> None:
        self.disk = SimDisk(seed) if disk is None else disk
        self.clock = SimClock()
        self.changes = changes
        self.seed = seed
        self.written: list[Written] = []
        self.failures: list[BaseException] = []
        self.log = self.open()

    def open(self, **changes: Any) -> Log:
        """Open the log of `disk`, with the options of this world and these on top."""
        self.changes |= changes
        self.seed += 1
        opening = dict(self.changes)
        extra = {
            name: opening.pop(name) for name in ("codecs", "compaction", "store") if name in opening
        }
        log = Log.open(
            self.disk, self.clock, SimRandom(self.seed), SECRETS, options(**opening), **extra
        )
        log.start(self.failures.append, threads=False)
        self.offset = int(log.recovered.end_offset)
        self.recorded = int(log.recovered.recorded_end)
        self.time = max(START, int(log.recovered.last_time))
        return log

    def restart(self, disk: SimDisk, **changes: Any) -> Log:
        """Open what is left on `disk`."""
        self.disk = disk
        self.log = self.open(**changes)
        return self.log

    def commands(self, count: int, size: int = 20) -> FrameDraft:
        """A group of the next `count` commands."""
        commands = [command(self.offset + n, size=size) for n in range(count)]
        self.time += 1
        draft = FrameDraft(
            FrameKind.COMMANDS,
            self.offset,
            count,
            self.time,
            SERIALIZER.encode_commands(commands),
        )
        self.offset += count
        return draft

    def outcomes(self, count: int) -> FrameDraft:
        """The next `count` outcomes; every fifth command is rejected."""
        made = [
            outcome(at, Status.REJECTED if at % 5 == 4 else Status.ACCEPTED)
            for at in range(self.recorded, self.recorded + count)
        ]
        draft = FrameDraft(
            FrameKind.OUTCOMES, self.recorded, count, self.time, SERIALIZER.encode_outcomes(made)
        )
        self.recorded += count
        return draft

    def write(self, drafts: Iterable[FrameDraft], *, sync: bool = True) -> Written:
        """Write and return what the log said."""
        before = len(self.written)
        self.log.write(list(drafts), self.written.append, sync=sync)
        if self.failures:
            raise self.failures[0]
        assert len(self.written) == before + 1
        return self.written[-1]

    def group(self, count: int = 2, size: int = 20) -> Written:
        """One write as a shard does it: the outcomes of the group before, and a group."""
        drafts = []
        if self.recorded < self.offset:
            drafts.append(self.outcomes(self.offset - self.recorded))
        drafts.append(self.commands(count, size))
        return self.write(drafts)

    def groups(self, number: int, count: int = 2, size: int = 20) -> None:
        """Several groups."""
        for _ in range(number):
            self.group(count, size)

    def segments(self) -> list[str]:
        """Paths of the segment files."""
        return [f"log/{name}" for name in self.disk.list("log") if name.startswith("seg-")]

    def read(self, path: str) -> bytes:
        """Content of a file."""
        file = self.disk.open(path)
        return file.pread(file.size(), 0)

    def overwrite(self, path: str, position: int, data: bytes) -> None:
        """Put other bytes somewhere, durably."""
        file = self.disk.open(path, write=True)
        file.pwrite(data, position)
        file.sync()
