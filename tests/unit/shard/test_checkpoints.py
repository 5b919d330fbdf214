"""A long replay keeps what it has reached: a start that is interrupted goes on from there."""

import errno
import random
from typing import Any

import msgspec
import pytest

from ultraengine.domains.counter import DOMAIN
from ultraengine.execution.pipeline import EvolveFailed
from ultraengine.execution.registry import Admitted
from ultraengine.log.damage import BelowRetention
from ultraengine.log.digest import state_chain
from ultraengine.log.frame import FrameKind
from ultraengine.model.ids import NO_CHAIN
from ultraengine.model.limits import Limits
from ultraengine.shard.recovery import OtherHandlers
from ultraengine.snapshot.store import newest_sequence
from ultraengine.testing.crash_states import crash_states
from ultraengine.testing.sim_clock import SimClock
from ultraengine.testing.sim_disk import SimDisk
from ultraengine.testing.sim_faults import Raises
from ultraengine.testing.sim_shard import SIM_LIMITS, SimShard

COMMANDS = 60
OFTEN = msgspec.structs.replace(SIM_LIMITS, replay_checkpoint_s=10.0)
NEVER = msgspec.structs.replace(SIM_LIMITS, replay_checkpoint_s=0.0)


class TickingClock(SimClock):
    """A second passes with every look at it."""

    def monotonic(self) -> float:
        self.advance(1.0)
        return super().monotonic()


class FailsOnce(type(DOMAIN)):  # type: ignore[misc]
    """The counter in a process that ends when it evolves this sum."""

    def __init__(self, value: int) -> None:
        super().__init__()
        self._value = value

    def evolve(self, state: Any, event: Any, at: Any) -> None:
        if event.value == self._value:
            raise RuntimeError("the process ends here")
        super().evolve(state, event, at)


class Renewed(type(DOMAIN)):  # type: ignore[misc]
    """The counter of a later release: it decides anew and writes another schema."""

    version = DOMAIN.version + 1
    schema = DOMAIN.schema + 1


class NewVersion(type(DOMAIN)):  # type: ignore[misc]
    """The counter of a later release that decides anew."""

    version = DOMAIN.version + 1


class RenewedInside(type(DOMAIN)):  # type: ignore[misc]
    """The counter of a later release: it decides as before and writes another schema."""

    schema = DOMAIN.schema + 1

    def __init__(self, value: int) -> None:
        super().__init__()
        self._value = value

    def evolve(self, state: Any, event: Any, at: Any) -> None:
        if event.value == self._value:
            raise RuntimeError("a mistake of this release")
        super().evolve(state, event, at)


def added(shard: SimShard, number: int) -> Admitted:
    return shard.registry.admit(
        id=f"c{number}", type="counter.add", key=f"k{number % 3}",
        data=msgspec.json.encode({"delta": 1}), codec="json",
        tenant="t", principal="p", scopes=frozenset({"*:write"}),
    )  # fmt: skip


def lived() -> SimDisk:
    """A log without a snapshot, with groups whose outcomes stand behind the next commands."""
    disk = SimDisk()
    shard = SimShard(disk, SimClock(), [DOMAIN])
    for number in range(0, COMMANDS, 2):
        for reply in shard.send(added(shard, number), added(shard, number + 1)):
            assert reply.outcome == "accepted"
    shard.stop()
    return disk.kill()


def copied(disk: SimDisk, *, record: bool = False) -> SimDisk:
    return SimDisk(image=disk.image().copy(), record=record)


def started(disk: SimDisk, **options: Any) -> SimShard:
    return SimShard(disk, TickingClock(), **{"domains": [DOMAIN], "limits": OFTEN, **options})


def slots(shard: SimShard) -> list[Any]:
    return [one for one in shard.content() if one[0] >= 0]


def interrupted(disk: SimDisk, limits: Limits = OFTEN) -> SimDisk:
    """What is left by a start that ends when it has evolved most of the log."""
    with pytest.raises(EvolveFailed):
        SimShard(disk, TickingClock(), [FailsOnce(17)], limits=limits)
    return disk.kill()


def test_a_start_that_is_interrupted_goes_on_from_what_it_has_kept() -> None:
    whole = started(copied(lived()), limits=NEVER)
    assert whole.replayed > COMMANDS
    again = started(interrupted(lived()))
    assert 0 < again.replayed < whole.replayed // 2
    assert slots(again) == slots(whole)
    assert again.executor.applied_end == whole.executor.applied_end
    # And it answers retries, of what came before that point and behind it, as the other does.
    for number in (0, 30, COMMANDS - 1):
        (there,), (here,) = (one.send(added(one, number)) for one in (whole, again))
        assert here.duplicate
        assert msgspec.json.encode(here) == msgspec.json.encode(there)
    assert again.validate().equal


def test_what_is_kept_names_its_exact_place_in_the_log() -> None:
    shard = started(lived())
    _, at = shard.snapshots.load_copy(shard.memory.bare_image)
    assert at is not None
    assert 0 < at.offset_end < COMMANDS
    assert at.chain == shard._reader.chain_at(at.sequence_end)
    chain = NO_CHAIN
    for frame in shard._reader.frames(0, at.sequence_end):
        if frame.header.kind == FrameKind.OUTCOMES:
            chain = state_chain(chain, frame.payload)
    assert at.state_chain == chain != NO_CHAIN


def unrecorded(disk: SimDisk) -> SimDisk:
    """The same, ended by a kill: the outcome of the last group is not in the log."""
    shard = SimShard(disk, SimClock(), [DOMAIN], limits=NEVER)
    shard.send(added(shard, COMMANDS))
    return disk.kill()


def test_the_release_before_can_still_start_after_one_that_may_not_decide_its_last_group() -> None:
    disk = unrecorded(lived())
    with pytest.raises(OtherHandlers):
        started(disk, domains=[Renewed()])
    again = started(disk.kill())
    (reply,) = again.send(added(again, COMMANDS))
    assert reply.duplicate


def test_the_release_before_can_still_start_after_one_that_cannot_replay_its_log() -> None:
    disk = lived()
    shard = SimShard(disk, SimClock(), [DOMAIN], limits=NEVER)
    shard.snapshot("full")
    for number in range(COMMANDS, 2 * COMMANDS):
        shard.send(added(shard, number))
    wanted = slots(shard)
    shard.stop()
    disk = disk.kill()
    with pytest.raises(EvolveFailed):
        started(disk, domains=[RenewedInside(35)])
    assert slots(started(disk.kill())) == wanted


def test_what_is_kept_holds_no_id_that_comes_behind_it() -> None:
    few = {"dedup_entries_max": 16, "dedup_bytes_max": 1 << 20}
    often, never = (msgspec.structs.replace(one, **few) for one in (OFTEN, NEVER))
    disk = SimDisk()
    shard = SimShard(disk, SimClock(), [DOMAIN], limits=never)
    for number in range(COMMANDS):
        shard.send(added(shard, number))
    assert shard.memory.is_spilled
    wanted = slots(shard)
    shard.stop()
    disk = interrupted(disk.kill(), often)
    # The runs hold nothing that the log and the snapshots do not: they may be lost.
    runs = [f"dedup/{name}" for name in disk.list("dedup")]
    assert runs
    for path in runs:
        disk.remove(path)
    again = SimShard(disk, SimClock(), [DOMAIN], limits=never)
    assert 0 < again.replayed < COMMANDS
    assert slots(again) == wanted


def test_a_release_with_other_handlers_and_the_same_schema_keeps_what_it_has_reached() -> None:
    disk = lived()
    shard = SimShard(disk, SimClock(), [DOMAIN], limits=NEVER)
    before = shard.snapshot("full").entry.sequence_end
    for number in range(COMMANDS, 2 * COMMANDS):
        shard.send(added(shard, number))
    shard.stop()
    disk = disk.kill()
    started(disk, domains=[NewVersion()])
    assert newest_sequence(disk) > before


def test_the_log_can_be_cut_below_what_a_start_has_kept() -> None:
    shard = started(lived())
    shard.snapshot("full")
    report = shard.retain()
    assert not report.alarms
    before = slots(shard)
    shard.stop()
    assert slots(started(shard.disk.kill())) == before


def test_a_start_goes_on_where_the_log_that_it_does_not_need_is_damaged() -> None:
    # One segment for all of it, with its needed part beyond the first stride of the index.
    large = {"segment_bytes": 1 << 20, "reserve_bytes": 1 << 20}
    often, never = (msgspec.structs.replace(one, **large) for one in (OFTEN, NEVER))
    shard = SimShard(SimDisk(), SimClock(), [DOMAIN], limits=never)
    for number in range(600):
        if number == 500:
            needed = shard.snapshot("full").entry
        shard.send(added(shard, number))
    shard.stop()
    shard = SimShard(shard.disk.kill(), SimClock(), [DOMAIN], limits=never)
    newest = shard.snapshot("full").entry
    wanted = slots(shard)
    shard.stop()
    disk = shard.disk.kill()
    segment = min(name for name in disk.list("log") if name.startswith("seg-"))
    for path, position in (
        (f"snapshots/{newest.file}", newest.bytes - 1),
        (f"log/{segment}", 4096 + 140),
    ):
        file = disk.open(path, write=True)
        file.pwrite(bytes([file.pread(1, position)[0] ^ 1]), position)
        file.sync()
    for limits in (never, often):
        again = started(copied(disk), limits=limits)
        assert again.replayed == again.executor.applied_end - 1 - needed.offset_end
        assert slots(again) == wanted


def test_without_a_limit_nothing_is_kept() -> None:
    assert newest_sequence(interrupted(lived(), OFTEN)) > 0
    assert newest_sequence(interrupted(lived(), NEVER)) == 0


def test_a_start_goes_on_when_there_is_no_room_to_keep_anything() -> None:
    disk = lived()
    disk.inject(Raises(errno.ENOSPC), "pwrite", "snapshots/*", times=1_000)
    shard = started(disk)
    assert newest_sequence(disk) == 0
    assert slots(shard) == slots(started(lived(), limits=NEVER))


def test_a_state_chain_below_the_log_is_said_to_be_gone() -> None:
    shard = started(lived())
    with pytest.raises(BelowRetention):
        shard._reader.state_chain_at(-1)


def test_a_power_cut_at_any_moment_of_such_a_start_loses_nothing() -> None:
    base = lived()
    wanted = slots(started(copied(base), limits=NEVER))
    disk = copied(base, record=True)
    assert slots(started(disk)) == wanted
    kept = 0
    image = base.image().crashed(lambda step: step.length)
    for state in crash_states(disk.trace, random.Random(5), base=image, samples=4):
        after = SimDisk(image=state.image)
        kept += newest_sequence(after) > 0
        assert slots(started(after)) == wanted
    assert kept > 0
