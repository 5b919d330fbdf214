"""Rare moments of a running shard: timers, unreadable files, no room, a halt beside a write."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.unit.execution.test_executor import BoxDomain
from tests.unit.shard.test_hunt_full_disk import until
from tests.unit.shard.test_hunt_halt import FullFiles
from tests.unit.shard.test_shard import LIMITS, Fragile, Rig, SmallDisk, code_of

from ultraengine.execution.registry import Admitted
from ultraengine.execution.system import RaiseFloor
from ultraengine.log.driver import Written
from ultraengine.model.errors import EngineError, InvariantBroken
from ultraengine.ports import Disk, File
from ultraengine.reply.waiters import Ticket
from ultraengine.shard import driver
from ultraengine.shard.driver import Shard
from ultraengine.shard.flush_times import FlushTimes
from ultraengine_adapters.local.clock import SystemClock
from ultraengine_adapters.local.disk import LocalDisk


class Unreadable(SmallDisk):
    """A disk on which files under a directory cannot be read while it is named."""

    def __init__(self, disk: Disk) -> None:
        super().__init__(disk)
        self.failing: str | None = None

    def open(self, path: str, *, create: bool = False, write: bool = False) -> File:
        return _Unreadable(super().open(path, create=create, write=write), self, path)


class _Unreadable:
    def __init__(self, file: File, disk: Unreadable, path: str) -> None:
        self._file, self._disk, self._path = file, disk, path

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def pread(self, length: int, position: int) -> bytes:
        if self._disk.failing is not None and self._path.startswith(self._disk.failing):
            raise OSError(5, "Input/output error", self._path)
        return self._file.pread(length, position)


@pytest.fixture
async def full(tmp_path: Path) -> AsyncIterator[Rig]:
    """A shard at rest on a disk that takes no more bytes from now on."""
    rig = Rig(tmp_path, disk=FullFiles(LocalDisk(tmp_path)))
    await rig.start()
    await rig.add()
    await rig.shard.rest()
    rig.disk.full = True  # type: ignore[attr-defined]
    yield rig
    rig.disk.full = False  # type: ignore[attr-defined]
    await rig.shard.stop()


def put_box(rig: Rig, value: int, id: str = "a") -> Admitted:
    return rig.admit(id, type="box.put", data=msgspec.json.encode({"value": value}))


async def test_a_timer_fires_by_itself_and_the_earliest_one_goes_first(tmp_path: Path) -> None:
    rig = Rig(tmp_path, domains=(BoxDomain(),))
    shard = await rig.start()
    now = SystemClock().now()
    await rig.send(put_box(rig, now + 3_600_000_000, "in-an-hour"))
    await shard.rest()
    armed = shard._timer
    assert armed is not None
    # Later than the write of the outcomes, which looks for due timers as well.
    await rig.send(put_box(rig, now + 500_000, "soon"))
    await shard.rest()
    assert armed.cancelled(), "a shard has one timer"

    def values() -> list[int]:
        return shard.executor.slot_state("box", "t", "k").values["t", "k"]  # type: ignore[no-any-return]

    await until(lambda: len(values()) == 3)
    assert values()[2] == -2
    await shard.rest()
    assert shard.executor.next_due() == (now + 3_600_000_000, "box")
    await shard.stop()


async def test_commands_that_meet_spilled_ids_that_cannot_be_read_halt_the_shard(
    tmp_path: Path,
) -> None:
    limits = msgspec.structs.replace(LIMITS, dedup_entries_max=200)
    disk = Unreadable(LocalDisk(tmp_path))
    rig = Rig(tmp_path, limits=limits, disk=disk)
    shard = await rig.start()
    for number in range(8):
        await rig.send(*(rig.admit(f"s{number}-{n}") for n in range(100)))
    await until(lambda: rig.memory.upkeep() == [] and rig.memory.is_spilled)
    disk.failing = "dedup/"
    (reply,) = await rig.send(rig.admit("s0-0"))
    assert code_of(reply) == "SHARD_UNAVAILABLE"
    assert shard.status().state == "halted"
    assert "Input/output error" in shard.status().reason
    disk.failing = None
    await shard.stop()


async def test_a_retry_whose_first_attempt_cannot_be_read_now_is_unknown_and_not_executed(
    tmp_path: Path,
) -> None:
    disk = Unreadable(LocalDisk(tmp_path))
    rig = Rig(tmp_path, disk=disk)
    shard = await rig.start()
    await rig.send(rig.admit("pay", 5))
    await shard.rest()
    disk.failing = "log/"
    (reply,) = await rig.send(rig.admit("pay", 5))
    assert (code_of(reply), reply.outcome) == ("OUTCOME_UNKNOWN", "unknown")
    assert reply.error is not None
    assert reply.error.location == "/v1/commands/pay?key=k"
    disk.failing = None
    (again,) = await rig.send(rig.admit("pay", 5))
    assert (again.outcome, again.duplicate) == ("accepted", True)
    assert await rig.value() == 5
    await shard.stop()


async def test_a_retry_that_comes_when_nothing_is_read_any_more_is_unknown(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    shard = await rig.start()
    await rig.send(rig.admit("pay", 5))
    await shard.rest()
    shard.reads.close()
    (reply,) = await rig.send(rig.admit("pay", 5))
    assert (code_of(reply), reply.outcome) == ("OUTCOME_UNKNOWN", "unknown")
    await shard.stop()


async def test_what_wants_a_group_in_one_turn_is_given_one_turn_of_the_loop(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    shard = await rig.start()
    turns: list[None] = []
    scheduled = shard._scheduled_pump

    def counted() -> None:
        turns.append(None)
        scheduled()

    shard._scheduled_pump = counted  # type: ignore[method-assign]
    end = shard.executor.applied_end
    shard.log_own(RaiseFloor(1))
    shard.log_own(RaiseFloor(1))
    await asyncio.sleep(0)
    assert len(turns) == 1
    await shard.rest()
    assert shard.executor.applied_end == end + 2
    await shard.stop()


async def test_an_open_group_waits_once_takes_what_comes_and_is_no_rest(tmp_path: Path) -> None:
    rig = Rig(tmp_path, policy="group")
    shard = await rig.start()
    rule = shard._rule
    shard._rule = msgspec.structs.replace(rule, wait_s=3600.0)
    first = asyncio.create_task(rig.send(rig.admit("a")))
    await until(lambda: shard._linger is not None)
    armed = shard._linger
    second = asyncio.create_task(rig.send(rig.admit("b")))
    await until(lambda: len(shard.machine.waiting) == 2)
    await asyncio.sleep(0)  # The turn that the second one asked for.
    assert shard._linger is armed
    resting = asyncio.create_task(shard.rest())
    for _ in range(5):
        await asyncio.sleep(0)
    assert not resting.done()
    shard._rule = msgspec.structs.replace(rule, wait_s=0.0)
    shard._schedule_pump()
    await asyncio.wait_for(resting, 20)
    (a,), (b,) = await first, await second
    assert a.time == b.time, "one group"
    assert (a.offset, b.offset) == (1, 2)
    await shard.stop()


async def test_a_write_that_is_answered_twice_is_our_bug(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    shard = await rig.start()
    stand = shard.stand
    assert isinstance(stand, Written)
    with pytest.raises(InvariantBroken, match="a write is answered once"):
        shard._written(stand)
    await shard.stop()


async def test_who_waits_for_rest_is_not_kept_by_a_group_that_found_no_room(full: Rig) -> None:
    sending = asyncio.create_task(full.send(full.admit("a")))
    await asyncio.sleep(0)
    await asyncio.wait_for(full.shard.rest(), 20)
    (reply,) = await sending
    assert code_of(reply) == "READ_ONLY"


async def test_space_is_looked_for_once_however_often_there_is_none(
    full: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver, "SPACE_POLL_S", 3600.0)
    shard = full.shard
    looks: list[float] = []
    later = shard._loop.call_later

    def watched(delay: float, what: Any, *args: Any) -> Any:
        if what == shard._poll_space:
            looks.append(delay)
        return later(delay, what, *args)

    monkeypatch.setattr(shard._loop, "call_later", watched)
    await full.send(full.admit("a"))
    assert shard.status().state == "read_only"
    for _ in range(3):  # The engine's own commands are tried whatever the state.
        shard.log_own(RaiseFloor(1))
        await asyncio.wait_for(shard.rest(), 20)
    assert looks == [3600.0]


async def fill(rig: Rig, disk: SmallDisk) -> int:
    """Send until there is no room for another segment; returns how many were accepted."""
    disk.full = True
    accepted = 0
    while True:
        replies = await rig.send(*(rig.admit(f"{accepted}-{n}-{'y' * 90}") for n in range(100)))
        if replies[0].outcome != "accepted":
            assert code_of(replies[0]) == "READ_ONLY"
            assert rig.shard.log.read_only
            return accepted
        accepted += 100


def looks_for_room(shard: Shard) -> list[None]:
    """Grows with every look."""
    looks: list[None] = []
    poll = shard._poll_space

    def counted() -> None:
        looks.append(None)
        poll()

    shard._poll_space = counted  # type: ignore[method-assign]
    return looks


@pytest.mark.parametrize("end", ["halt", "stop"])
async def test_a_shard_that_ends_without_room_looks_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    monkeypatch.setattr(driver, "SPACE_POLL_S", 0.01)
    disk = SmallDisk(LocalDisk(tmp_path))
    # It cannot drain without room: there is no need to wait for long.
    rig = Rig(tmp_path, disk=disk, limits=msgspec.structs.replace(LIMITS, drain_s=0.2))
    shard = await rig.start()
    accepted = await fill(rig, disk)
    assert disk.exists("RESERVE")
    looks = looks_for_room(shard)
    await until(lambda: len(looks) > 1)
    if end == "halt":
        shard._halt(InvariantBroken("memory is void"))
    else:
        await shard.stop()
        assert not disk.exists("RESERVE"), "it gave its last outcomes room"
    await asyncio.sleep(0.1)  # The look that was due when it ended.
    looked = len(looks)
    await asyncio.sleep(0.2)
    assert len(looks) == looked
    await shard.stop()
    disk.full = False
    shard = await rig.start()
    assert await rig.value() == accepted
    await shard.stop()


async def test_to_resume_a_shard_that_drains_does_not_open_it_again(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    shard = await rig.start()
    await shard.drain()
    await shard.resume()
    assert shard.status().state == "draining"
    assert code_of(await rig.add()) == "DRAINING"
    await shard.stop()


async def test_an_override_is_refused_while_the_write_beside_the_halt_lasts(tmp_path: Path) -> None:
    rig = Rig(tmp_path, domains=(Fragile(),))
    shard = await rig.start()
    refused: list[EngineError] = []

    def halted(_ticket: Ticket) -> None:
        assert shard._writing is not None
        try:
            shard.skip(1, "thirteen is not allowed").send(None)
        except EngineError as error:
            refused.append(error)

    behind: list[Ticket] = []
    shard.submit([rig.admit("bad", 13)], Ticket(1, halted))
    await asyncio.sleep(0)  # Its group is being written, and the next one forms behind it.
    assert shard._writing is not None
    shard.submit([rig.admit("next", 1)], Ticket(1, behind.append))
    await until(lambda: refused and behind)
    assert [error.code for error in refused] == ["SHARD_UNAVAILABLE"]
    await until(lambda: shard._writing is None)
    await shard.skip(1, "thirteen is not allowed")
    await rig.kill()
    shard = await rig.start()
    assert await rig.value() == 1
    await shard.stop()


async def test_who_gave_up_waiting_for_rest_does_not_keep_it_from_others(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    shard = await rig.start()
    first, second = (shard._at_rest.add() for _ in range(2))
    first.cancel()
    shard._settle()
    await asyncio.wait_for(second, 20)
    await shard.stop()


def test_before_the_first_flush_every_quantile_is_zero() -> None:
    assert FlushTimes().quantile(0.99) == 0.0
