"""Three drivers over real sockets replicate a log, and go on without one of them."""

import asyncio
from pathlib import Path

import msgspec
import pytest
from structlog.testing import capture_logs
from tests.unit.replication.three import Three, three, until, write_alone
from tests.unit.replication.troubled import TroubledDisk

from ultraengine.log.damage import LogRefused
from ultraengine.model.errors import EngineError
from ultraengine.model.ids import Epoch
from ultraengine.replication.effects import Deposed
from ultraengine.replication.messages import Reserve
from ultraengine.replication.record import ReplicaId
from ultraengine.replication.sizing import Wish
from ultraengine.replication.writing import driver as writing
from ultraengine.replication.writing.driver import read_stored


def payloads(made: Three, number: int) -> list[bytes]:
    return [one.payload for one in made.frames(number)]


def run(story: object) -> None:
    asyncio.run(story)  # type: ignore[arg-type]


def test_what_is_committed_is_on_all_disks_in_sync(tmp_path: Path) -> None:
    async def story() -> None:
        async with three(tmp_path) as made:
            leader = await made.leader()
            await made.in_sync(3)
            for number in range(20):
                written = await made.commit(leader, b"%d" % number)
                assert written.durable_end >= written.end_sequence
                for one in range(3):
                    assert made.drivers[one].files.view.durable_end >= written.end_sequence
            await made.equal()
            assert payloads(made, 0) == payloads(made, 1) == payloads(made, 2)
            assert payloads(made, 0) == [b"epoch 1", *(b"%d" % number for number in range(20))]
            assert not made.ends

    run(story())


def test_without_its_leader_the_others_go_on_with_everything_committed(tmp_path: Path) -> None:
    async def story() -> None:
        async with three(tmp_path) as made:
            first = await made.leader()
            await made.in_sync(3)
            for number in range(5):
                await made.commit(first, b"%d" % number)
            await made.kill(first)
            second = await made.leader()
            assert second != first
            await made.commit(second, b"after")
            before = payloads(made, second)
            assert before[:6] == [b"epoch 1", b"0", b"1", b"2", b"3", b"4"]
            assert before[-1] == b"after"
            await made.start(first)
            await made.in_sync(3)
            await made.equal()
            assert payloads(made, first) == payloads(made, second)

    run(story())


def test_a_follower_that_was_away_is_waited_for_no_more_and_catches_up(tmp_path: Path) -> None:
    async def story() -> None:
        async with three(tmp_path) as made:
            leader = await made.leader()
            await made.in_sync(3)
            away = next(one for one in range(3) if one != leader)
            await made.kill(away)
            # Several segments, and more than one message may hold.
            for _ in range(40):
                await made.commit(leader, b"x" * 20_000)
            assert len((await made.in_sync(2)).isr) == 2
            await made.start(away)
            await made.in_sync(3)
            await made.equal()
            assert payloads(made, away) == payloads(made, leader)

    run(story())


def test_below_min_isr_nothing_is_committed_until_a_copy_is_back(tmp_path: Path) -> None:
    async def story() -> None:
        async with three(tmp_path) as made:
            leader = await made.leader()
            await made.in_sync(3)
            others = [one for one in range(3) if one != leader]
            for one in others:
                await made.kill(one)
            commit = asyncio.ensure_future(made.commit(leader, b"alone"))
            view = made.drivers[leader].files.view
            await until(lambda: payloads(made, leader)[-1] == b"alone")
            assert view.durable_end > made.drivers[leader].machine.committed_end
            assert not commit.done()
            await made.start(others[0])
            await commit
            assert payloads(made, others[0])[-1] == b"alone"

    run(story())


def test_all_of_them_killed_at_once_keep_what_was_committed(tmp_path: Path) -> None:
    async def story() -> None:
        async with three(tmp_path) as made:
            leader = await made.leader()
            await made.commit(leader, b"kept")
            for number in range(3):
                await made.kill(number)
            for number in range(3):
                await made.start(number)
            again = await made.leader()
            assert b"kept" in payloads(made, again)
            await made.commit(again, b"more")
            assert payloads(made, again).index(b"kept") < payloads(made, again).index(b"more")

    run(story())


def test_who_has_led_and_leads_no_more_ends(tmp_path: Path) -> None:
    async def story() -> None:
        async with three(tmp_path) as made:
            leader = await made.leader()
            await made.in_sync(3)
            # Cut off from both others, which go on without it.
            driver = made.drivers[leader]
            await driver._listener.close()
            for link in driver._links.values():
                link.send = lambda raw: None  # type: ignore[method-assign]
            await until(lambda: made.ends)
            assert [(one, type(error)) for one, error in made.ends] == [(leader, Deposed)]

    run(story())


def test_a_copy_reports_its_role_who_leads_and_the_failover_that_made_it_lead(
    tmp_path: Path,
) -> None:
    async def story() -> None:
        async with three(tmp_path) as made:
            leader = await made.leader()
            await made.in_sync(3)
            await made.commit(leader, b"one")
            watching = made.drivers[leader].watching
            watching.serves()
            told = watching.report(7)
            assert (told.role, told.leader, told.positions.executed_end) == ("leader", leader, 7)
            assert sorted(told.in_sync) == [0, 1, 2]
            assert told.last_failover is not None
            assert (told.last_failover.old_epoch, told.last_failover.new_epoch) == (0, 1)
            served_at = told.last_failover.serving_at
            assert served_at is not None
            watching.serves()
            again = watching.report(7).last_failover
            assert again is not None
            assert again.serving_at == served_at, "it began to serve once"
            assert "nobody else does" in watching.refusal()
            other = made.drivers[next(one for one in range(3) if one != leader)].watching
            await until(lambda: other.report(0).leader == leader)
            follows = other.report(0)
            assert (follows.role, follows.last_failover) == ("follower", None)
            assert f"replica {leader} leads" in other.refusal()
            # Fed by its leader all the time, it keeps up; who leads is fed by nobody.
            await until(lambda: other.lagging(0.0) == "")
            assert "9 s late" in other.lagging(9.0)
            assert "silent" in watching.lagging(0.0)

    run(story())


def test_a_leader_hands_over_to_a_copy_that_leads_with_everything(tmp_path: Path) -> None:
    async def story() -> None:
        async with three(tmp_path) as made:
            first = await made.leader()
            await made.in_sync(3)
            for number in range(5):
                await made.commit(first, b"%d" % number)
            driver = made.drivers[first]
            wanted = next(one for one in range(3) if one != first)
            seat = made.drivers[wanted].me.seat
            record = await driver.handing.to(driver.machine, seat, 30.0)
            assert record is not None
            assert (record.holder.seat, record.epoch) == (seat, 2)
            await driver.handing.tell_successor(record)
            second = await made.leader()
            assert second == wanted
            assert await driver.handing.to(driver.machine, seat, 30.0) is None, "once"
            await made.kill(first)
            await made.commit(second, b"after")
            assert payloads(made, second) == [
                b"epoch 1", b"0", b"1", b"2", b"3", b"4", b"epoch 2", b"after",
            ]  # fmt: skip
            assert not made.ends, "and nobody was deposed"

    run(story())


def test_a_leader_whose_copy_does_not_get_there_goes_on(tmp_path: Path) -> None:
    async def story() -> None:
        async with three(tmp_path) as made:
            first = await made.leader()
            await made.in_sync(3)
            driver = made.drivers[first]
            stranger = made.drivers[first].me.seat
            assert await driver.handing.to(driver.machine, stranger, 0.2) is None
            assert driver.machine.serves
            await made.commit(first, b"on")

    run(story())


def test_reads_of_a_leader_are_proved_by_its_copies_and_not_without_them(tmp_path: Path) -> None:
    async def story() -> None:
        async with three(tmp_path) as made:
            leader = await made.leader()
            await made.in_sync(3)
            confirming = made.drivers[leader].confirming
            await asyncio.gather(*(confirming.confirmed(30.0) for _ in range(50)))
            for one in range(3):
                if one != leader:
                    await made.kill(one)
            with pytest.raises(EngineError, match="could not prove"):
                await confirming.confirmed(0.3)

    run(story())


def test_a_disk_that_is_replaced_is_another_seat_and_grows_in(tmp_path: Path) -> None:
    async def story() -> None:
        async with three(tmp_path) as made:
            leader = await made.leader()
            before = await made.in_sync(3)
            await made.commit(leader, b"kept")
            gone = next(one for one in range(3) if one != leader)
            await made.kill(gone)
            await made.in_sync(2)
            (tmp_path / str(gone)).rename(tmp_path / "gone")
            await made.start(gone)
            after = await made.in_sync(3)
            assert {seat.replica for seat in after.isr} == {seat.replica for seat in before.isr}
            assert len(set(after.isr) - set(before.isr)) == 1
            await made.equal()
            assert b"kept" in payloads(made, gone)

    run(story())


def test_compressed_frames_of_a_keyed_chain_are_copied(
    tmp_path: Path,
) -> None:
    async def story() -> None:
        async with three(tmp_path, chain_key="chain", compress=True) as made:
            leader = await made.leader()
            await made.in_sync(3)
            await made.commit(leader, b"keyed" * 1000)
            await made.equal()
            assert payloads(made, 0)[-1] == payloads(made, 2)[-1] == b"keyed" * 1000

    run(story())


def test_a_log_that_was_not_replicated_is_not_taken_for_a_copy(tmp_path: Path) -> None:
    async def story() -> None:
        async with three(tmp_path) as made:
            await made.leader()
            await made.equal()
            await made.kill(2)
            (tmp_path / "2" / "REPLICA").unlink()
            with pytest.raises(LogRefused, match="not replicated"):
                await made.start(2)

    run(story())


def test_a_log_that_was_not_replicated_becomes_the_first_copy_and_others_are_taken_in(
    tmp_path: Path,
) -> None:
    async def story() -> None:
        made = Three(tmp_path)
        write_alone(made.disk(tmp_path, 0), epochs=3)
        try:
            await made.start(0, adopts=True, wish=Wish(2))
            assert await made.leader() == 0
            record = await made.in_sync(1)
            assert (record.epoch, record.replicas, record.min_isr) == (4, 1, 1)
            await made.start(1, wish=Wish(2))
            await until(lambda: made.drivers[0].report().replicas == 2)
            await made.commit(0, b"both")
            await made.equal()
            assert [one.payload for one in made.frames(1)][:3] == [b"1", b"2", b"3"]
            assert made.drivers[0].report().replicas == 2
            await made.kill(0)
            await made.start(0, adopts=True, wish=Wish(2))  # Not once more.
            assert await made.leader() in {0, 1}
            assert (await made.in_sync(2)).epoch > 4
        finally:
            for number in list(made.drivers):
                await made.kill(number)

    run(story())


def test_a_replica_of_another_engine_is_not_spoken_to(tmp_path: Path) -> None:
    async def story() -> None:
        async with three(tmp_path) as made:
            leader = await made.leader()
            await made.in_sync(3)
            other = next(one for one in range(3) if one != leader)
            await made.kill(other)
            (tmp_path / str(other)).rename(tmp_path / "gone")
            await made.start(other, cluster_uid=b"w" * 16)
            await made.in_sync(2)
            await made.commit(leader, b"without")
            links = made.drivers[leader]._links
            stranger = next(link for one, link in links.items() if int(one) == other)
            assert not stranger.connected
            assert payloads(made, other) == []

    run(story())


async def with_troubles(made: Three, place: Path) -> tuple[int, int, TroubledDisk]:
    """A leader, and a follower in sync whose disk obeys the test."""
    leader = await made.leader()
    await made.in_sync(3)
    other = next(one for one in range(3) if one != leader)
    # Whoever keeps a segment ahead looks for room again and again.
    log = made.drivers[other]._options.log
    limits = msgspec.structs.replace(log.limits, segments_prepared=1)
    await made.kill(other)
    disk = TroubledDisk(place / str(other))
    await made.in_sync(2)
    await made.start(other, disk=disk, log=msgspec.structs.replace(log, limits=limits))
    await made.in_sync(3)
    return leader, other, disk


def test_a_follower_whose_flush_hangs_leaves_and_comes_back_when_it_ends(tmp_path: Path) -> None:
    async def story() -> None:
        async with three(tmp_path) as made:
            leader, other, disk = await with_troubles(made, tmp_path)
            disk.flows.clear()
            try:
                await made.commit(leader, b"without")
                assert other not in {seat.replica for seat in (await made.in_sync(2)).isr}
                await made.commit(leader, b"more")
                assert b"without" not in payloads(made, other)
            finally:
                disk.flows.set()
            await made.in_sync(3)
            await made.equal()
            assert payloads(made, other) == payloads(made, leader)
            assert not made.ends

    run(story())


def test_a_follower_without_room_leaves_says_so_once_and_comes_back_when_there_is_some(
    tmp_path: Path,
) -> None:
    async def story() -> None:
        async with three(tmp_path) as made:
            leader, other, disk = await with_troubles(made, tmp_path)
            with capture_logs() as lines:
                disk.full = True
                await made.commit(leader, b"without")
                assert other not in {seat.replica for seat in (await made.in_sync(2)).isr}
                await made.commit(leader, b"more")
                assert disk.refused
                disk.full = False
                await made.in_sync(3)
            assert [one["event"] for one in lines].count("log.full") == 1
            await made.equal()
            assert payloads(made, other) == payloads(made, leader)
            assert not made.ends

    run(story())


def test_long_frames_are_read_a_few_at_a_time_and_none_is_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "READ_BYTES_MAX", 64 * 1024)

    async def story() -> None:
        async with three(tmp_path) as made:
            leader = await made.leader()
            await made.in_sync(3)
            away = next(one for one in range(3) if one != leader)
            await made.kill(away)
            for number in range(30):
                await made.commit(leader, bytes([number]) * 20_000)
            files = made.drivers[leader].files
            read = await files.frames(0, 31)
            assert 1 < len(read) <= 5
            assert len(await files.frames(1, 2)) == 1
            monkeypatch.setattr(writing, "READ_BYTES_MAX", 1)
            assert len(await files.frames(2, 31)) == 1
            monkeypatch.setattr(writing, "READ_BYTES_MAX", 64 * 1024)
            # What is skipped would be sent again after so long, and not before.
            never = msgspec.structs.replace(made.drivers[leader]._options.limits, resend_s=1e6)
            made.drivers[leader].machine._limits = never
            await made.start(away)
            await made.in_sync(3)
            await made.equal()
            assert payloads(made, away) == payloads(made, leader)

    run(story())


def test_the_directory_of_another_replica_is_refused(tmp_path: Path) -> None:
    async def story() -> None:
        async with three(tmp_path) as made:
            await made.leader()
            await made.equal()
            await made.kill(2)
            await made.kill(1)
            (tmp_path / "1").rename(tmp_path / "gone")
            (tmp_path / "2").rename(tmp_path / "1")
            with pytest.raises(LogRefused, match="belongs to replica '2', not to '1'"):
                await made.start(1)

    run(story())


def test_who_leads_no_more_neither_swears_nor_answers(tmp_path: Path) -> None:
    async def story() -> None:
        async with three(tmp_path) as made:
            leader = await made.leader()
            await made.in_sync(3)
            driver = made.drivers[leader]
            before = read_stored(driver._world.disk)
            await driver._deliver(ReplicaId((leader + 1) % 3), Reserve(1, Epoch(99)))
            await until(lambda: made.ends)
            assert [(one, type(error)) for one, error in made.ends] == [(leader, Deposed)]
            assert read_stored(driver._world.disk) == before
            assert before.promise.epoch == 1

    run(story())
