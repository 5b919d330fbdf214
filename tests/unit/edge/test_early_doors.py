"""Doors that are open before there is anything behind them, and who is let in at their end."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator

import msgspec
import pytest

from ultraengine.edge.door import Door, Doorkeeper
from ultraengine.edge.early import driver
from ultraengine.edge.early.driver import EarlyDoors, listen_all
from ultraengine.edge.health import Heartbeat
from ultraengine.router.wire import Answered, AnswerReader
from ultraengine_adapters.local.clock import SystemClock


class Early:
    """Early doors at two ports."""

    def __init__(self) -> None:
        listeners = listen_all("127.0.0.1", [0, 0])
        self.addresses = [one.getsockname() for one in listeners]
        self.stage = "the shard is verifying its log"
        self.doors = EarlyDoors(listeners, SystemClock(), lambda: self.stage)
        self.doors.open()
        self.listeners: list[socket.socket] = []

    async def hand_over(self) -> None:
        self.listeners = await self.doors.hand_over()


@pytest.fixture
async def early() -> AsyncIterator[Early]:
    early = Early()
    yield early
    if not early.listeners:
        await early.hand_over()
    await early.doors.close()
    for listener in early.listeners:
        listener.close()


class Caller:
    """One connection to a door."""

    def __init__(self, address: tuple[str, int]) -> None:
        self._address = address

    async def connect(self) -> None:
        self.reader, self.writer = await asyncio.open_connection(*self._address)

    async def ask(self, path: str, method: str = "GET", body: bytes = b"") -> Answered:
        head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
        self.writer.write(head.encode() + body)
        answered = AnswerReader().feed(await asyncio.wait_for(self.reader.read(), 5))
        self.writer.close()
        assert answered is not None
        return answered


async def ask(early: Early, path: str, method: str = "GET", door: int = 0) -> Answered:
    caller = Caller(early.addresses[door])
    await caller.connect()
    return await caller.ask(path, method, b"{}" if method == "POST" else b"")


async def test_it_lives_at_every_door_and_is_ready_at_none(early: Early) -> None:
    for door in (0, 1):
        assert (await ask(early, "/healthz", door=door)).status == 200
        for path in ("/readyz", "/metrics", "/admin/v1/status"):
            answered = await ask(early, path, door=door)
            problem = msgspec.json.decode(answered.body)
            assert (answered.status, problem["code"]) == (503, "SHARD_UNAVAILABLE")
            assert answered.header("retry-after") == "1"
            assert not answered.keep_alive


async def test_it_says_what_it_is_doing_now(early: Early) -> None:
    answered = await ask(early, "/readyz")
    assert msgspec.json.decode(answered.body)["detail"] == "the shard is verifying its log"
    early.stage = "the shard is recovering: 5 of 7 commands replayed"
    answered = await ask(early, "/v1/commands", "POST")
    assert answered.status == 503
    assert msgspec.json.decode(answered.body)["detail"] == early.stage


async def test_a_command_is_told_that_it_was_not_taken(early: Early) -> None:
    problem = msgspec.json.decode((await ask(early, "/v1/commands", "POST")).body)
    assert (problem["code"], problem["retryable"]) == ("SHARD_UNAVAILABLE", True)


async def test_who_connects_while_nobody_accepts_waits_for_the_next_one(early: Early) -> None:
    await early.hand_over()
    caller = Caller(early.addresses[0])
    await caller.connect()
    asking = asyncio.create_task(caller.ask("/readyz"))
    await asyncio.sleep(0.05)
    assert not asking.done()
    taken: list[socket.socket] = []
    doors = [Door(one, taken.append, lambda: True) for one in early.listeners]
    keeper = Doorkeeper(doors, Heartbeat(0.0), time.monotonic)
    keeper.start()
    async with asyncio.timeout(5):
        while not taken:  # noqa: ASYNC110  (it is another thread)
            await asyncio.sleep(0.01)
    assert taken[0].recv(1_000).startswith(b"GET /readyz")
    taken[0].sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    taken[0].close()
    assert (await asking).status == 200
    keeper.close()


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
async def test_who_was_let_in_and_had_said_nothing_is_still_answered(
    early: Early, path: str
) -> None:
    callers = [Caller(early.addresses[n % 2]) for n in range(10)]
    for caller in callers:
        await caller.connect()
    async with asyncio.timeout(5):
        while len(early.doors._keeper._silent) < 10:  # noqa: ASYNC110  (it is another thread)
            await asyncio.sleep(0.01)
    await early.hand_over()
    answers = [await caller.ask(path) for caller in callers]
    assert {one.status for one in answers} == {200 if path == "/healthz" else 503}


async def test_who_goes_on_saying_nothing_is_cut_off_after_a_while(
    early: Early, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver, "FIRST_BYTES_S", 0.05)
    caller = Caller(early.addresses[0])
    await caller.connect()
    async with asyncio.timeout(5):
        while not early.doors._keeper._silent:  # noqa: ASYNC110  (it is another thread)
            await asyncio.sleep(0.01)
        await early.hand_over()
        assert await caller.reader.read() == b""
        while early.doors._tasks:  # noqa: ASYNC110  (it has no event)
            await asyncio.sleep(0.01)
    caller.writer.close()


async def test_closing_cuts_off_who_is_still_there_and_twice_is_once(early: Early) -> None:
    caller = Caller(early.addresses[0])
    await caller.connect()
    async with asyncio.timeout(5):
        while not early.doors._keeper._silent:  # noqa: ASYNC110  (it is another thread)
            await asyncio.sleep(0.01)
        await early.hand_over()
        await early.doors.close()
        await early.doors.close()
        assert await caller.reader.read() == b""
    caller.writer.close()


async def test_beyond_so_many_connections_the_others_wait(
    early: Early, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver, "CONNECTIONS_MAX", 1)
    first = Caller(early.addresses[0])
    await first.connect()
    first.writer.write(b"GET /readyz")  # And not the rest of it.
    async with asyncio.timeout(5):
        while early.doors._has_room():  # noqa: ASYNC110  (it is another thread)
            await asyncio.sleep(0.01)
    second = Caller(early.addresses[0])
    await second.connect()
    asking = asyncio.create_task(second.ask("/readyz"))
    await asyncio.sleep(0.1)
    assert not asking.done()
    first.writer.close()
    assert (await asking).status == 503


def test_no_socket_stays_open_when_one_of_several_cannot_be_had() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        pytest.raises(OSError, match="in use"),
    ):
        listen_all("127.0.0.1", [0, taken.getsockname()[1]])


async def test_a_copy_that_starts_sends_others_to_another_one() -> None:
    listeners = listen_all("127.0.0.1", [0])
    doors = EarlyDoors(listeners, SystemClock(), lambda: "it reads its log", code="NOT_LEADER")
    doors.open()
    caller = Caller(listeners[0].getsockname())
    await caller.connect()
    answered = await caller.ask("/v1/commands")
    assert answered.status == 503
    assert msgspec.json.decode(answered.body)["code"] == "NOT_LEADER"
    for listener in await doors.hand_over():
        listener.close()
    await doors.close()
