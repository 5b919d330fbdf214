"""What a halted shard says, and what may be done with it."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.unit.shard.test_shard import Fragile, Rig, SmallDisk, code_of

from ultraengine.log.serializer import MsgpackSerializer
from ultraengine.model.errors import EngineError
from ultraengine.model.outcome import Outcome
from ultraengine.ports import DiskFull, File
from ultraengine_adapters.local.disk import LocalDisk


async def test_an_answer_after_a_halt_says_unknown_and_not_refused(tmp_path: Path) -> None:
    rig = Rig(tmp_path, domains=(Fragile(),))
    await rig.start()
    reply, joined = await rig.send(rig.admit("a", 13), rig.admit("a", 13))
    assert code_of(reply) == code_of(joined) == "OUTCOME_UNKNOWN"
    # "refused" would mean that it was never logged, and it was.
    assert reply.outcome == joined.outcome == "unknown"
    assert not joined.duplicate
    await rig.shard.stop()


async def test_commands_before_the_one_that_halts_the_shard_get_their_true_answers_at_once(
    tmp_path: Path,
) -> None:
    rig = Rig(tmp_path, domains=(Fragile(),))
    await rig.start()
    deltas = {"a": 5, "b": 7, "c": 1, "d": 1}
    first, second, third, fourth = await asyncio.wait_for(
        rig.send(*(rig.admit(name, delta) for name, delta in deltas.items())), 5
    )
    assert [(one.outcome, one.version) for one in (first, second)] == [
        ("accepted", 1),
        ("accepted", 2),
    ]
    assert [code_of(one) for one in (third, fourth)] == ["OUTCOME_UNKNOWN"] * 2
    assert rig.shard.status().state == "halted"
    await rig.shard.stop()


async def test_a_serializer_that_raises_halts_the_shard_after_the_answers(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    await rig.start()

    class Broken(MsgpackSerializer):
        def encode_outcomes(self, outcomes: Sequence[Outcome]) -> bytes:
            raise LookupError(len(outcomes))

    rig.shard.machine._serializer = Broken()
    (reply,) = await asyncio.wait_for(rig.send(rig.admit("a", 1)), 5)
    assert reply.outcome == "accepted"
    assert rig.shard.status().state == "halted"
    await rig.shard.stop()


async def test_the_directory_stays_locked_until_background_work_has_ended(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    await rig.start()
    await rig.add()
    tried: list[str] = []

    def work() -> None:
        with pytest.raises(BlockingIOError):
            rig.disk.lock("LOCK")
        tried.append("locked")

    rig.shard.before_close = work
    await rig.shard.stop()
    assert tried == ["locked"]
    rig.disk.lock("LOCK").release()


async def test_a_halted_shard_does_not_say_that_a_durable_command_was_never_logged(
    tmp_path: Path,
) -> None:
    rig = Rig(tmp_path, domains=(Fragile(),))
    await rig.start()
    await rig.send(rig.admit("a", 13))
    with pytest.raises(EngineError) as caught:
        await rig.shard.outcome("t", "k", "a")
    assert caught.value.code == "SHARD_UNAVAILABLE"
    await rig.shard.stop()


async def test_a_retry_being_verified_while_the_shard_halts_is_answered_once(
    tmp_path: Path,
) -> None:
    rig = Rig(tmp_path, domains=(Fragile(),))
    shard = await rig.start()
    await rig.send(rig.admit("first", 12))
    await shard.rest()
    reading, go_on = asyncio.Event(), asyncio.Event()
    find = shard.reads.find

    async def slow(pending: Any, candidates: Any) -> Any:
        reading.set()
        await go_on.wait()
        return await find(pending, candidates)

    shard.reads.find = slow  # type: ignore[method-assign]
    retry = asyncio.create_task(rig.send(rig.admit("first", 12)))
    await reading.wait()
    await rig.send(rig.admit("fatal", 1))
    (reply,) = await retry
    assert reply.outcome == "unknown"
    failed: list[Any] = []
    tasks = list(shard._tasks)
    go_on.set()
    failed = await asyncio.gather(*tasks, return_exceptions=True)
    assert failed == [None]
    await shard.stop()


async def test_an_override_of_a_halted_shard_is_logged_and_the_next_start_honours_it(
    tmp_path: Path,
) -> None:
    rig = Rig(tmp_path, domains=(Fragile(),))
    shard = await rig.start()
    await rig.add(12)
    await rig.send(rig.admit("bad", 1), rig.admit("good", 5))
    assert shard.status().state == "halted"
    await shard.skip(2, "thirteen is not allowed")
    await rig.kill()
    shard = await rig.start()
    assert await rig.value() == 17
    (again,) = await rig.send(rig.admit("bad", 1))
    assert (again.outcome, again.offset, again.duplicate) == ("rejected", 2, True)
    await shard.rest()
    await rig.kill()
    shard = await rig.start()  # From the recorded outcome this time.
    assert await rig.value() == 17
    await shard.stop()


async def test_an_override_that_finds_no_room_says_so_and_can_be_sent_again(
    tmp_path: Path,
) -> None:
    disk = FullFiles(LocalDisk(tmp_path))
    rig = Rig(tmp_path, domains=(Fragile(),), disk=disk)
    shard = await rig.start()
    await rig.add(5)
    await rig.send(rig.admit("bad", 8))
    disk.full = True
    with pytest.raises(EngineError) as caught:
        await shard.skip(2, "thirteen is not allowed")
    assert caught.value.code == "READ_ONLY"
    disk.full = False
    for _ in range(100):
        try:
            await shard.skip(2, "thirteen is not allowed")
            break
        except EngineError:
            await asyncio.sleep(0.1)
    await rig.kill()
    shard = await rig.start()
    assert await rig.value() == 5
    await shard.stop()


class FullFiles(SmallDisk):
    """A disk on which no file takes another byte while it is full."""

    def open(self, path: str, *, create: bool = False, write: bool = False) -> File:
        return FullFile(super().open(path, create=create, write=write), self)


class FullFile:
    """A file of such a disk."""

    def __init__(self, file: File, disk: FullFiles) -> None:
        self._file, self._disk = file, disk

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def pwrite(self, data: bytes | memoryview, position: int) -> None:
        if self._disk.full:
            raise DiskFull(28, "No space left on device")
        self._file.pwrite(data, position)
