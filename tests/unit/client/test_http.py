"""Commands over HTTP batches: batching, exactly-once by id, order per key, honest errors."""

import asyncio
import random
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import pytest

from ultraengine.client import (
    Backoff,
    Client,
    ClientError,
    NewCommand,
    OutcomeUnknown,
    Refused,
    Rejected,
    Reply,
    Unreachable,
)

if TYPE_CHECKING:
    from tests.unit.client.conftest import SmallEngine

QUICK = Backoff(base_s=0.001, cap_s=0.005)


def command(name: str, key: str = "k", **data: object) -> NewCommand:
    return NewCommand(type="t.do", key=key, data=data, id=name)


async def test_an_accepted_command_returns_its_typed_reply(engine: "SmallEngine") -> None:
    async with Client(engine.url) as client:
        reply = await client.send("t.do", key="k", data={"n": 1}, id="a")
    assert reply.outcome == "accepted"
    assert reply.result == {"echo": {"n": 1}}
    assert reply.offset == 0
    assert reply.durable is not None
    assert reply.durable.policy == "sync"


async def test_every_command_gets_an_increasing_uuid7_when_it_has_no_id(
    engine: "SmallEngine",
) -> None:
    async with Client(engine.url) as client:
        names = [(await client.send("t.do", key="k", data={})).id for _ in range(3)]
    assert names == sorted(set(names))
    assert all(len(name) == 36 and name[14] == "7" for name in names)


async def test_all_members_of_a_command_reach_the_engine(engine: "SmallEngine") -> None:
    async with Client(engine.url, api_key="secret") as client:
        await client.send(
            "t.do@2",
            key="k",
            data={"n": 1},
            id="a",
            expected_version=7,
            issued_at=1_700_000_000_000_000,
            correlation_id="c",
            traceparent="00-" + "a" * 32 + "-" + "b" * 16 + "-01",
        )
    assert engine.commands == [
        {
            "type": "t.do@2",
            "key": "k",
            "data": {"n": 1},
            "id": "a",
            "expected_version": 7,
            "issued_at": 1_700_000_000_000_000,
            "correlation_id": "c",
            "traceparent": "00-" + "a" * 32 + "-" + "b" * 16 + "-01",
        }
    ]
    assert engine.headers[0]["Authorization"] == "Bearer secret"


async def test_commands_form_one_batch_while_another_is_in_flight(engine: "SmallEngine") -> None:
    engine.gate = asyncio.Event()
    arrived = asyncio.Event()
    engine.on_batch = arrived.set
    async with Client(engine.url) as client:
        first = asyncio.create_task(client.send("t.do", key="k", data={}, id="0"))
        await arrived.wait()
        rest = [
            asyncio.create_task(client.send("t.do", key="k", data={}, id=str(n)))
            for n in range(1, 51)
        ]
        await asyncio.sleep(0)
        engine.gate.set()
        await asyncio.gather(first, *rest)
    assert engine.batches == [["0"], [str(n) for n in range(1, 51)]]


async def test_a_batch_holds_no_more_commands_than_the_engine_takes(engine: "SmallEngine") -> None:
    async with Client(engine.url) as client:
        replies = await client.send_all(command(f"c{n}") for n in range(2_500))
    assert [reply.offset for reply in replies] == list(range(2_500))
    assert max(len(batch) for batch in engine.batches) <= 1_000


async def test_smaller_limits_of_the_engine_are_learned_and_kept(engine: "SmallEngine") -> None:
    engine.commands_max = 100
    async with Client(engine.url, lanes=1, backoff=QUICK) as client:
        replies = await client.send_all(command(f"c{n}") for n in range(1_000))
    assert [reply.offset for reply in replies] == list(range(1_000))
    refused = [len(batch) for batch in engine.batches if len(batch) > 100]
    assert refused == [1_000, 500, 250, 125]


async def test_one_command_that_is_too_large_is_refused(engine: "SmallEngine") -> None:
    engine.commands_max = 0
    async with Client(engine.url) as client:
        with pytest.raises(Refused) as caught:
            await client.send("t.do", key="k", data={}, id="a")
    assert caught.value.code == "TOO_LARGE"
    assert engine.executed == []


async def test_a_rejection_is_an_error_with_the_domains_code_and_its_reply(
    engine: "SmallEngine",
) -> None:
    async with Client(engine.url) as client:
        with pytest.raises(Rejected) as caught:
            await client.send("t.do", key="k", data={"no": "exceeds_balance"}, id="a")
    error = caught.value
    assert (error.code, error.detail, error.advice, error.id, error.key) == (
        "exceeds_balance",
        "the domain said no",
        "ask differently",
        "a",
        "k",
    )
    assert error.reply is not None
    assert error.reply.offset == 0


async def test_a_refusal_of_shape_is_not_tried_again(engine: "SmallEngine") -> None:
    engine.refusals["a"] = engine.codes("MALFORMED", "MALFORMED")
    async with Client(engine.url, backoff=QUICK) as client:
        with pytest.raises(Refused) as caught:
            await client.send("t.do", key="k", data={}, id="a")
    assert caught.value.code == "MALFORMED"
    assert caught.value.reply is not None
    assert len(engine.batches) == 1


async def test_send_all_returns_rejections_and_refusals_as_replies(engine: "SmallEngine") -> None:
    engine.refusals["b"] = engine.codes("MALFORMED")
    async with Client(engine.url) as client:
        replies = await client.send_all(
            [command("a"), command("b"), command("c", no="exceeds_balance")]
        )
    assert [reply.outcome for reply in replies] == ["accepted", "refused", "rejected"]


@pytest.mark.parametrize("code", ["OVERLOADED", "QUOTA", "PAUSED", "NOT_LEADER", "WRONG_SHARD"])
async def test_what_is_retryable_is_sent_again_with_the_same_id(
    engine: "SmallEngine", code: str
) -> None:
    engine.refusals["a"] = engine.codes(code, code)
    async with Client(engine.url, backoff=QUICK) as client:
        reply = await client.send("t.do", key="k", data={}, id="a")
    assert reply.outcome == "accepted"
    assert engine.batches == [["a"], ["a"], ["a"]]


@pytest.mark.parametrize("code", ["DRAINING", "SHARD_UNAVAILABLE", "OVERLOADED"])
async def test_a_refused_batch_is_sent_again_whole_and_in_order(
    engine: "SmallEngine", code: str
) -> None:
    engine.say(code)
    async with Client(engine.url, lanes=1, backoff=QUICK) as client:
        await client.send_all(command(f"c{n}") for n in range(5))
    names = [f"c{n}" for n in range(5)]
    assert engine.batches == [names, names]
    assert engine.executed == [("k", name) for name in names]


async def test_a_batch_that_may_not_enter_is_refused_as_a_whole(engine: "SmallEngine") -> None:
    engine.say("UNAUTHENTICATED")
    async with Client(engine.url) as client:
        replies = await client.send_all([command("a"), command("b")])
    assert [(reply.outcome, reply.error and reply.error.code) for reply in replies] == [
        ("refused", "UNAUTHENTICATED")
    ] * 2
    assert engine.executed == []


@pytest.mark.parametrize("fault", ["lose_request", "lose_answer", "garble", "drop_a_reply"])
async def test_a_lost_exchange_is_repeated_and_executed_once(
    engine: "SmallEngine", fault: str
) -> None:
    getattr(engine, fault)()
    async with Client(engine.url, lanes=1, backoff=QUICK) as client:
        replies = await client.send_all(command(f"c{n}") for n in range(3))
    assert engine.executed == [("k", f"c{n}") for n in range(3)]
    assert [reply.duplicate for reply in replies] == [fault != "lose_request"] * 3
    assert len(engine.batches) == 2


async def test_an_unknown_outcome_is_asked_again_until_it_is_known(engine: "SmallEngine") -> None:
    engine.uncertain["a"] = 2
    async with Client(engine.url, backoff=QUICK) as client:
        reply = await client.send("t.do", key="k", data={}, id="a")
    assert reply.duplicate
    assert engine.executed == [("k", "a")]


async def test_an_outcome_that_stays_unknown_is_never_taken_for_an_answer(
    engine: "SmallEngine",
) -> None:
    engine.uncertain["a"] = 1
    engine.retry_after_s = 3600.0
    async with Client(engine.url, backoff=QUICK) as client:
        with pytest.raises(OutcomeUnknown) as caught:
            await client.send("t.do", key="k", data={}, id="a", deadline_s=60.0)
    assert caught.value.code == "OUTCOME_UNKNOWN"
    assert engine.executed == [("k", "a")]


async def test_a_refusal_without_a_reason_is_not_taken_for_success(engine: "SmallEngine") -> None:
    engine.faults.append(engine.answering([Reply(id="a", outcome="refused")]))
    async with Client(engine.url, backoff=QUICK) as client:
        with pytest.raises(Refused) as caught:
            await client.send("t.do", key="k", data={}, id="a")
    assert caught.value.code == "INTERNAL"


async def test_a_proxy_that_answers_502_is_no_answer_of_the_engine(engine: "SmallEngine") -> None:
    engine.proxy(502)
    async with Client(engine.url, backoff=QUICK) as client:
        reply = await client.send("t.do", key="k", data={}, id="a")
    assert reply.outcome == "accepted"


async def test_without_an_engine_the_error_says_that_nothing_was_sent() -> None:
    async with Client("http://127.0.0.1:9", deadline_s=2.0, backoff=QUICK) as client:
        with pytest.raises(Unreachable) as caught:
            await client.send("t.do", key="k", data={}, id="a")
    assert caught.value.code == "UNREACHABLE"
    assert caught.value.id == "a"
    assert "127.0.0.1" in caught.value.detail


async def test_a_deadline_without_an_answer_leaves_the_outcome_unknown(
    engine: "SmallEngine",
) -> None:
    engine.gate = asyncio.Event()
    async with Client(engine.url) as client:
        with pytest.raises(OutcomeUnknown) as caught:
            await client.send("t.do", key="k", data={}, id="a", deadline_s=1.0)
        assert caught.value.code == "OUTCOME_UNKNOWN"
        engine.gate.set()


async def test_a_deadline_under_overload_says_that_nothing_was_logged(
    engine: "SmallEngine",
) -> None:
    engine.refusals["a"] = engine.codes("OVERLOADED")
    engine.retry_after_s = 3600.0
    async with Client(engine.url, backoff=QUICK) as client:
        with pytest.raises(Refused) as caught:
            await client.send("t.do", key="k", data={}, id="a", deadline_s=60.0)
    assert caught.value.code == "OVERLOADED"
    assert engine.executed == []


async def test_overload_after_a_lost_answer_leaves_the_outcome_unknown(
    engine: "SmallEngine",
) -> None:
    engine.lose_answer()
    engine.say("OVERLOADED", retry_after="3600")
    async with Client(engine.url, backoff=QUICK) as client:
        with pytest.raises(OutcomeUnknown):
            await client.send("t.do", key="k", data={}, id="a", deadline_s=60.0)


async def test_retry_after_is_honoured_before_the_next_attempt(engine: "SmallEngine") -> None:
    # A wait that is longer than the deadline: the second attempt must not have been made.
    engine.say("OVERLOADED", retry_after="3600")
    async with Client(engine.url, backoff=QUICK) as client:
        with pytest.raises(Refused) as caught:
            await client.send("t.do", key="k", data={}, id="a", deadline_s=60.0)
    assert caught.value.code == "OVERLOADED"
    assert len(engine.batches) == 1


async def test_a_parked_key_waits_alone_and_keeps_its_order(engine: "SmallEngine") -> None:
    engine.refusals["a1"] = engine.codes(*["OVERLOADED"] * 3)
    engine.refusals["a2"] = engine.codes(*["OVERLOADED"] * 3)
    async with Client(engine.url, lanes=1, backoff=QUICK) as client:
        await client.send_all(
            [command("a1", "a"), command("b1", "b"), command("a2", "a"), command("b2", "b")]
        )
    assert engine.executed[:2] == [("b", "b1"), ("b", "b2")]
    assert [name for key, name in engine.executed if key == "a"] == ["a1", "a2"]


async def test_no_more_commands_are_taken_than_may_be_unanswered(engine: "SmallEngine") -> None:
    engine.gate = asyncio.Event()
    async with Client(engine.url, unanswered_max=2) as client:
        tasks = [
            asyncio.create_task(client.send("t.do", key="k", data={}, id=str(n))) for n in range(2)
        ]
        await asyncio.sleep(0)
        with pytest.raises(Unreachable) as caught:
            await client.send("t.do", key="k", data={}, id="late", deadline_s=0.02)
        assert "unanswered" in caught.value.detail
        engine.gate.set()
        await asyncio.gather(*tasks)
        assert (await client.send("t.do", key="k", data={}, id="next")).outcome == "accepted"
    assert ("k", "late") not in engine.executed


async def test_a_cancelled_command_that_was_not_sent_is_never_sent(engine: "SmallEngine") -> None:
    engine.gate = asyncio.Event()
    arrived = asyncio.Event()
    engine.on_batch = arrived.set
    async with Client(engine.url, lanes=1) as client:
        first = asyncio.create_task(client.send("t.do", key="k", data={}, id="first"))
        await arrived.wait()
        second = asyncio.create_task(client.send("t.do", key="k", data={}, id="second"))
        await asyncio.sleep(0)
        second.cancel()
        engine.gate.set()
        await first
        await client.send("t.do", key="k", data={}, id="third")
    assert [name for _, name in engine.executed] == ["first", "third"]


async def test_closing_tells_what_is_known_about_each_unanswered_command(
    engine: "SmallEngine",
) -> None:
    engine.gate = asyncio.Event()
    arrived = asyncio.Event()
    engine.on_batch = arrived.set
    client = Client(engine.url, lanes=1)
    sent = asyncio.create_task(client.send("t.do", key="k", data={}, id="sent"))
    await arrived.wait()
    waiting = asyncio.create_task(client.send("t.do", key="k", data={}, id="waiting"))
    await asyncio.sleep(0)
    await client.close()
    results = await asyncio.gather(sent, waiting, return_exceptions=True)
    assert [type(result) for result in results] == [OutcomeUnknown, Unreachable]
    assert [result.code for result in results if isinstance(result, ClientError)] == ["CLOSED"] * 2
    with pytest.raises(ClientError, match="closed"):
        await client.send("t.do", key="k", data={})


async def test_closing_reaches_those_who_wait_for_room(engine: "SmallEngine") -> None:
    engine.gate = asyncio.Event()
    client = Client(engine.url, unanswered_max=1)
    first = asyncio.create_task(client.send("t.do", key="k", data={}, id="first"))
    await asyncio.sleep(0)
    second = asyncio.create_task(client.send("t.do", key="k", data={}, id="second"))
    await asyncio.sleep(0)
    await client.close()
    results = await asyncio.gather(first, second, return_exceptions=True)
    assert [result.code for result in results if isinstance(result, ClientError)] == ["CLOSED"] * 2


async def test_cancelling_many_commands_cancels_each(engine: "SmallEngine") -> None:
    engine.gate = asyncio.Event()
    arrived = asyncio.Event()
    engine.on_batch = arrived.set
    async with Client(engine.url, lanes=1, unanswered_max=2) as client:
        many = asyncio.create_task(client.send_all(command(f"c{n}") for n in range(9)))
        await arrived.wait()
        many.cancel()
        with pytest.raises(asyncio.CancelledError):
            await many
        engine.gate.set()
        assert (await client.send("t.do", key="k", data={}, id="next")).outcome == "accepted"
    assert {name for _, name in engine.executed} <= {"c0", "c1", "next"}


async def test_many_commands_report_the_first_whose_answer_is_not_known() -> None:
    async with Client("http://127.0.0.1:9", deadline_s=2.0, backoff=QUICK) as client:
        with pytest.raises(Unreachable):
            await client.send_all([command("a"), command("b")])


async def test_a_bug_of_the_sender_reaches_its_callers(engine: "SmallEngine") -> None:
    async with Client(engine.url, lanes=1) as client:
        await client.send("t.do", key="k", data={}, id="a")
        lane = client._senders[0]._lane
        lane.take = None  # type: ignore[method-assign, assignment]  # the bug
        for _ in range(2):
            with pytest.raises(TypeError):
                await client.send("t.do", key="k", data={}, id="b")


async def test_data_that_cannot_travel_is_a_value_error_before_anything_is_sent(
    engine: "SmallEngine",
) -> None:
    async with Client(engine.url) as client:
        with pytest.raises(ValueError, match="decimal strings"):
            await client.send("t.do", key="k", data={"amount": 2**64})
        with pytest.raises(ValueError, match=r"t\.do"):
            await client.send("t.do", key="k", data={"what": object()})
    assert engine.batches == []


@pytest.mark.parametrize("seed", range(20))
async def test_through_any_faults_each_command_is_executed_once_and_keys_keep_their_order(
    engine: "SmallEngine", seed: int
) -> None:
    chance = random.Random(seed)
    faults: list[Callable[[], None]] = [
        engine.pass_one,
        engine.lose_request,
        engine.lose_answer,
        engine.garble,
        engine.drop_a_reply,
        partial(engine.say, "DRAINING"),
        partial(engine.say, "OVERLOADED", retry_after="0"),
        partial(engine.proxy, 503),
    ]
    for _ in range(40):
        chance.choice(faults)()
    async with Client(engine.url, lanes=3, backoff=QUICK) as client:
        commands = [command(f"c{n}", f"key-{chance.randrange(5)}") for n in range(200)]
        pieces = [commands[start : start + 20] for start in range(0, 200, 20)]
        tasks = []
        for piece in pieces:
            tasks.append(asyncio.create_task(client.send_all(piece)))
            await asyncio.sleep(chance.choice([0, 0, 0.001]))
        replies = [reply for part in await asyncio.gather(*tasks) for reply in part]
    assert all(reply.outcome == "accepted" for reply in replies)
    assert len(engine.executed) == len(set(engine.executed)) == 200
    for number in range(5):
        key = f"key-{number}"
        sent = [item.id for item in commands if item.key == key]
        assert [name for found, name in engine.executed if found == key] == sent
