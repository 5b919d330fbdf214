"""A copy that lacks what was cut from its leader's log is filled from a snapshot, over sockets."""

import asyncio
import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs
from tests.unit.replication.three import Three, three, until

from ultraengine.log.survey import read_all
from ultraengine.model.errors import InvariantBroken
from ultraengine.ports import Disk, File
from ultraengine.replication.driver import ReplicaDriver
from ultraengine.replication.installing.offer import (
    OFFER,
    PIECE_BYTES,
    Fetch,
    Offered,
    Part,
    Piece,
    Withdrawn,
)
from ultraengine.replication.installing.place import BESIDE, INSTALL_TEMPORARY, Installed
from ultraengine.replication.installing.receiving import driver as receiving
from ultraengine.replication.installing.stock import OpenPart, Taken
from ultraengine.replication.messages import Append, Beacon
from ultraengine.replication.record import ReplicaId
from ultraengine.replication.writing.driver import read_stored
from ultraengine_adapters.local.disk import LocalDisk

STATE = "snapshots/state"
HISTORY = "history/his"


class Shelf:
    """A stock with one snapshot, which is a large file, and a history."""

    def __init__(self, place: Path, number: int) -> None:
        self.disk: Disk = Three.disk(place, number)
        self.sequence_end = -1
        self.wrong = ""
        self.taken: list[Taken] = []

    def put(self, sequence_end: int, content: bytes) -> None:
        self.sequence_end = sequence_end
        for path in (STATE, HISTORY):
            self.disk.make_directory(path.partition("/")[0])
            file = self.disk.open(path, create=True, write=True)
            file.pwrite(content if path == STATE else b"history", 0)
            file.close()

    def take(self) -> Taken | None:
        if self.sequence_end < 0:
            return None
        parts = []
        for path in (STATE, HISTORY):
            file = self.disk.open(path)
            parts.append(OpenPart(Part(path, file.size()), file))
        parts.append(OpenPart(Part("snapshots/list", 3), None, b"one"))
        self.taken.append(Taken(self.sequence_end, parts))
        return self.taken[-1]

    def prove(self, beside: str, sequence_end: int) -> str:
        assert read_all(self.disk, "snapshots/list" + beside) == b"one"
        return self.wrong if sequence_end >= 0 else "no"


CONTENT = bytes(range(256)) * 4096 * 2


async def filled(made: Three, leader: int, frames: int = 30) -> int:
    """Commit frames, and cut what a snapshot makes unnecessary: where the log begins then."""
    for number in range(frames):
        await made.commit(leader, b"%d" % number + bytes(20_000))
    log = made.drivers[leader].files.view.log
    made.shelves[leader].put(int(log.durable.durable_end), CONTENT)
    log.retain(int(log.point.offset), int(log.durable.durable_end), {})
    first = int(log.reader().first.sequence)
    assert 0 < first <= int(log.durable.durable_end)
    return first


async def away(made: Three, leader: int) -> int:
    """A follower that is not there any more, and not waited for."""
    gone = next(one for one in range(3) if one != leader)
    await made.kill(gone)
    await made.in_sync(2)
    return gone


async def emptied(
    made: Three, tmp_path: Path, disk: Callable[[Path], Disk] = LocalDisk
) -> tuple[int, ReplicaDriver]:
    """A follower that lost its disk, and lacks what its leader's log does not have any more."""
    leader = await made.leader()
    gone = await away(made, leader)
    await filled(made, leader)
    (tmp_path / str(gone)).rename(tmp_path / "gone")
    return gone, await made.start(gone, disk=disk(tmp_path / str(gone)))


async def begun_again(made: Three, number: int, **changes: Any) -> None:
    """Wait until a copy was filled and its life is over, and begin the next one."""
    await until(lambda: any(isinstance(e, Installed) for n, e in made.ends if n == number))
    made.ends = [(n, e) for n, e in made.ends if n != number]
    await made.kill(number)
    await made.start(number, **changes)


def run(story: Callable[[], Any]) -> None:
    asyncio.run(story())


def payloads(made: Three, number: int) -> list[bytes]:
    view = made.drivers[number].files.view
    reader = view.log.reader()
    return [one.payload for one in reader.frames(int(reader.first.sequence))]


def test_an_empty_disk_is_filled_from_a_snapshot_and_the_log_behind_it(tmp_path: Path) -> None:
    async def story() -> None:
        async with three(tmp_path, shelf=Shelf) as made:
            leader = await made.leader()
            await made.in_sync(3)
            gone = await away(made, leader)
            first = await filled(made, leader)
            (tmp_path / str(gone)).rename(tmp_path / "gone")
            await made.start(gone)
            await begun_again(made, gone)
            assert int(made.drivers[gone].files.view.log.reader().first.sequence) == first
            await made.commit(leader, b"after")
            await made.in_sync(3)
            await made.equal()
            assert payloads(made, gone) == payloads(made, leader)
            for path, content in ((STATE, CONTENT), (HISTORY, b"history")):
                assert read_all(Three.disk(tmp_path, gone), path) == content
            assert not made.ends

    run(story)


def test_a_copy_that_was_away_too_long_keeps_disk_and_promise_and_loses_its_old_files(
    tmp_path: Path,
) -> None:
    async def story() -> None:
        async with three(tmp_path, shelf=Shelf) as made:
            leader = await made.leader()
            await made.in_sync(3)
            await made.commit(leader, b"before")
            await made.equal()
            gone = next(one for one in range(3) if one != leader)
            seat = made.drivers[gone].me.seat
            await made.kill(gone)
            await made.in_sync(2)
            await filled(made, leader)
            disk = Three.disk(tmp_path, gone)
            before = read_stored(disk)
            disk.make_directory("dedup")
            disk.open("dedup/old", create=True, write=True).close()
            await made.start(gone)
            await begun_again(made, gone)
            assert made.drivers[gone].me.seat == seat
            assert made.drivers[gone].me.start == before.start + 2
            assert read_stored(disk).promise.epoch >= before.promise.epoch == 1
            assert read_stored(disk).promise.seated
            assert disk.list("dedup") == []
            await made.in_sync(3)
            await made.equal()
            assert payloads(made, gone) == payloads(made, leader)

    run(story)


def test_a_copy_that_is_too_slow_for_its_leaders_log_is_filled_while_it_runs(
    tmp_path: Path,
) -> None:
    async def story() -> None:
        async with three(tmp_path, shelf=Shelf) as made:
            leader = await made.leader()
            await made.in_sync(3)
            slow = next(one for one in range(3) if one != leader)
            listener = made.drivers[slow]._listener
            deliver, deaf = listener._deliver, True

            async def hears(source: Any, message: Any) -> None:
                if not (deaf and isinstance(message, Append | Beacon)):
                    await deliver(source, message)

            listener._deliver = hears
            await made.in_sync(2)
            await filled(made, leader)
            assert made.drivers[slow].machine.follower.joined == 1
            deaf = False
            await begun_again(made, slow)
            await made.in_sync(3)
            await made.equal()
            assert payloads(made, slow) == payloads(made, leader)

    run(story)


def test_without_a_snapshot_nothing_is_installed_until_there_is_one(tmp_path: Path) -> None:
    async def story() -> None:
        async with three(tmp_path, shelf=Shelf) as made:
            leader = await made.leader()
            gone = await away(made, leader)
            await filled(made, leader)
            shelf = made.shelves[leader]
            end, shelf.sequence_end = shelf.sequence_end, -1
            (tmp_path / str(gone)).rename(tmp_path / "gone")
            answers = heard(await made.start(gone))
            await until(lambda: any(isinstance(one, Withdrawn) for one in answers))
            shelf.sequence_end = 0  # Taken before the log begins: it does not go on from there.
            await until(lambda: shelf.taken)
            assert not any(isinstance(one, Offered) for one in answers)
            made.shelves[gone].wrong = "bad sections"
            shelf.sequence_end = end
            with capture_logs() as lines:
                await until(lambda: "bad sections" in [one.get("why") for one in lines])
            made.shelves[gone].wrong = ""
            await begun_again(made, gone)
            await made.in_sync(3)

    run(story)


def heard(driver: Any) -> list[Any]:
    """What a driver hears of transfers from now on."""
    answers: list[Any] = []
    hear = driver._receiving.hear

    def note(source: Any, answer: Any) -> None:
        answers.append(answer)
        hear(source, answer)

    driver._receiving.hear = note
    return answers


def test_a_piece_that_was_changed_on_its_way_is_noticed_and_all_of_it_is_got_again(
    tmp_path: Path,
) -> None:
    async def story() -> None:
        async with three(tmp_path, shelf=Shelf) as made:
            gone, driver = await emptied(made, tmp_path)
            hear = driver._receiving.hear
            changed: list[Piece] = []

            def once(source: Any, answer: Any) -> None:
                if isinstance(answer, Piece) and answer.position == PIECE_BYTES and not changed:
                    changed.append(answer)
                    answer = Piece(answer.number, answer.part, answer.position, b"x" * PIECE_BYTES)
                hear(source, answer)

            driver._receiving.hear = once  # type: ignore[method-assign]
            await begun_again(made, gone)
            assert changed
            assert read_all(Three.disk(tmp_path, gone), STATE) == CONTENT
            await made.in_sync(3)

    run(story)


def test_what_is_lost_is_asked_again_and_a_leader_that_is_silent_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(receiving, "ASK_AGAIN_S", 0.2)

    async def story() -> None:
        async with three(tmp_path, shelf=Shelf) as made:
            gone, driver = await emptied(made, tmp_path)
            hear = driver._receiving.hear
            lost: list[Any] = []

            def loses(source: Any, answer: Any) -> None:
                # Whole attempts at first, then every second answer.
                if len(lost) < 12 or len(lost) % 2:
                    lost.append(answer)
                    return
                lost.append(None)
                hear(source, answer)

            driver._receiving.hear = loses  # type: ignore[method-assign]
            await begun_again(made, gone)
            assert {type(one) for one in lost} >= {Offered, Piece}
            assert read_all(Three.disk(tmp_path, gone), STATE) == CONTENT
            await made.in_sync(3)

    run(story)


def test_questions_of_nobody_are_withdrawn_and_late_ones_are_not_answered(tmp_path: Path) -> None:
    async def story() -> None:
        async with three(tmp_path, shelf=Shelf) as made:
            leader = await made.leader()
            await made.in_sync(3)
            await filled(made, leader)
            other = next(one for one in range(3) if one != leader)
            sending, me = made.drivers[leader]._sending, made.drivers[other].me
            told: list[Any] = []
            sending._send = lambda to, answer: told.append((to, answer))
            source = ReplicaId(other)

            async def ask(*fetches: Fetch) -> list[Any]:
                told.clear()
                for fetch in fetches:
                    sending.hear(source, fetch)
                await asyncio.sleep(0.1)
                return [answer for _, answer in told]

            (answer,) = await ask(Fetch(me, 7, 0, 0))
            assert answer == Withdrawn(7, "nothing is offered")
            (offered,) = await ask(Fetch(me, 7, OFFER, 0))
            assert isinstance(offered, Offered)
            assert await ask(Fetch(me, 7, 0, 5), Fetch(me, 7, 9, 0)) == []
            first, again = await ask(Fetch(me, 7, 0, 0), Fetch(me, 7, 0, 0))
            assert first == again
            shelf = made.shelves[leader]
            shelf.taken[-1].parts[0].part = Part(STATE, 2**40)
            assert await ask(Fetch(me, 7, 0, len(CONTENT) - PIECE_BYTES)) == []
            for position in range(PIECE_BYTES, len(CONTENT), PIECE_BYTES):
                await ask(Fetch(me, 7, 0, position))
            (short,) = await ask(Fetch(me, 7, 0, len(CONTENT)))
            assert isinstance(short, Withdrawn)
            for _ in range(99):
                sending.hear(source, Fetch(me, 7, 0, 0))
            assert sending._questions.full()

    run(story)


def test_no_more_is_sent_in_a_second_than_is_allowed(tmp_path: Path) -> None:
    async def story() -> None:
        async with three(tmp_path, shelf=Shelf) as made:
            leader = await made.leader()
            gone = await away(made, leader)
            await filled(made, leader)
            sending = made.drivers[leader]._sending
            sending._bytes_per_s = len(CONTENT)
            (tmp_path / str(gone)).rename(tmp_path / "gone")
            began = made.drivers[leader]._now()
            await made.start(gone)
            await begun_again(made, gone)
            # All but the first piece had to wait; a slower machine only takes longer.
            assert sending._free_at - began >= (len(CONTENT) - PIECE_BYTES) / len(CONTENT)

    run(story)


def test_a_copy_that_goes_on_by_its_own_log_is_not_replaced(tmp_path: Path) -> None:
    async def story() -> None:
        async with three(tmp_path, shelf=Shelf) as made:
            gone, driver = await emptied(made, tmp_path)
            prove: Callable[[str, int], str] = made.shelves[gone].prove
            joins = driver.machine.joins

            def meanwhile(beside: str, sequence_end: int) -> str:
                driver.machine.joins += 1
                return prove(beside, sequence_end)

            made.shelves[gone].prove = meanwhile
            await until(lambda: driver.machine.joins > joins + 1)
            assert not made.ends
            made.shelves[gone].prove = prove
            await begun_again(made, gone)
            assert not [n for n in Three.disk(tmp_path, gone).list("snapshots") if BESIDE in n]

    run(story)


def test_another_leader_ends_an_attempt_with_the_one_before(tmp_path: Path) -> None:
    async def story() -> None:
        async with three(tmp_path, shelf=Shelf) as made:
            leader = await made.leader()
            gone = await away(made, leader)
            await filled(made, leader)
            made.drivers[leader]._sending._bytes_per_s = 1.0  # Never.
            (tmp_path / str(gone)).rename(tmp_path / "gone")
            driver = await made.start(gone)
            await until(lambda: driver._receiving._leader is not None)
            other = next(one for one in range(3) if one not in {leader, gone})
            driver._receiving.lacks(made.drivers[other].me)
            await until(lambda: driver._receiving._number == 2)
            made.drivers[leader]._sending._bytes_per_s = 0.0
            made.drivers[leader]._sending._free_at = 0.0

    run(story)


class Nameless(LocalDisk):
    """A directory in which no copy can be named that is to take the place of the one there."""

    def open(self, path: str, *, create: bool = False, write: bool = False) -> File:
        if path == INSTALL_TEMPORARY:
            raise OSError(errno.EIO, "the disk is broken")
        return super().open(path, create=create, write=write)


def test_a_whole_copy_that_cannot_be_named_ends_the_life_that_has_stopped_for_it(
    tmp_path: Path,
) -> None:
    async def story() -> None:
        async with three(tmp_path, shelf=Shelf) as made:
            gone, _ = await emptied(made, tmp_path, Nameless)
            await until(lambda: made.ends)
            assert [(n, "could not be named" in str(e)) for n, e in made.ends] == [(gone, True)]
            # Nothing of it was put in place, and the next life is filled as if nothing had been.
            await begun_again(made, gone)
            assert not Three.disk(tmp_path, gone).list("history")
            await begun_again(made, gone)
            await made.in_sync(3)

    run(story)


def test_answers_that_are_late_or_that_nobody_waits_for_change_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(receiving, "ASK_AGAIN_S", 60.0)

    async def story() -> None:
        async with three(tmp_path, shelf=Shelf) as made:
            gone, driver = await emptied(made, tmp_path)
            other = next(one for one in made.drivers.values() if one is not driver)
            idle, hear = other._receiving, driver._receiving.hear
            idle.hear(ReplicaId(gone), Withdrawn(1, "late"))
            assert idle._answers.empty()
            with pytest.raises(InvariantBroken, match="somebody is asked"):
                await idle._ask(Fetch(other.me, 1, OFFER, 0), Offered)

            def twice(source: Any, answer: Any) -> None:
                hear(source, Withdrawn(answer.number - 1, "an attempt that is over"))
                if isinstance(answer, Piece):
                    hear(source, Piece(answer.number, answer.part, answer.position - 1, b"late"))
                hear(source, answer)

            driver._receiving.hear = twice  # type: ignore[method-assign]
            await begun_again(made, gone)
            assert driver._receiving._number == 1, "in one attempt"
            assert read_all(Three.disk(tmp_path, gone), STATE) == CONTENT

    run(story)
