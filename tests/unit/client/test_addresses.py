"""With the addresses of several copies the client finds the one that answers, and keeps to it."""

import asyncio

import pytest
from tests.unit.client.conftest import SmallEngine

from ultraengine.client import Backoff, Client, OutcomeUnknown, Refused, SyncClient, Unreachable
from ultraengine.client.client import Transport

NOBODY = "http://127.0.0.1:1"
QUICK = Backoff(base_s=0.001, cap_s=0.005)
FAR = "60"
"""A promise not to come back sooner; a client that waits for it misses its deadline."""


async def test_an_address_where_nobody_listens_is_left_for_good(engine: SmallEngine) -> None:
    async with Client([NOBODY, engine.url], lanes=1) as client:
        for number in range(3):
            reply = await client.send("t.do", key="k", data={}, id=f"c{number}", deadline_s=5)
            assert reply.outcome == "accepted"
        assert (await client.get("t/k", deadline_s=5)).value == {"path": "/v1/t/k"}
    assert [name for _, name in engine.executed] == ["c0", "c1", "c2"]


async def test_a_copy_that_does_not_lead_is_left_without_waiting(
    engine: SmallEngine, other: SmallEngine
) -> None:
    engine.say("SHARD_UNAVAILABLE", retry_after=FAR)
    async with Client([engine.url, f"{other.url}/"], lanes=1) as client:
        reply = await client.send("t.do", key="k", data={}, id="a", deadline_s=5)
        again = await client.send("t.do", key="k", data={}, id="b", deadline_s=5)
    assert (reply.outcome, again.outcome) == ("accepted", "accepted")
    assert engine.batches == [["a"]]
    assert other.batches == [["a"], ["b"]]


@pytest.mark.parametrize("code", ["NOT_LEADER", "DRAINING"])
async def test_a_batch_whose_commands_are_refused_singly_by_who_does_not_lead_goes_elsewhere(
    engine: SmallEngine, other: SmallEngine, code: str
) -> None:
    engine.refusals["a"] = engine.codes(code)
    async with Client([engine.url, other.url], lanes=1, backoff=QUICK) as client:
        reply = await client.send("t.do", key="k", data={}, id="a", deadline_s=5)
        await client.send("t.do", key="k", data={}, id="b", deadline_s=5)
    assert reply.outcome == "accepted"
    assert engine.batches == [["a"]]
    assert other.batches == [["a"], ["b"]]


async def test_a_stream_that_one_refuses_is_opened_at_the_other(
    engine: SmallEngine, other: SmallEngine
) -> None:
    engine.plan_stream(refuse=503)
    async with Client([engine.url, other.url], transport="stream", lanes=1) as client:
        reply = await client.send("t.do", key="k", data={}, id="a", deadline_s=5)
    assert reply.outcome == "accepted"
    assert (engine.streams, other.streams) == (1, 1)


@pytest.mark.parametrize("transport", ["http", "stream"])
async def test_a_command_whose_answer_is_lost_goes_on_elsewhere_with_its_id(
    engine: SmallEngine, other: SmallEngine, transport: Transport
) -> None:
    engine.lose_answer()
    engine.plan_stream(break_before=0)
    async with Client([engine.url, other.url], transport=transport, lanes=1) as client:
        reply = await client.send("t.do", key="k", data={}, id="a", deadline_s=5)
    assert reply.outcome == "accepted"
    assert other.executed == [("k", "a")]


async def test_a_read_moves_on_too_and_takes_commands_with_it(
    engine: SmallEngine, other: SmallEngine
) -> None:
    engine.say("SHARD_UNAVAILABLE", retry_after=FAR)
    async with Client([engine.url, other.url]) as client:
        assert (await client.get("t/k", deadline_s=5)).value == {"path": "/v1/t/k"}
        await client.send("t.do", key="k", data={}, id="a", deadline_s=5)
    assert (engine.batches, other.batches) == ([], [["a"]])


async def test_when_none_leads_each_is_asked_once_and_then_the_wait_is_as_they_say(
    engine: SmallEngine, other: SmallEngine
) -> None:
    for one in (engine, other):
        one.say("SHARD_UNAVAILABLE", retry_after=FAR)
    async with Client([engine.url, other.url], backoff=QUICK) as client:
        with pytest.raises(Refused) as caught:
            await client.send("t.do", key="k", data={}, id="a", deadline_s=5)
    assert caught.value.code == "SHARD_UNAVAILABLE"
    assert (engine.batches, other.batches) == ([["a"]], [["a"]])


async def test_after_an_answer_every_address_counts_again(
    engine: SmallEngine, other: SmallEngine
) -> None:
    async with Client([engine.url, other.url], lanes=1, backoff=QUICK) as client:
        for first, second in ((engine, other), (other, engine), (engine, other)):
            first.say("SHARD_UNAVAILABLE", retry_after=FAR)
            await client.send("t.do", key="k", data={}, deadline_s=5)
            assert len(second.batches) >= 1
    assert (len(engine.batches), len(other.batches)) == (3, 3)


async def test_an_overloaded_engine_is_not_left(engine: SmallEngine, other: SmallEngine) -> None:
    engine.say("OVERLOADED")
    async with Client([engine.url, other.url], backoff=QUICK) as client:
        await client.send("t.do", key="k", data={}, id="a", deadline_s=5)
    assert (engine.batches, other.batches) == ([["a"], ["a"]], [])


async def test_what_was_sent_and_not_answered_stays_unknown_wherever_it_was_asked_next(
    engine: SmallEngine,
) -> None:
    engine.lose_answer()
    async with Client([engine.url, NOBODY], lanes=1, backoff=QUICK) as client:
        engine.say("SHARD_UNAVAILABLE", retry_after=FAR)
        with pytest.raises(OutcomeUnknown):
            await client.send("t.do", key="k", data={}, id="a", deadline_s=2)


async def test_nobody_anywhere_is_said_as_with_one_address() -> None:
    async with Client([NOBODY, "http://127.0.0.1:2"], backoff=QUICK) as client:
        with pytest.raises(Unreachable):
            await client.send("t.do", key="k", data={}, deadline_s=0.2)


async def test_a_process_that_says_nothing_is_waited_for_shortly(
    engine: SmallEngine, other: SmallEngine
) -> None:
    engine.gate = asyncio.Event()
    async with Client([engine.url, other.url]) as client:
        reply = await client.send("t.do", key="k", data={}, id="a", deadline_s=25)
    assert reply.outcome == "accepted"
    assert other.executed == [("k", "a")]


def test_no_address_at_all_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one address"):
        SyncClient([])
