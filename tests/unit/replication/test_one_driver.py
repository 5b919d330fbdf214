"""One replica in real time when something is missing, late, wrong or over."""

import asyncio
import shutil
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs
from tests.unit.replication.test_driver import payloads, with_troubles
from tests.unit.replication.three import Three, three, until

from ultraengine.log.driver import Written
from ultraengine.log.frame import FrameDraft, FrameKind
from ultraengine.model.errors import InvariantBroken
from ultraengine.ports import DiskFull
from ultraengine.replication import driver as drivers
from ultraengine.replication.effects import Diverged, Effects, ReplicaLimits, Sending
from ultraengine.replication.handover import driver as handovers
from ultraengine.replication.installing.offer import Withdrawn
from ultraengine.replication.messages import Append, Ask
from ultraengine.replication.record import Holder, ReplicaId, Seat
from ultraengine.replication.wire import Greeting, WireDamaged

PATIENT = ReplicaLimits(silence_s=60.0, read_s=0.1)
"""Nobody leaves the ISR while a test looks."""


def other_than(number: int) -> int:
    return next(one for one in range(3) if one != number)


async def test_whoever_waits_for_a_replica_to_lead_is_told_its_epoch(tmp_path: Path) -> None:
    async with three(tmp_path) as made:
        leader = await made.leader()
        driver = made.drivers[leader]
        driver.executed_end = lambda: 17
        assert await driver.led() == await driver.led() == 1
        report = driver.report()
        assert (report.role, report.positions.executed_end) == ("leader", 17)


async def test_frames_that_nobody_else_has_are_cut_when_another_has_led(tmp_path: Path) -> None:
    async with three(tmp_path, limits=PATIENT) as made:
        first = await made.leader()
        await made.in_sync(3)
        await made.commit(first, b"kept")
        await made.equal()
        for one in range(3):
            if one != first:
                deafen(made, one)
        lost = asyncio.ensure_future(made.commit(first, b"lost"))
        await until(lambda: payloads(made, first)[-1] == b"lost")
        await made.kill(first)
        second = await made.leader()
        await made.commit(second, b"instead")
        with capture_logs() as lines:
            await made.start(first, limits=PATIENT)
            await made.equal()
        assert [one["was"] - one["end"] for one in lines if one["event"] == "log.cut"] == [1]
        assert payloads(made, first) == payloads(made, second)
        assert payloads(made, first) == [b"epoch 1", b"kept", b"epoch 2", b"instead"]
        assert Three.disk(tmp_path, first).list("broken")
        assert not lost.done(), "it was never told of a commit"
        lost.cancel()


def deafen(made: Three, number: int) -> None:
    """Let a copy hear no frames any more from the one that leads now."""
    listener = made.drivers[number]._listener
    deliver, epoch = listener._deliver, made.drivers[number].machine.promise.epoch

    async def hears(source: ReplicaId, message: Any) -> None:
        if not (isinstance(message, Append) and message.epoch == epoch):
            await deliver(source, message)

    listener._deliver = hears


async def test_a_log_that_contradicts_what_is_committed_ends_its_replica_once(
    tmp_path: Path,
) -> None:
    async with three(tmp_path) as made:
        leader = await made.leader()
        driver = made.drivers[other_than(leader)]
        driver._post(lambda: driver._do(Effects(diverged=True)))
        await until(lambda: made.ends)
        driver._end(OSError("and then the disk"))
        assert [type(error) for _, error in made.ends] == [Diverged]


async def test_while_a_step_takes_long_one_tick_waits_and_not_one_for_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with three(tmp_path) as made:
        driver = made.drivers[await made.leader()]
        goes, begun = asyncio.Event(), asyncio.Event()

        async def hangs() -> None:
            begun.set()
            await goes.wait()

        driver._post(hangs)
        await begun.wait()
        monkeypatch.setattr(drivers, "TICK_S", 0.001)
        await asyncio.sleep(0.2)
        monkeypatch.undo()
        waiting = list(driver._inbox._queue)  # type: ignore[attr-defined]
        assert waiting.count(driver._ticked) <= 1
        goes.set()
        await until(lambda: driver._ticked not in driver._inbox._queue)  # type: ignore[attr-defined]


async def test_a_greeting_of_another_replica_than_was_dialled_is_refused(tmp_path: Path) -> None:
    async with three(tmp_path) as made:
        leader = await made.leader()
        driver, others = made.drivers[leader], [one for one in range(3) if one != leader]
        first, second = (made.drivers[one] for one in others)
        ours = driver._options

        def greeting(me: Holder) -> Greeting:
            return Greeting(ours.cluster_uid, ours.shard, me)

        driver._checking(ReplicaId(others[0]))(greeting(first.me))
        driver._checking(None)(greeting(second.me))
        with pytest.raises(WireDamaged, match=f"it is replica {others[1]}"):
            driver._checking(ReplicaId(others[0]))(greeting(second.me))
        stranger = Holder(Seat(ReplicaId(7), first.me.seat.disk), 1)
        with pytest.raises(WireDamaged, match="it is replica 7"):
            driver._checking(None)(greeting(stranger))


async def test_what_is_for_nobody_goes_nowhere(tmp_path: Path) -> None:
    async with three(tmp_path) as made:
        leader = await made.leader()
        driver, gone = made.drivers[leader], ReplicaId(other_than(leader))
        await made.kill(int(gone))
        link = driver._links[gone]
        await until(lambda: not link.connected)
        dropped, waiting = link.dropped, driver._inbox.qsize()
        driver._transfer(gone, Withdrawn(1, "nothing"))
        driver._transfer(ReplicaId(9), Withdrawn(1, "nothing"))
        driver._tell(ReplicaId(9), Ask(1))
        assert (link.dropped, driver._inbox.qsize()) == (dropped, waiting)
        sent: list[int] = []
        for one in driver._links.values():
            one.send = lambda raw: sent.append(len(raw))  # type: ignore[method-assign]
        await driver._do(Effects(sends=[Sending(None, Ask(1))]))
        assert not sent, "nobody has asked"


async def test_only_who_leads_begins_an_epoch_or_appends(tmp_path: Path) -> None:
    async with three(tmp_path) as made:
        leader = await made.leader()
        await made.in_sync(3)
        await made.equal()
        driver = made.drivers[other_than(leader)]
        with pytest.raises(InvariantBroken, match="who begins an epoch leads it"):
            await driver._begin()
        told: list[Written] = []
        end, point = driver.files.view.end, driver.files.view.log.point
        draft = FrameDraft(FrameKind.COMMANDS, point.offset, 1, point.time, b"not mine")
        driver.append([draft], told.append)
        passed = asyncio.Event()

        async def passes() -> None:
            passed.set()

        driver._post(passes)
        await passed.wait()
        assert (driver.files.view.end, told) == (end, [])
        driver.watching.begins(driver.executed_end())
        driver.watching.serves()
        assert driver.report().last_failover is None, "it has led nothing"
        record = await made.in_sync(3)
        driver.watching.read(record)
        driver.watching.read(None)
        assert driver.watching.record is not None, "a record that is not read is not none"


async def led_by_troubled(made: Three, place: Path) -> tuple[int, Any]:
    """Who leads on a disk that obeys the test, and the disk."""
    leader, other, disk = await with_troubles(made, place)
    await made.equal()
    driver = made.drivers[leader]
    record = await driver.handing.to(driver.machine, made.drivers[other].me.seat, 60.0)
    assert record is not None
    await driver.handing.tell_successor(record)
    await made.kill(leader)
    await until(lambda: made.drivers[other].machine.serves)
    return other, disk


async def test_a_leader_without_room_says_so_to_whoever_appends_and_leads_on(
    tmp_path: Path,
) -> None:
    async with three(tmp_path) as made:
        leader, disk = await led_by_troubled(made, tmp_path)
        disk.full = True
        refused = await made.commit(leader, b"no room")
        assert isinstance(refused.error, DiskFull)
        disk.full = False
        while (await made.commit(leader, b"again")).error is not None:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        assert payloads(made, leader)[-1] == b"again"
        assert b"no room" not in payloads(made, leader)
        assert not made.ends


async def test_who_has_no_room_for_the_begin_of_its_epoch_ends(tmp_path: Path) -> None:
    async with three(tmp_path) as made:
        leader, other, disk = await with_troubles(made, tmp_path)
        await made.equal()
        driver = made.drivers[leader]
        disk.full = True
        record = await driver.handing.to(driver.machine, made.drivers[other].me.seat, 60.0)
        assert record is not None
        await driver.handing.tell_successor(record)
        await until(lambda: made.ends)
        assert [(one, type(error)) for one, error in made.ends] == [(other, DiskFull)]


async def test_a_successor_that_stays_silent_is_told_for_a_while_and_then_left(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(handovers, "AGAIN_S", 0.001)
    monkeypatch.setattr(handovers, "TELL_S", 0.005)
    async with three(tmp_path) as made:
        await made.leader()
        record = await made.in_sync(3)
        told: list[object] = []
        handing = handovers.HandingOver(lambda _step: None, lambda to, _what: told.append(to))
        assert not await handing.tell_successor(record)
        assert told == [record.holder.seat.replica] * 5


async def test_without_its_record_a_shard_with_history_is_led_by_nobody(tmp_path: Path) -> None:
    async with three(tmp_path) as made:
        leader = await made.leader()
        await made.commit(leader, b"history")
        for number in range(3):
            await made.kill(number)
        shutil.rmtree(tmp_path / "record")
        made.renew_record()
        with capture_logs() as lines:
            for number in range(3):
                await made.start(number)
            await until(lambda: any(one["event"] == "record.lost" for one in lines))
            planning = made.drivers[0]._planning
            asked = planning._foundings
            await until(lambda: planning._foundings > asked + 2)
        assert [one["event"] for one in lines].count("record.lost") == 1, "said once"
        assert made.records.read() is None
        assert not any(driver.machine.leads for driver in made.drivers.values())
