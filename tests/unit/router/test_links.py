"""Connections to a shard that moves, vanishes and comes back, and to one that knows no front."""

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest

from ultraengine.model.errors import EngineError
from ultraengine.model.ids import ShardId
from ultraengine.router import driver
from ultraengine.router.driver import Address, Links, resolve
from ultraengine.router.shard_map import ShardMap
from ultraengine.router.wire import request

SHARD = ShardId(0)
ASK = request("GET", "/", ())
FOLLOWS = b'HTTP/1.1 503 x\r\nContent-Length: 21\r\n\r\n{"code":"NOT_LEADER"}'


class Place:
    """One address of a shard; it says its name to whoever asks."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.statuses: list[int] = []
        """Statuses of the next answers; 200 when there are none, and 0 is no answer at all."""
        self.connections: list[asyncio.StreamWriter] = []
        self.address: tuple[str, int] = ("127.0.0.1", 0)
        self._server: asyncio.Server | None = None
        self.follows = False
        """Whether it is a copy that does not lead."""
        self.is_silent = False
        self.unanswered = 0

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, *self.address)
        self.address = self._server.sockets[0].getsockname()

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        for writer in self.connections:
            writer.close()

    def answer_late(self) -> None:
        """Answer what was asked while it was silent."""
        head = f"HTTP/1.1 200 x\r\nContent-Length: {len(self.name)}\r\n\r\n"
        self.connections[-1].write((head + self.name).encode())

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections.append(writer)
        try:
            while True:
                await reader.readuntil(b"\r\n\r\n")
                if self.is_silent:
                    self.unanswered += 1
                    continue
                if self.follows and not self.statuses:
                    writer.write(FOLLOWS)
                    continue
                status = self.statuses.pop(0) if self.statuses else 200
                if not status:
                    writer.close()
                    return
                head = f"HTTP/1.1 {status} x\r\nContent-Length: {len(self.name)}\r\n\r\n"
                writer.write((head + self.name).encode())
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()


class Names:
    """A name server with one name."""

    def __init__(self) -> None:
        self.found: Sequence[tuple[str, int]] = ()
        self.fails: Exception | None = None
        self.hold: asyncio.Event | None = None
        self.asked = 0

    async def __call__(self, host: str, port: int) -> Sequence[tuple[str, int]]:
        assert (host, port) == ("shop-shard-0", 8080)
        self.asked += 1
        if self.hold is not None:
            await self.hold.wait()
        if self.fails is not None:
            raise self.fails
        return self.found


class World:
    def __init__(self) -> None:
        self.places = [Place("first"), Place("second")]
        self.names = Names()
        address = Address(host="shop-shard-0", port=8080)
        self.links = Links({SHARD: address}, ShardMap.even(1), resolve=self.names)

    async def ask(self) -> str:
        answered = await self.links.ask(SHARD, ASK, deadline_s=5.0)
        assert answered.status == 200
        return answered.body.decode()

    async def lose(self, place: Place) -> None:
        """The end of a pod: its listener and its connections; the links have heard of it."""
        await place.stop()
        async with asyncio.timeout(5):
            while self.links._links[SHARD]._all:  # noqa: ASYNC110  (it has no event)
                await asyncio.sleep(0.01)

    async def failure(self) -> EngineError:
        with pytest.raises(EngineError) as failed:
            await self.links.ask(SHARD, ASK, deadline_s=5.0)
        return failed.value


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = World()
    for place in world.places:
        await place.start()
    world.names.found = [world.places[0].address]
    yield world
    await world.links.close()
    for place in world.places:
        await place.stop()


async def test_a_shard_that_comes_back_at_another_address_is_found_there(world: World) -> None:
    assert await world.ask() == "first"
    await world.lose(world.places[0])
    world.names.found = [world.places[1].address]
    assert await world.ask() == "second"


async def test_an_open_connection_needs_no_name_server(world: World) -> None:
    assert await world.ask() == "first"
    world.names.fails = OSError("no name server")
    assert await world.ask() == "first"
    assert world.names.asked == 1


@pytest.mark.parametrize("way", ["fails", "hangs"])
async def test_the_last_known_address_is_tried_while_names_cannot_be_resolved(
    world: World, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver, "RESOLVE_S", 0.05)
    assert await world.ask() == "first"
    await world.lose(world.places[0])
    if way == "fails":
        world.names.fails = OSError("no name server")
    else:
        world.names.hold = asyncio.Event()
    failure = await world.failure()
    assert (failure.code, failure.retry_after_s) == ("SHARD_UNAVAILABLE", 1.0)
    await world.places[0].start()  # At the same address: the pod's machine lives.
    assert await world.ask() == "first"
    await world.lose(world.places[0])
    assert (await world.failure()).code == "SHARD_UNAVAILABLE"
    world.names.fails = world.names.hold = None
    world.names.found = [world.places[1].address]
    assert await world.ask() == "second"


async def test_every_address_of_a_name_is_tried(world: World) -> None:
    world.names.found = [place.address for place in world.places]
    await world.lose(world.places[0])
    assert await world.ask() == "second"


@pytest.mark.parametrize(
    "error", [OSError("unknown"), UnicodeError("label empty or too long"), TimeoutError(), None]
)
async def test_a_name_that_has_no_address_is_a_shard_that_is_away(
    world: World, error: Exception | None
) -> None:
    world.names.fails, world.names.found = error, ()
    assert (await world.failure()).code == "SHARD_UNAVAILABLE"
    world.names.fails, world.names.found = None, [world.places[0].address]
    assert await world.ask() == "first"


async def test_the_system_resolves_names_and_says_what_is_none() -> None:
    assert await resolve("127.0.0.1", 80) == [("127.0.0.1", 80)]
    with pytest.raises(UnicodeError):
        await resolve("a..b", 80)


async def test_a_shard_that_is_away_is_tried_by_one_connection_however_many_ask(
    world: World,
) -> None:
    await world.lose(world.places[0])
    assert (await world.failure()).code == "SHARD_UNAVAILABLE"
    await world.places[0].start()
    world.names.hold, asked = asyncio.Event(), world.names.asked
    asking = [asyncio.create_task(world.ask()) for _ in range(20)]
    await asyncio.sleep(0.05)
    assert world.names.asked == asked + 1
    world.names.hold.set()
    assert await asyncio.gather(*asking) == ["first"] * 20
    assert world.names.asked > asked + 1  # Once it is back, more of them are opened.


async def test_a_shard_that_refuses_the_hop_key_is_away_and_not_a_stranger_to_the_sender(
    world: World,
) -> None:
    world.places[0].statuses = [401]
    failure = await world.failure()
    assert failure.code == "SHARD_UNAVAILABLE"
    assert "hop key" in failure.detail
    # After an answer that was lost, the command may have been carried out.
    world.places[0].statuses = [0, 401, 200]
    assert await world.ask() == "first"


class Copies(World):
    """A shard whose name has the addresses of all its copies, in their order."""

    def __init__(self) -> None:
        super().__init__()
        self.places = [Place(name) for name in ("first", "second", "third")]

    def lead(self, leader: Place | None) -> None:
        for place in self.places:
            place.follows = place is not leader

    def by_turn(self) -> list[Place]:
        return sorted(self.places, key=lambda one: one.address)


@pytest.fixture
async def copies() -> AsyncIterator[Copies]:
    copies = Copies()
    for place in copies.places:
        await place.start()
    copies.names.found = [place.address for place in copies.places]
    yield copies
    await copies.links.close()
    for place in copies.places:
        await place.stop()


async def test_the_copy_that_leads_is_found_and_kept(copies: Copies) -> None:
    for leader in copies.places:
        copies.lead(leader)
        assert [await copies.ask() for _ in range(3)] == [leader.name] * 3
        host, port = leader.address
        assert copies.links.address_of(SHARD) == Address(host=host, port=port)
    followers = [len(place.connections) for place in copies.places]
    assert await copies.ask() == "third"
    assert [len(place.connections) for place in copies.places] == followers


async def test_connections_to_copies_that_follow_are_not_used_again(copies: Copies) -> None:
    """They stay open as far as the copies are concerned."""
    first, second, _ = copies.by_turn()
    copies.lead(None)
    await asyncio.gather(*(copies.failure() for _ in range(3)))
    copies.lead(second)
    assert await copies.ask() == second.name
    copies.lead(first)
    assert [await copies.ask() for _ in range(3)] == [first.name] * 3


async def test_all_copies_are_named_and_the_one_that_leads_first(copies: Copies) -> None:
    everybody = [Address(host=host, port=port) for host, port in sorted(copies.names.found)]
    assert await copies.links.copies_of(SHARD) == everybody
    leader = copies.by_turn()[1]
    copies.lead(leader)
    await copies.ask()
    found = await copies.links.copies_of(SHARD)
    assert found[0] == Address(host=leader.address[0], port=leader.address[1])
    assert sorted(found, key=str) == sorted(everybody, key=str)
    copies.names.found = copies.names.found[:1]
    assert await copies.links.copies_of(SHARD) == [copies.links._links[SHARD].address]


async def test_one_socket_is_all_there_is_of_a_shard_on_this_machine() -> None:
    address = Address(path="/run/0.sock")
    links = Links({SHARD: address}, ShardMap.even(1))
    assert await links.copies_of(SHARD) == [address]
    await links.close()


async def test_a_request_that_no_copy_takes_was_not_sent(copies: Copies) -> None:
    copies.lead(None)
    failure = await copies.failure()
    assert (failure.code, failure.retry_after_s) == ("SHARD_UNAVAILABLE", 1.0)
    assert {len(place.connections) for place in copies.places} == {1}


async def test_a_request_whose_leader_is_lost_is_sent_to_the_next_one(copies: Copies) -> None:
    first, second, third = copies.by_turn()
    copies.lead(first)
    assert await copies.ask() == first.name
    first.statuses = [0]
    copies.lead(None)
    asking = asyncio.create_task(copies.ask())
    async with asyncio.timeout(5):
        while not third.connections:  # noqa: ASYNC110  (it has no event)
            await asyncio.sleep(0.01)
    await first.stop()
    copies.lead(second)
    assert await asking == second.name


async def test_what_is_under_way_to_a_leader_that_is_silent_is_cut_once_another_one_leads(
    copies: Copies,
) -> None:
    first, second, _ = copies.by_turn()
    copies.lead(first)
    assert await copies.ask() == first.name
    first.is_silent = True
    waiting = asyncio.create_task(copies.ask())
    async with asyncio.timeout(5):
        while not first.unanswered:  # noqa: ASYNC110  (it has no event)
            await asyncio.sleep(0.01)
    first.is_silent = False
    copies.lead(second)
    assert await copies.ask() == second.name
    assert await waiting == second.name


async def _unanswered(place: Place) -> None:
    async with asyncio.timeout(5):
        while not place.unanswered:  # noqa: ASYNC110  (it has no event)
            await asyncio.sleep(0.01)


async def _swept(copies: Copies, task: "asyncio.Task[str]") -> None:
    """Sweep, as a front does it, until something is answered."""
    async with asyncio.timeout(5):
        while not task.done():
            copies.links.sweep()
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("new", [1, 2])
async def test_when_a_leader_is_silent_others_are_asked_until_one_leads(
    copies: Copies, new: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver, "SILENT_S", 0.05)
    places = copies.by_turn()
    copies.lead(places[0])
    assert await copies.ask() == places[0].name
    places[0].is_silent = True
    waiting = asyncio.create_task(copies.ask())
    await _unanswered(places[0])
    copies.lead(places[new])
    places[0].follows = False
    await _swept(copies, waiting)
    assert waiting.result() == places[new].name
    assert copies.links.address_of(SHARD).port == places[new].address[1]


async def test_a_leader_that_is_slow_is_waited_for_while_the_others_follow(
    copies: Copies, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver, "SILENT_S", 0.0)
    first, second, third = copies.by_turn()
    copies.lead(first)
    assert await copies.ask() == first.name
    first.is_silent = True
    waiting = asyncio.create_task(copies.ask())
    await _unanswered(first)
    async with asyncio.timeout(5):
        while not (second.connections and third.connections):
            copies.links.sweep()
            await asyncio.sleep(0.01)
    assert not waiting.done()
    first.answer_late()
    assert await waiting == first.name


async def test_others_that_are_away_while_a_leader_is_silent_change_nothing(
    copies: Copies, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver, "SILENT_S", 0.0)
    first, second, third = copies.by_turn()
    copies.lead(first)
    assert await copies.ask() == first.name
    await second.stop()
    await third.stop()
    first.is_silent = True
    waiting = asyncio.create_task(copies.ask())
    await _unanswered(first)
    link = copies.links._links[SHARD]
    async with asyncio.timeout(5):
        while link._asked < 2:
            copies.links.sweep()
            await asyncio.sleep(0.01)
    copies.names.found = [first.address]
    copies.links.sweep()
    assert not waiting.done()
    first.answer_late()
    assert await waiting == first.name
