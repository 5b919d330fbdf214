"""Reads: positions, retries, and what a client has written itself."""

from typing import TYPE_CHECKING

import pytest

from ultraengine.client import Backoff, Client, ClientError, OutcomeUnknown, Refused, Unreachable
from ultraengine.client.reads import Seen, key_of
from ultraengine.model.reply import Reply

if TYPE_CHECKING:
    from tests.unit.client.conftest import SmallEngine

QUICK = Backoff(base_s=0.001, cap_s=0.005)


def reply(offset: int | None) -> Reply:
    return Reply(id="a", outcome="accepted", offset=offset)


async def test_a_read_returns_its_value_its_version_and_its_position(engine: "SmallEngine") -> None:
    async with Client(engine.url) as client:
        answer = await client.get("ledger/book-1/accounts/alice", {"at_offset": 3, "cursor": None})
    assert answer.value == {"path": "/v1/ledger/book-1/accounts/alice"}
    assert (answer.etag, answer.epoch, answer.offset) == ("7", 1, 0)
    assert engine.reads == [("/v1/ledger/book-1/accounts/alice", {"at_offset": "3"})]


async def test_a_read_asks_for_the_last_offset_of_its_own_key(engine: "SmallEngine") -> None:
    async with Client(engine.url) as client:
        for key in ("a", "b", "a"):
            await client.send("t.do", key=key, data={})
        for path in ("t/a/x", "t/b/x", "t/c/x", "limits"):
            await client.get(path)
        await client.get("t/a/x", min_offset=None)
        await client.get("t/a/x", min_offset=17, read="confirm")
    assert [query for _, query in engine.reads] == [
        {"min_offset": "2"},
        {"min_offset": "1"},
        {},
        {},
        {},
        {"min_offset": "17", "read": "confirm"},
    ]


async def test_a_read_is_repeated_while_that_may_help(engine: "SmallEngine") -> None:
    engine.lose_answer()
    engine.say("WAIT_TIMEOUT")
    engine.proxy(502)
    engine.garble()
    async with Client(engine.url, backoff=QUICK) as client:
        assert (await client.get("t/a/x")).value == {"path": "/v1/t/a/x"}
    assert len(engine.reads) == 5


async def test_a_read_that_cannot_help_is_refused_with_the_engines_code(
    engine: "SmallEngine",
) -> None:
    engine.say("NOT_FOUND")
    async with Client(engine.url) as client:
        with pytest.raises(Refused) as caught:
            await client.get("t/a/x")
    assert caught.value.code == "NOT_FOUND"
    assert caught.value.detail == "as told"


async def test_a_read_ends_at_its_deadline(engine: "SmallEngine") -> None:
    engine.say("DRAINING", retry_after="3600")
    async with Client(engine.url, deadline_s=60.0) as client:
        with pytest.raises(Refused) as caught:
            await client.get("t/a/x")
    assert caught.value.code == "DRAINING"
    async with Client("http://127.0.0.1:9", deadline_s=0.02, backoff=QUICK) as client:
        with pytest.raises(Unreachable) as nobody:
            await client.get("t/a/x")
    assert nobody.value.code == "UNREACHABLE"


async def test_the_outcome_of_a_command_is_typed(engine: "SmallEngine") -> None:
    async with Client(engine.url) as client:
        first = await client.send("t.do", key="k", data={}, id="a")
        known = await client.outcome(id="a", key="k")
        unknown = await client.outcome(id="b", key="k")
    assert (known.state, known.reply) == ("done", first)
    assert (unknown.state, unknown.reply, unknown.dedup_floor) == ("unknown", None, 0)


async def test_an_operation_is_asked_for_once_and_says_what_is_known(
    engine: "SmallEngine",
) -> None:
    async with Client(engine.url, backoff=QUICK) as client:
        assert await client.operate("snapshot") == {"operation": "snapshot"}
        engine.say("FORBIDDEN")
        with pytest.raises(Refused) as refused:
            await client.operate("pause", {"reason": "lunch"})
        assert refused.value.code == "FORBIDDEN"
        engine.lose_answer()
        with pytest.raises(OutcomeUnknown):
            await client.operate("drain")
    assert engine.operations == [("snapshot", {}), ("pause", {"reason": "lunch"}), ("drain", {})]
    async with Client("http://127.0.0.1:9") as nobody:
        with pytest.raises(Unreachable):
            await nobody.operate("drain")


async def test_a_closed_client_reads_nothing(engine: "SmallEngine") -> None:
    client = Client(engine.url)
    await client.close()
    with pytest.raises(ClientError, match="closed"):
        await client.get("t/a/x")
    assert engine.reads == []


def test_positions_of_keys_only_grow_and_the_oldest_is_forgotten() -> None:
    seen = Seen(keys_max=2)
    seen.note("a", reply(5))
    seen.note("a", reply(3))
    seen.note("a", reply(None))
    assert seen.offset("a") == 5
    seen.note("b", reply(1))
    seen.note("a", reply(6))
    seen.note("c", reply(1))
    assert [seen.offset(key) for key in "abc"] == [6, None, 1]


@pytest.mark.parametrize(
    ("path", "key"), [("ledger/book-1/accounts", "book-1"), ("/t/a/", "a"), ("limits", None)]
)
def test_the_key_of_a_read_is_its_second_segment(path: str, key: str | None) -> None:
    assert key_of(path) == key
