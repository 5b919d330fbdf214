"""Slots over HTTP: for who has the hop key and the scope, and nothing that is not understood."""

from typing import Any

import msgspec
import pytest
from tests.unit.gateway.conftest import Served, Serving

from ultraengine.edge.auth import KnownCaller
from ultraengine.gateway.hop import HopIdentity, hop_headers
from ultraengine.model.errors import EngineError
from ultraengine.model.ids import ShardId
from ultraengine.moving.plan import Seen
from ultraengine.moving.record import FIRST_OWNER, Attempt, Begin, Message, SlotRecord, Stop
from ultraengine.moving.wire import MAP_PATH, PATH, Batch, Fed, Records, Told
from ultraengine.router.shard_map import ShardMap

SECRET = "hop-" * 10
MOVER = KnownCaller("system", "mover", frozenset({"admin"}))
FIRST = Attempt(0, 1)


class Slots:
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    def records(self) -> Records:
        return {7: FIRST_OWNER}

    def look(self, slot: int) -> Told:
        return Told(ShardId(0), Seen(SlotRecord(state=FIRST_OWNER.state), b"", slot))

    async def send(self, slot: int, message: Message) -> Told:
        self.told.append(message)
        if isinstance(message, Stop):
            raise EngineError("later", code="SHARD_UNAVAILABLE", retry_after_s=1.0)
        return self.look(slot)

    async def read(self, slot: int, position: int) -> Batch:
        return Batch(position, position + slot, 3, b"\x90")

    async def feed(self, slot: int, attempt: Attempt, batch: Batch) -> Told:
        self.told.append((attempt, batch))
        return self.look(slot)


@pytest.fixture
def slots() -> Slots:
    return Slots()


@pytest.fixture
async def handing(serving: Serving, slots: Slots) -> Served:
    return await serving(slots=slots, identity=HopIdentity(SECRET))


async def ask(
    served: Served, method: str, path: str, body: Any = None, caller: KnownCaller = MOVER
) -> tuple[int, Any]:
    data = body if isinstance(body, bytes | None) else msgspec.msgpack.encode(body)
    headers = dict(hop_headers(SECRET, caller))
    async with served.http.request(method, path, data=data, headers=headers) as answer:
        content = await answer.read()
        if answer.status == 200:
            return 200, content
        return answer.status, msgspec.json.decode(content)["code"]


async def test_a_coordinator_is_answered_in_the_words_of_the_protocol(
    handing: Served, slots: Slots
) -> None:
    decode = msgspec.msgpack.decode
    status, content = await ask(handing, "GET", PATH)
    assert (status, decode(content, type=Records)) == (200, {7: FIRST_OWNER})
    status, content = await ask(handing, "GET", f"{PATH}/4095")
    assert (status, decode(content, type=Told)) == (200, slots.look(4095))
    begin = Begin(FIRST, ShardId(1))
    status, content = await ask(handing, "POST", f"{PATH}/7", begin)
    assert (status, decode(content, type=Told)) == (200, slots.look(7))
    status, content = await ask(handing, "GET", f"{PATH}/7/copy?from=12")
    batch = decode(content, type=Batch)
    assert (status, batch) == (200, Batch(12, 19, 3, b"\x90"))
    status, content = await ask(handing, "POST", f"{PATH}/7/copy", Fed(FIRST, batch))
    assert (status, decode(content, type=Told)) == (200, slots.look(7))
    assert slots.told == [begin, (FIRST, batch)]


async def test_what_a_shard_refuses_is_a_problem(handing: Served) -> None:
    assert await ask(handing, "POST", f"{PATH}/7", Stop(FIRST)) == (503, "SHARD_UNAVAILABLE")


@pytest.mark.parametrize(
    ("method", "path", "body", "expected"),
    [
        ("GET", f"{PATH}/4096", None, (404, "NOT_FOUND")),
        ("GET", f"{PATH}/-1", None, (404, "NOT_FOUND")),
        ("GET", f"{PATH}/7/other", None, (404, "NOT_FOUND")),
        ("GET", f"{PATH}/7?more=1", None, (400, "MALFORMED")),
        ("GET", f"{PATH}/7/copy", None, (400, "MALFORMED")),
        ("GET", f"{PATH}/7/copy?from=-1", None, (400, "MALFORMED")),
        ("POST", f"{PATH}/7", b"\xc1", (400, "MALFORMED")),
        ("POST", f"{PATH}/7", {"type": "Take"}, (400, "MALFORMED")),
        ("POST", f"{PATH}/7/copy", {"attempt": [0, 1]}, (400, "MALFORMED")),
    ],
)
async def test_what_is_not_understood_is_refused(
    handing: Served, slots: Slots, method: str, path: str, body: Any, expected: tuple[int, str]
) -> None:
    assert await ask(handing, method, path, body) == expected
    assert slots.told == []


async def test_only_an_administrator_with_the_hop_key_is_heard(handing: Served) -> None:
    other = KnownCaller("acme", "till", frozenset({"*:read", "*:write"}))
    for method, path in (("GET", PATH), ("GET", f"{PATH}/7"), ("POST", f"{PATH}/7")):
        assert await ask(handing, method, path, None, other) == (403, "FORBIDDEN")
        async with handing.http.request(method, path) as answer:
            assert answer.status == 401


async def test_a_process_that_hands_nothing_over_has_no_such_paths(served: Served) -> None:
    async with served.http.get(PATH) as answer:
        assert answer.status == 404


async def test_a_shard_keeps_the_newest_map_that_it_was_told_for_who_asks(handing: Served) -> None:
    newest = ShardMap.even(3, version=5).encode()
    assert await ask(handing, "GET", MAP_PATH) == (200, b"null")
    assert (await ask(handing, "PUT", MAP_PATH, newest))[0] == 200
    assert (await ask(handing, "PUT", MAP_PATH, ShardMap.even(2, version=4).encode()))[0] == 200
    assert await ask(handing, "GET", f"{MAP_PATH}?after=4") == (200, newest)
    assert await ask(handing, "GET", f"{MAP_PATH}?after=5") == (200, b"null")
    assert await ask(handing, "GET", f"{MAP_PATH}?after=x") == (400, "MALFORMED")
    assert await ask(handing, "PUT", MAP_PATH, b"[]") == (400, "MALFORMED")
    stranger = KnownCaller("system", "x", frozenset({"*:read"}))
    assert (await ask(handing, "GET", MAP_PATH, caller=stranger))[0] == 403
    assert (await ask(handing, "PUT", MAP_PATH, newest, caller=stranger))[0] == 403
