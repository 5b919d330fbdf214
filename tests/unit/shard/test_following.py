"""A shard that follows executes what is committed, and notices what comes out differently."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest
from prometheus_client import CollectorRegistry
from tests.unit.shard.test_shard import SHARD, Rig

from ultraengine.domains.counter import DOMAIN
from ultraengine.execution.executor import Executor
from ultraengine.execution.registry import Registry
from ultraengine.execution.system import system_data
from ultraengine.log.damage import LogRefused
from ultraengine.log.driver import Log
from ultraengine.log.reader import LogReader, RecordedGroup
from ultraengine.log.retention import RetentionReport
from ultraengine.log.space import write_file
from ultraengine.model.errors import EngineError
from ultraengine.model.ids import Epoch, Instant, Offset
from ultraengine.model.limits import Limits
from ultraengine.model.outcome import Failure, Status
from ultraengine.model.policy import FlushRule
from ultraengine.replication.stored import (
    STORED_PATH,
    STORED_TEMPORARY,
    Stored,
    encode_stored,
)
from ultraengine.shard.following import driver
from ultraengine.shard.following.compare import follow_group
from ultraengine.shard.following.driver import Following
from ultraengine.shard.following.keeping import Kept
from ultraengine.shard.metrics import ShardMetrics
from ultraengine.shard.opening import (
    ShardOptions,
    World,
    epoch_start_draft,
    load_state,
    log_options,
    recover_shard,
    serializer_of,
)
from ultraengine.shard.parts import ShardParts
from ultraengine_adapters.local.clock import SystemClock
from ultraengine_adapters.local.random import SystemRandom
from ultraengine_adapters.local.secrets import FileSecrets

OPTIONS = ShardOptions(
    shard=SHARD,
    rule=FlushRule(name="sync", wait_s=0.0, group_bytes_max=65_536, reply_before_flush=False),
    limits=Limits(segment_bytes=1024 * 1024, reserve_bytes=0, segments_prepared=0),
)


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    """A leader that has executed a few commands and recorded their outcomes."""
    made = Rig(tmp_path)
    await made.start()
    for delta in (1, 2, 3):
        await made.add(delta)
    await made.shard.rest()
    yield made
    await made.shard.stop()


class NoUpkeep:
    def upkeep(self) -> object:
        return None


class OneLog:
    """A log that gives always the same reader."""

    def __init__(self, reader: LogReader) -> None:
        self._reader = reader

    def reader(self) -> LogReader:
        return self._reader

    def retain(
        self, snapshot_offset: int, snapshot_sequence: int, consumers: Mapping[str, int]
    ) -> RetentionReport:
        raise AssertionError("nobody here cuts the log")


class Follows:
    """Somebody who executes behind the rig's log."""

    def __init__(self, rig: Rig, reader: LogReader | None = None) -> None:
        self.rig = rig
        self.barred = 0
        self.executor: Executor = rig.memory.scratch(sequence_max=0)
        self.log: Kept | None = OneLog(rig.shard.log.reader() if reader is None else reader)
        self.looks = 0
        """How often the log was asked for."""
        self.following = Following(self.executor, NoUpkeep(), self._log, on_difference=self._bar)

    def _log(self) -> Kept | None:
        self.looks += 1
        return self.log

    def _bar(self) -> None:
        self.barred += 1

    async def at(self, offset: int) -> None:
        async with asyncio.timeout(20):
            while self.executor.applied_end < offset:  # noqa: ASYNC110  (nobody tells)
                await asyncio.sleep(0.01)


def versions(executor: Executor) -> int:
    return executor.version("t", "k")


async def test_what_is_committed_is_executed_and_nothing_else(rig: Rig) -> None:
    follows = Follows(rig)
    reader = rig.shard.log.reader()
    frames = list(reader.frames(0))
    second = [one for one in frames if one.header.kind == 1][1].header
    follows.following.reached(int(second.sequence))
    await follows.at(int(second.base_offset))
    assert await follows.following.stop() is follows.executor
    assert follows.executor.applied_end == second.base_offset
    assert versions(follows.executor) < versions(rig.shard.executor)


async def test_it_comes_to_the_state_of_its_leader_group_by_group(rig: Rig) -> None:
    follows = Follows(rig)
    reader = rig.shard.log.reader()
    for end in range(int(reader.durable_end) + 1):
        follows.following.reached(end)
    await follows.at(rig.shard.executor.applied_end)
    assert await follows.following.stop() is follows.executor
    assert versions(follows.executor) == versions(rig.shard.executor) == 3
    assert follows.executor.time == rig.shard.executor.time
    assert follows.barred == 0


async def test_it_is_late_until_it_has_looked_at_all_that_is_committed(rig: Rig) -> None:
    follows = Follows(rig)
    following, end = follows.following, int(rig.shard.log.reader().durable_end)
    assert following.late_s == 0.0
    kept, follows.log = follows.log, None  # Its log is being cut: it can read nothing.
    following.reached(end)
    async with asyncio.timeout(20):
        while following.late_s <= 0.0:  # noqa: ASYNC110  (a clock tells nobody)
            await asyncio.sleep(0.001)
    await asyncio.sleep(0.05)
    assert following.late_s > 0.0
    follows.log = kept
    following.reached(end)
    await follows.at(rig.shard.executor.applied_end)
    async with asyncio.timeout(20):
        while following.late_s:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
    await following.stop()


async def test_a_look_sees_what_is_executed_between_two_groups(rig: Rig) -> None:
    follows = Follows(rig)
    assert await follows.following.read(versions) == 0
    follows.following.reached(int(rig.shard.log.reader().durable_end))
    await follows.at(rig.shard.executor.applied_end)
    looks = [follows.following.read(versions) for _ in range(20)]
    assert await asyncio.gather(*looks) == [3] * 20
    with pytest.raises(ZeroDivisionError):
        await follows.following.read(lambda _executor: 1 // 0)
    assert await follows.following.read(versions) == 3, "whoever asks wrongly ends nothing"
    await follows.following.stop()
    with pytest.raises(EngineError, match="executes nothing") as refused:
        await follows.following.read(versions)
    assert refused.value.code == "SHARD_UNAVAILABLE"


async def test_whoever_waits_for_offsets_is_told_after_each_step(rig: Rig) -> None:
    follows = Follows(rig)
    told: list[int] = []
    follows.following.on_executed = told.append
    follows.following.reached(int(rig.shard.log.reader().durable_end))
    await follows.at(rig.shard.executor.applied_end)
    await follows.following.stop()
    assert told[-1] == rig.shard.executor.applied_end


async def test_a_look_that_nobody_takes_any_more_is_turned_away(rig: Rig) -> None:
    follows = Follows(rig)
    look = asyncio.ensure_future(follows.following.read(versions))
    gone = asyncio.ensure_future(follows.following.read(versions))
    await asyncio.sleep(0)
    gone.cancel()
    follows.following._turn_away()
    with pytest.raises(EngineError) as refused:
        await look
    assert refused.value.code == "NOT_LEADER"
    await follows.following.stop()


class Falsified:
    """The rig's log with another result of the command at one offset."""

    def __init__(self, reader: LogReader, offset: int, status: Status | None = None) -> None:
        self._reader, self._offset, self._status = reader, offset, status

    def groups(
        self, from_offset: int, to_offset: int | None = None, *, below: int | None = None
    ) -> Iterator[RecordedGroup]:
        for group in self._reader.groups(from_offset, to_offset, below=below):
            if group.outcomes is not None:
                group.outcomes[:] = [
                    msgspec.structs.replace(one, result=msgspec.Raw(b"\x2a"))
                    if one.offset == self._offset
                    else one
                    for one in group.outcomes
                ]
            yield group


async def test_a_difference_ends_the_execution_there_and_bars_the_replica(rig: Rig) -> None:
    reader = Falsified(rig.shard.log.reader(), 2)
    follows = Follows(rig, reader)  # type: ignore[arg-type]
    follows.following.reached(10**6)
    assert await asyncio.wait_for(_ended(follows.following), 20) is None
    found = follows.following.difference
    assert found is not None
    assert (found.offset, found.command_type) == (2, "counter.add@1")
    assert found.recorded.result != found.decided.result
    assert follows.barred == 1


async def _ended(following: Following) -> Executor | None:
    await following._task
    return await following.stop()


async def test_a_failure_bars_the_replica_too(rig: Rig) -> None:
    class Broken:
        def groups(self, *_: object, **__: object) -> Iterator[RecordedGroup]:
            yield next(rig.shard.log.reader().groups(0))
            raise OSError("unreadable")

    follows = Follows(rig, Broken())  # type: ignore[arg-type]
    follows.following.reached(1)
    assert await asyncio.wait_for(_ended(follows.following), 20) is None
    assert follows.barred == 1
    assert follows.following.difference is None


class Closing:
    """The rig's log, closed by a cut after the first group was read."""

    def __init__(self, reader: LogReader, closed: Callable[[], None]) -> None:
        self._reader, self._closed = reader, closed

    def groups(
        self, from_offset: int, to_offset: int | None = None, *, below: int | None = None
    ) -> Iterator[RecordedGroup]:
        yield next(self._reader.groups(from_offset, to_offset, below=below))
        self._closed()
        raise OSError("the file is closed")


@pytest.mark.parametrize("reopened", [True, False])
async def test_beside_a_cut_it_goes_on_in_the_log_that_was_opened_anew(
    rig: Rig, reopened: bool
) -> None:
    after = OneLog(rig.shard.log.reader())

    def cut() -> None:
        follows.log = after if reopened else None

    reader: Any = Closing(rig.shard.log.reader(), cut)
    follows = Follows(rig, reader)
    follows.following.reached(10**6)
    if not reopened:
        async with asyncio.timeout(20):
            while follows.log is not None:  # noqa: ASYNC110  (nobody tells)
                await asyncio.sleep(0.01)
            # It has noticed by itself, and waits; a look at a closed log executes nothing.
            before = follows.looks + 1
            while follows.looks <= before:
                follows.following.reached(10**6 + 1)
                await asyncio.sleep(0.01)
        follows.log = after
        follows.following.reached(10**6 + 2)
    await follows.at(rig.shard.executor.applied_end)
    assert await follows.following.stop() is follows.executor
    assert versions(follows.executor) == versions(rig.shard.executor)
    assert follows.barred == 0


async def test_what_other_handlers_or_a_person_decided_is_taken_over(rig: Rig) -> None:
    groups = list(rig.shard.log.reader().groups(0))
    executor = rig.memory.scratch(sequence_max=0)
    for group in groups:
        assert group.outcomes is not None
        if group.header.base_offset == 3:
            skipped = msgspec.structs.replace(
                group.outcomes[0],
                status=Status.INTERNAL,
                version=0,
                events=msgspec.Raw(b"\x90"),
                failure=Failure("INTERNAL", "an operator's override"),
            )
            group.outcomes[0] = skipped
        if group.header.base_offset == 2:
            group.header = msgspec.structs.replace(group.header, handlers=b"otherone")
            group.outcomes[0] = msgspec.structs.replace(
                group.outcomes[0], result=msgspec.Raw(b"\x2a")
            )
        if group.header.base_offset < 4:
            assert follow_group(executor, group) is None
            assert follow_group(executor, group) is None, "it is passed over the second time"
    assert executor.applied_end == 4
    assert executor.version("t", "k") == 2


async def test_it_stops_between_two_steps(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "COMMANDS_PER_STEP", 1)
    follows = Follows(rig)
    follows.following.reached(10**6)
    await follows.at(rig.shard.executor.applied_end)
    assert await follows.following.stop() is follows.executor


async def test_a_group_without_all_outcomes_is_waited_for(rig: Rig) -> None:
    reader = rig.shard.log.reader()
    last = [one for one in reader.frames(0) if one.header.kind == 1][-1].header
    follows = Follows(rig)
    follows.following.reached(int(last.sequence) + 1)
    await follows.at(int(last.base_offset))
    assert await follows.following.stop() is follows.executor
    assert follows.executor.applied_end == last.base_offset


def recovered(rig: Rig, log: Log, followed: Executor | None) -> ShardParts:
    """The shard of a log that is open, as a replica that leads recovers it."""
    return recover_shard(
        World(rig.disk, SystemClock(), SystemRandom(), FileSecrets(None, {})),
        rig.registry,
        rig.memory,
        ShardMetrics(CollectorRegistry(), SHARD),
        OPTIONS,
        log,
        Epoch(9),
        followed=followed,
    )


def opened(rig: Rig) -> Log:
    """The log of a rig that has stopped, open again."""
    told = log_options(OPTIONS, Epoch(9), rig.registry.handlers_digest)
    secrets = FileSecrets(None, {})
    return Log.open(rig.disk, SystemClock(), SystemRandom(), secrets, told)


@pytest.mark.parametrize("executed", [0, 2, 4])
async def test_a_failover_recovers_what_was_not_executed_yet(tmp_path: Path, executed: int) -> None:
    rig = Rig(tmp_path)
    await rig.start()
    for delta in (1, 2, 3):
        await rig.add(delta)
    await rig.shard.stop()
    log = opened(rig)
    followed, start = load_state(log, rig.memory)
    assert start == 0
    for group in list(log.reader().groups(0))[:executed]:
        assert follow_group(followed, group) is None
    parts = recovered(rig, log, followed)
    assert parts.executor is followed
    assert parts.replayed == 4 - executed
    assert versions(parts.executor) == 3
    assert parts.epoch == parts.machine.epoch == 9
    assert not parts.machine.due(Instant(0)), "the replica has written the epoch's start"
    log.close(clean=False)


async def test_a_failover_without_an_executor_loads_one(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    await rig.start()
    await rig.add(1)
    await rig.shard.stop()
    log = opened(rig)
    parts = recovered(rig, log, None)
    assert (parts.replayed, versions(parts.executor)) == (2, 1)
    log.close(clean=False)


async def test_a_replicas_directory_is_not_served_alone(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    write_file(rig.disk, STORED_PATH, STORED_TEMPORARY, encode_stored(Stored(start=1)))
    with pytest.raises(LogRefused, match="may lack what others hold"):
        await rig.start()
    assert not rig.disk.list("log")


def test_the_first_frame_of_an_epoch_says_who_decides_from_there_on() -> None:
    registry = Registry((DOMAIN,))
    serializer = serializer_of(OPTIONS)
    draft = epoch_start_draft(registry, serializer, Epoch(9), Offset(41), Instant(7))
    (command,) = serializer.decode_commands(draft.payload)
    assert (draft.base_offset, draft.count, draft.time) == (41, 1, 7)
    assert system_data(command).epoch == 9
    assert system_data(command).handlers == registry.handlers
