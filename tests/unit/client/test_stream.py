"""Commands over a stream: pipelining within the credit, resumption, honest errors."""

import asyncio
import random
from typing import TYPE_CHECKING

import pytest

from ultraengine.client import (
    Backoff,
    Client,
    NewCommand,
    OutcomeUnknown,
    Refused,
    Rejected,
    Unreachable,
)

if TYPE_CHECKING:
    from tests.unit.client.conftest import SmallEngine

QUICK = Backoff(base_s=0.001, cap_s=0.005)


def command(name: str, key: str = "k", **data: object) -> NewCommand:
    return NewCommand(type="t.do", key=key, data=data, id=name)


def stream(engine: "SmallEngine", **options: float) -> Client:
    return Client(engine.url, transport="stream", lanes=1, backoff=QUICK, **options)  # type: ignore[arg-type]  # options of two types


async def test_commands_and_their_replies_meet_by_id(engine: "SmallEngine") -> None:
    async with stream(engine) as client:
        replies = await client.send_all(command(f"c{n}", n=n) for n in range(100))
        with pytest.raises(Rejected) as caught:
            await client.send("t.do", key="k", data={"no": "exceeds_balance"}, id="bad")
    assert [reply.result["echo"]["n"] for reply in replies] == list(range(100))
    assert caught.value.code == "exceeds_balance"
    assert engine.streams == 1


async def test_commands_leave_without_waiting_for_those_before_them(
    engine: "SmallEngine",
) -> None:
    # The engine answers nothing before the third frame: a client that waits would wait for ever.
    engine.plan_stream(answer_after=3)
    async with stream(engine) as client:
        tasks = []
        for number in range(3):
            arrived = asyncio.Event()
            engine.on_batch = arrived.set
            name = str(number)
            tasks.append(asyncio.create_task(client.send("t.do", key="k", data={}, id=name)))
            await arrived.wait()
        await asyncio.gather(*tasks)
    assert engine.batches == [["0"], ["1"], ["2"]]


async def test_no_more_commands_are_unanswered_than_the_credit_allows(
    engine: "SmallEngine",
) -> None:
    engine.plan_stream(credit=7, linger_s=0.02)
    async with stream(engine) as client:
        replies = await client.send_all(command(f"c{n}") for n in range(20))
    assert len(replies) == 20
    assert engine.most_unanswered == 7


async def test_frames_hold_no_more_commands_than_the_engine_says(engine: "SmallEngine") -> None:
    engine.commands_max = 10
    async with stream(engine) as client:
        await client.send_all(command(f"c{n}") for n in range(95))
    assert max(len(batch) for batch in engine.batches) == 10


async def test_a_broken_stream_is_resumed_in_order_and_executes_nothing_twice(
    engine: "SmallEngine",
) -> None:
    engine.plan_stream(break_before=30)
    async with stream(engine) as client:
        replies = await client.send_all(command(f"c{n}") for n in range(60))
    assert engine.executed == [("k", f"c{n}") for n in range(60)]
    assert sum(reply.duplicate for reply in replies) == 15
    assert engine.streams == 2


async def test_the_same_id_for_two_keys_gets_two_answers(engine: "SmallEngine") -> None:
    async with stream(engine) as client:
        one, two = await client.send_all([command("same", "a"), command("same", "b")])
    assert (one.offset, two.offset) == (0, 1)
    assert engine.batches == [["same"], ["same"]]


async def test_a_single_refusal_is_sent_again_and_keeps_the_order_of_its_key(
    engine: "SmallEngine",
) -> None:
    for name in ("a1", "a2"):
        engine.refusals[name] = engine.codes("OVERLOADED")
    async with stream(engine) as client:
        await client.send_all([command("a1", "a"), command("a2", "a"), command("b", "b")])
    assert engine.executed == [("b", "b"), ("a", "a1"), ("a", "a2")]


async def test_a_refused_handshake_is_tried_again_when_that_may_help(
    engine: "SmallEngine",
) -> None:
    engine.plan_stream(refuse=503)
    async with stream(engine) as client:
        assert (await client.send("t.do", key="k", data={}, id="a")).outcome == "accepted"
    assert engine.streams == 2


async def test_a_handshake_without_permission_refuses_what_waits(engine: "SmallEngine") -> None:
    engine.plan_stream(refuse=401)
    async with stream(engine) as client:
        with pytest.raises(Refused) as caught:
            await client.send("t.do", key="k", data={}, id="a")
    assert caught.value.code == "HTTP_401"
    assert engine.executed == []


async def test_a_frame_that_the_engine_cannot_take_is_refused_not_repeated(
    engine: "SmallEngine",
) -> None:
    engine.plan_stream(error="TOO_LARGE", close_code=1009)
    async with stream(engine) as client:
        with pytest.raises(Refused) as caught:
            await client.send("t.do", key="k", data={}, id="a")
    assert caught.value.code == "TOO_LARGE"
    assert engine.streams == 1


async def test_a_notice_before_any_other_close_does_not_end_the_attempts(
    engine: "SmallEngine",
) -> None:
    engine.plan_stream(error="OVERLOADED", close_code=4008)
    async with stream(engine) as client:
        assert (await client.send("t.do", key="k", data={}, id="a")).outcome == "accepted"


async def test_what_is_no_reply_ends_the_stream_and_is_asked_again(engine: "SmallEngine") -> None:
    engine.plan_stream(garble=True)
    async with stream(engine) as client:
        reply = await client.send("t.do", key="k", data={}, id="a")
    assert reply.duplicate
    assert engine.streams == 2


async def test_after_goaway_the_next_commands_use_a_new_stream(engine: "SmallEngine") -> None:
    engine.plan_stream(go_away=0.0)
    async with stream(engine) as client:
        await client.send("t.do", key="k", data={}, id="a")
        await client.send("t.do", key="k", data={}, id="b")
    assert (engine.streams, engine.late) == (2, 0)
    assert [name for _, name in engine.executed] == ["a", "b"]


async def test_a_client_stays_away_as_long_as_it_was_asked_to(engine: "SmallEngine") -> None:
    engine.plan_stream(go_away=3600.0)
    async with stream(engine) as client:
        await client.send("t.do", key="k", data={}, id="a")
        with pytest.raises(Unreachable):
            await client.send("t.do", key="k", data={}, id="b", deadline_s=0.1)
    assert engine.streams == 1
    assert engine.executed == [("k", "a")]


async def test_without_an_engine_nothing_was_sent() -> None:
    client = Client("http://127.0.0.1:9", transport="stream", deadline_s=0.05, backoff=QUICK)
    async with client:
        with pytest.raises(Unreachable) as caught:
            await client.send("t.do", key="k", data={}, id="a")
    assert caught.value.code == "UNREACHABLE"


async def test_a_lost_answer_stays_in_doubt_when_the_engine_does_not_come_back(
    engine: "SmallEngine",
) -> None:
    engine.plan_stream(break_before=0)
    for _ in range(1_000):
        engine.plan_stream(refuse=503)
    async with stream(engine, deadline_s=1.0) as client:
        with pytest.raises(OutcomeUnknown):
            await client.send("t.do", key="k", data={}, id="a")


async def test_closing_leaves_sent_commands_in_doubt(engine: "SmallEngine") -> None:
    engine.plan_stream(answer_after=2)
    arrived = asyncio.Event()
    engine.on_batch = arrived.set
    client = stream(engine)
    sent = asyncio.create_task(client.send("t.do", key="k", data={}, id="a"))
    await arrived.wait()
    await client.close()
    with pytest.raises(OutcomeUnknown) as caught:
        await sent
    assert caught.value.code == "CLOSED"


@pytest.mark.parametrize("seed", range(15))
async def test_through_any_breaks_each_command_is_executed_once_and_keys_keep_their_order(
    engine: "SmallEngine", seed: int
) -> None:
    chance = random.Random(seed)
    plans: list[dict[str, object]] = [
        {"break_before": chance.randrange(40)},
        {"refuse": 503},
        {"garble": True},
        {"go_away": 0.0},
        {"error": "OVERLOADED", "close_code": 4008},
        {"credit": 3},
    ]
    for _ in range(10):
        engine.plan_stream(**chance.choice(plans))
    commands = [command(f"c{n}", f"key-{chance.randrange(5)}") for n in range(200)]
    async with Client(engine.url, transport="stream", lanes=2, backoff=QUICK) as client:
        tasks = []
        for start in range(0, 200, 20):
            tasks.append(asyncio.create_task(client.send_all(commands[start : start + 20])))
            await asyncio.sleep(chance.choice([0, 0.001]))
        replies = [reply for part in await asyncio.gather(*tasks) for reply in part]
    assert all(reply.outcome == "accepted" for reply in replies)
    assert len(engine.executed) == len(set(engine.executed)) == 200
    for number in range(5):
        key = f"key-{number}"
        sent = [item.id for item in commands if item.key == key]
        assert [name for found, name in engine.executed if found == key] == sent
