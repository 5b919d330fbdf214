"""A shard that follows executes what is committed, and notices what comes out differently."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import msgspec
import pytest
from tests.unit.shard.test_shard import Rig

from ultraengine.execution.executor import Executor
from ultraengine.log.reader import LogReader, RecordedGroup
from ultraengine.model.outcome import Failure, Status
from ultraengine.shard.following.compare import follow_group
from ultraengine.shard.following.driver import Following


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


class Follows:
    """Somebody who executes behind the rig's log."""

    def __init__(self, rig: Rig, reader: LogReader | None = None) -> None:
        self.rig = rig
        self.barred = 0
        self.executor: Executor = rig.memory.scratch(sequence_max=0)
        log = rig.shard.log.reader() if reader is None else reader
        self.following = Following(self.executor, NoUpkeep(), lambda: log, on_difference=self._bar)

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
            raise OSError("unreadable")

    follows = Follows(rig, Broken())  # type: ignore[arg-type]
    follows.following.reached(1)
    assert await asyncio.wait_for(_ended(follows.following), 20) is None
    assert follows.barred == 1
    assert follows.following.difference is None


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
    assert executor.applied_end == 4
    assert executor.version("t", "k") == 2
