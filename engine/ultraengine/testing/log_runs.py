"""Short runs of a log on a simulated disk, and the judge of every disk they may leave.

A `Run` uses a real `Log` without threads, so that a seed gives the same trace again.  It
notes in the trace what the log promised: frames acknowledged or served (`Promise.kept`), and
frames that it refused for lack of space (`Promise.refused`), which must never come back.
"""

import errno
import random
from collections import defaultdict
from collections.abc import Sequence
from typing import cast

import msgspec

from ultraengine.log.driver import Log, LogOptions, Written
from ultraengine.log.frame import Frame, FrameDraft, FrameKind
from ultraengine.model.ids import Epoch, ShardId
from ultraengine.model.limits import Limits
from ultraengine.ports import Disk
from ultraengine.testing.crash_states import CrashState
from ultraengine.testing.sim_clock import SimClock, SimRandom, SimSecrets
from ultraengine.testing.sim_disk import SimDisk
from ultraengine.testing.sim_faults import FailedSync, ShortWrite
from ultraengine.testing.sim_image import Image
from ultraengine.testing.sim_trace import Operation

SECRETS = SimSecrets({"disk": b"m" * 32, "chain": b"c" * 32})
LIMITS = Limits(
    segment_bytes=12 * 1024, frame_bytes_max=6 * 1024, reserve_bytes=4096, segments_prepared=1
)

Content = tuple[int, int, int, bytes]
"""Kind, base offset, count and payload of a frame."""


class Form(msgspec.Struct, frozen=True):
    """How a run's log writes."""

    name: str
    compress: bool = False
    encrypt: bool = False
    limits: Limits = LIMITS
    verify_from: int = 0
    """Frame from which a start verifies everything, as with a snapshot there."""

    def open(self, disk: Disk, seed: int = 0) -> Log:
        """Recover the log on a disk.  Raises what ``Log.open`` raises."""
        options = LogOptions(
            shard=ShardId(3),
            epoch=Epoch(1),
            handlers=b"12345678",
            limits=self.limits,
            compress=self.compress,
            master_key="disk" if self.encrypt else None,
            chain_key="chain" if self.encrypt else None,
            verify_from=lambda: self.verify_from,
        )
        return Log.open(disk, SimClock(), SimRandom(seed), SECRETS, options)


class Promise(msgspec.Struct, frozen=True):
    """What became known of some frames, by sequence."""

    kept: dict[int, Content] = {}
    refused: dict[int, Content] = {}


class Life(msgspec.Struct, frozen=True):
    """One process of a run, as recorded."""

    base: Image
    trace: tuple[Operation, ...]
    promised: dict[int, Content]
    """Frames that the processes before acknowledged or served."""


class Run:
    """A log in use on a recording disk, step by step."""

    def __init__(self, form: Form, seed: int) -> None:
        self.form = form
        self.issued: defaultdict[int, set[Content]] = defaultdict(set)
        """Everything that was ever handed to the log, by frame sequence."""
        self.lives: list[Life] = []
        self.promised: dict[int, Content] = {}
        """Everything that was ever acknowledged or served."""
        self.disk = SimDisk(seed, record=True)
        """Of the process that runs now."""
        self._chance = random.Random(seed)  # noqa: S311  (chance that can be repeated)
        self._waiting: dict[int, Content] = {}
        self._written: Written | None = None
        self._failures: list[BaseException] = []
        self._unrecorded: list[tuple[int, int]] = []
        self._offset = self._end = self._time = 0
        self._begin(Image())

    def append(self, *sizes: int, sync: bool = True) -> None:
        """One write: the outcomes of the groups before, then a group per size in bytes."""
        drafts = [
            self._draft(FrameKind.OUTCOMES, base, count, 40) for base, count in self._unrecorded
        ]
        self._unrecorded = []
        for size in sizes:
            count = self._chance.randrange(1, 5)
            drafts.append(self._draft(FrameKind.COMMANDS, self._offset, count, size))
            self._unrecorded.append((self._offset, count))
            self._offset += count
        for number, draft in enumerate(drafts, self._end):
            content = (int(draft.kind), draft.base_offset, draft.count, draft.payload)
            self.issued[number].add(content)
            self._waiting[number] = content
        self.log.write(drafts, self._done, sync=sync)

    def sync(self) -> None:
        """Make durable what was written without a sync."""
        self.log.sync(self._done)

    def stop(self) -> None:
        """A clean stop and a start."""
        self.finish()
        self._begin(self.disk.kill().image())

    def abort(self) -> None:
        """An unclean stop and a start."""
        self.log.close(clean=False)
        self._end_life()
        self._begin(self.disk.kill().image())

    def kill(self) -> None:
        """kill -9 and a start: the page cache survives."""
        self._end_life()
        self._begin(self.disk.kill().image())

    def cut(self) -> None:
        """A power cut by chance and a start."""
        self._end_life()
        self._begin(self.disk.power_cut().image())

    def fail_sync(self, *sizes: int) -> None:
        """The sync of this write fails: nothing is acknowledged, the process ends."""
        self.disk.inject(FailedSync(), "sync")
        self.append(*sizes)
        if len(self._failures) != 1 or self._waiting == {}:
            raise AssertionError(f"a failed sync was passed over: {self._failures}")
        self._failures.clear()
        self.kill()

    def refuse(self, *sizes: int, kept: int) -> None:
        """This write finds no room after `kept` bytes."""
        self.disk.inject(ShortWrite(kept, errno.ENOSPC), "pwrite")
        offset, unrecorded, end = self._offset, self._unrecorded, self._end
        self.append(*sizes)
        written = self._written
        if written is None or written.error is None or written.end_sequence != end:
            raise AssertionError(f"a write without room was not refused: {written}")
        self._offset, self._unrecorded = offset, unrecorded
        self.disk.note(Promise(refused=self._waiting))
        self._waiting = {}

    def finish(self) -> None:
        """The last clean stop."""
        self.log.close(clean=True)
        self._promise(self._end)
        self._end_life()

    def end(self) -> None:
        """The run ends without a stop."""
        self._end_life()

    def _begin(self, base: Image) -> None:
        if self.lives:
            self.disk = SimDisk(self._chance.getrandbits(32), record=True, image=base.copy())
        self._base = base
        self.log = self.form.open(self.disk, self._chance.getrandbits(32))
        recovered = self.log.recovered
        self._end = int(recovered.end_sequence)
        self._offset = int(recovered.end_offset)
        self._time = int(recovered.last_time)
        frames = list(self.log.reader().frames(0))
        groups = [_range_of(f) for f in frames if f.header.kind == FrameKind.COMMANDS]
        self._unrecorded = [g for g in groups if g[0] >= recovered.recorded_end]
        self._before = dict(self.promised)
        # What a start found is served from then on: it must never be lost either.
        self._waiting = dict(enumerate(contents(frames)))
        self._promise(self._end)
        self.log.start(self._failures.append, threads=False)

    def _end_life(self) -> None:
        if self._failures:
            raise AssertionError(f"the log failed: {self._failures}")
        self.lives.append(Life(self._base, tuple(self.disk.trace), self._before))

    def _draft(self, kind: FrameKind, base: int, count: int, size: int) -> FrameDraft:
        noise = self._chance.randbytes(size // 2)
        self._time += 1
        return FrameDraft(kind, base, count, self._time, noise + bytes(size - len(noise)))

    def _promise(self, end: int) -> None:
        """Every frame below `end` is durable: note what that makes known."""
        kept = {n: content for n, content in self._waiting.items() if n < end}
        for number, content in kept.items():
            if self.promised.setdefault(number, content) != content:
                raise AssertionError(f"frame {number} was promised with two contents")
            del self._waiting[number]
        self.disk.note(Promise(kept=kept))

    def _done(self, written: Written) -> None:
        self._written = written
        if written.error is None:
            self._end = int(written.end_sequence)
            self._promise(int(written.durable_end))


class Judge:
    """Opens the log on one crash state after another.  Raises AssertionError.

    The log opens; every promised frame is there with its bytes, nothing else than what was
    handed to it, nothing that was refused; all of that is durable when the start is done, so
    that a second start after a power cut finds the same; a torn tail is kept; and (for each
    eighth state) the next frame is written behind it and survives.
    """

    def __init__(self, run: Run, life: Life) -> None:
        self._run = run
        self._life = life
        self.judged = 0

    def judge(self, state: CrashState) -> None:
        """Judge one state, which is used up."""
        try:
            self._judge(state)
        except Exception as error:
            where = f"after {state.length} operations, lost {state.lost}"
            raise AssertionError(f"{type(error).__name__}: {error}; {where}") from error
        self.judged += 1

    def _judge(self, state: CrashState) -> None:
        disk = SimDisk(image=state.image)
        log = self._run.form.open(disk)
        recovered = log.recovered
        first = list(log.reader().frames(0))
        self._check_frames(first, state)
        _require(len(first) == recovered.end_sequence, "the end is not where the frames end")
        disk = disk.power_cut(lambda _: 0)
        if recovered.torn is not None:
            kept = disk.open(recovered.torn.kept_as).size()
            _require(kept == recovered.torn.length > 0, "the torn tail was not kept")
        log = self._run.form.open(disk)
        second = list(log.reader().frames(0))
        _require(contents(second) == contents(first), "a second start finds other frames")
        _require(log.recovered.chain == recovered.chain, "a second start finds another chain")
        _require(log.recovered.state_chain == recovered.state_chain, "another state chain")
        _require(log.recovered.torn is None, "a second start finds a torn tail")
        if self.judged % 8 == 0:
            self._go_on(disk, log, second)

    def _check_frames(self, frames: Sequence[Frame], state: CrashState) -> None:
        promised = dict(self._life.promised)
        refused: list[tuple[int, Content]] = []
        for note in state.notes:
            promise = cast("Promise", note)
            promised |= promise.kept
            refused += promise.refused.items()
        numbers = [int(frame.header.sequence) for frame in frames]
        _require(numbers == list(range(len(frames))), f"the sequence is {numbers}")
        found = dict(enumerate(contents(frames)))
        lost = [n for n, content in promised.items() if found.get(n) != content]
        _require(not lost, f"frames {lost} of {len(promised)} are lost")
        invented = [n for n, content in found.items() if content not in self._run.issued[n]]
        _require(not invented, f"frames {invented} were invented")
        back = [n for n, content in refused if found.get(n) == content]
        _require(not back, f"frames {back} were refused and are there")

    def _go_on(self, disk: SimDisk, log: Log, frames: list[Frame]) -> None:
        done: list[Written] = []
        failures: list[BaseException] = []
        log.start(failures.append, threads=False)
        payload = b"next" * 40
        recovered = log.recovered
        draft = FrameDraft(
            FrameKind.COMMANDS, recovered.end_offset, 1, recovered.last_time + 1, payload
        )
        log.write([draft], done.append)
        _require([w.error for w in done] == [None], f"the next write failed: {failures}")
        after = self._run.form.open(disk.power_cut(lambda _: 0))
        third = contents(list(after.reader().frames(0)))
        expected = [*contents(frames), (1, draft.base_offset, 1, payload)]
        _require(third == expected, "the next write is lost")


def contents(frames: Sequence[Frame]) -> list[Content]:
    """What is compared of frames: all that the writer gave but the time."""
    return [(int(f.header.kind), *_range_of(f), f.payload) for f in frames]


def _range_of(frame: Frame) -> tuple[int, int]:
    return int(frame.header.base_offset), frame.header.count


def _require(condition: bool, otherwise: str) -> None:  # noqa: FBT001  (like assert)
    if not condition:
        raise AssertionError(otherwise)
