"""Flushing on the event loop's own thread: only on a fast disk, and only for a lone write."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.unit.shard.test_shard import Rig

from ultraengine.ports import File
from ultraengine.reply.waiters import Ticket
from ultraengine.shard.flush_times import (
    INLINE_S,
    INLINE_SLOW_MAX,
    INLINE_WINDOW,
    STALL_REST_S,
    STALL_S,
    InlineRule,
)
from ultraengine_adapters.local.disk import LocalDisk


def fed(*seconds: float) -> InlineRule:
    rule = InlineRule()
    for one in seconds:
        rule.add(one, 1.0, inline=False)
    return rule


def test_nothing_is_flushed_inline_before_enough_flushes_were_fast() -> None:
    fast = INLINE_WINDOW - INLINE_SLOW_MAX
    assert not fed(*[0.0] * (fast - 1)).allows(1.0)
    assert fed(*[0.0] * fast).allows(1.0)
    assert not fed(*[INLINE_S] * INLINE_WINDOW).allows(1.0)


def test_a_disk_that_becomes_slow_or_fast_is_noticed_within_the_window() -> None:
    rule = fed(*[0.0] * INLINE_WINDOW)
    for _ in range(INLINE_SLOW_MAX):
        rule.add(INLINE_S, 1.0, inline=False)
    assert rule.allows(1.0)
    rule.add(INLINE_S, 1.0, inline=False)
    assert not rule.allows(1.0)
    for _ in range(INLINE_WINDOW):
        rule.add(0.0, 1.0, inline=False)
    assert rule.allows(1.0)


def test_an_inline_stall_turns_it_off_for_its_rest_and_one_of_the_flush_thread_does_not() -> None:
    rule = fed(*[0.0] * INLINE_WINDOW)
    rule.add(STALL_S, 100.0, inline=False)
    assert rule.allows(100.0)
    rule.add(STALL_S, 100.0, inline=True)
    assert not rule.allows(100.0 + STALL_REST_S - 0.001)
    assert rule.allows(100.0 + STALL_REST_S)


class Watched(LocalDisk):
    """Notes the threads that sync what was written to the log's segments."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.threads: list[str] = []
        self.delay_s = 0.0
        self.fails = False

    def open(self, path: str, **more: bool) -> File:
        file = super().open(path, **more)
        if not path.startswith("log/"):
            return file
        sync = file.sync

        def watched() -> None:
            # The keeper syncs segments that it prepares ahead, whenever it comes to it.
            if (name := threading.current_thread().name) != "log-keeper":
                self.threads.append(name)
            time.sleep(self.delay_s)
            if self.fails:
                raise OSError(5, "the disk fails")
            sync()

        file.sync = watched  # type: ignore[method-assign]
        return file


class Always(InlineRule):
    """Finds every disk fast, also the one that these tests happen to run on."""

    def allows(self, now: float) -> bool:
        return True


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    rig = Rig(tmp_path, disk=Watched(tmp_path))
    await rig.start()
    rig.shard._fast = Always()
    yield rig
    await rig.shard.stop()


def threads(rig: Rig) -> list[str]:
    assert isinstance(rig.disk, Watched)
    return rig.disk.threads


async def test_a_lone_command_is_written_executed_and_answered_in_one_turn(rig: Rig) -> None:
    threads(rig).clear()
    reply = await rig.add()
    assert reply.durable is not None
    assert reply.durable.local
    assert threads(rig) == [threading.current_thread().name]
    assert rig.shard.status().durable_end == reply.offset + 1  # type: ignore[operator]


async def test_what_was_flushed_inline_survives_a_kill(rig: Rig) -> None:
    for delta in range(1, 11):
        assert (await rig.add(delta)).outcome == "accepted"
    assert set(threads(rig)) >= {threading.current_thread().name}
    await rig.kill()
    await rig.start()
    assert await rig.value() == 55


async def test_a_slow_disk_never_keeps_the_loop(rig: Rig) -> None:
    assert isinstance(rig.disk, Watched)
    rig.shard._fast = InlineRule()
    rig.disk.delay_s = INLINE_S
    rig.disk.threads.clear()
    for _ in range(INLINE_WINDOW + 4):
        await rig.add()
    assert threading.current_thread().name not in rig.disk.threads


async def test_a_sync_that_fails_inline_ends_the_log_and_acknowledges_nothing(rig: Rig) -> None:
    assert isinstance(rig.disk, Watched)
    rig.disk.fails = True
    reply = await rig.add()
    assert reply.outcome == "unknown"
    assert [str(error) for error in rig.fatal] == ["[Errno 5] the disk fails"]
    assert rig.disk.threads[-1] == threading.current_thread().name
    rig.disk.fails = False


async def test_commands_of_one_turn_share_one_inline_flush(rig: Rig) -> None:
    threads(rig).clear()
    await asyncio.gather(*(rig.send(rig.admit(f"a{n}")) for n in range(50)))
    assert threads(rig) == [threading.current_thread().name]
    assert await rig.value() == 50


async def test_commands_that_follow_from_answers_do_not_pile_up_on_the_stack(rig: Rig) -> None:
    done = asyncio.get_running_loop().create_future()
    following = iter([rig.admit(f"p{number}") for number in range(2_000)])

    def send(_ticket: Ticket | None) -> None:
        # As a connection with pipelined requests does: the answer to one submits the next.
        admitted = next(following, None)
        if admitted is None:
            done.set_result(None)
        else:
            rig.shard.submit((admitted,), Ticket(1, send))

    threads(rig).clear()
    send(None)
    await asyncio.wait_for(done, 20)
    assert await rig.value() == 2_000
    assert threading.current_thread().name in threads(rig)
    assert rig.shard.status().state == "serving"


async def test_nothing_is_flushed_inline_while_another_group_waits_to_be_executed(rig: Rig) -> None:
    many = asyncio.ensure_future(rig.send(*(rig.admit(f"m{number}") for number in range(900))))
    while not rig.shard._executing:  # noqa: ASYNC110  (it has no event of its own)
        await asyncio.sleep(0)
    threads(rig).clear()
    assert (await rig.add()).outcome == "accepted"
    assert threads(rig)[0] == "log-flush"
    assert len(await many) == 900
