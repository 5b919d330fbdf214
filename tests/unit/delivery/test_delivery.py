"""Messages of domains arrive once at the keys they are for, whatever happens on the way."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.unit.delivery.relay import DOMAIN as RELAY
from tests.unit.delivery.relay import Relay
from tests.unit.shard.test_consumers import ConsumingRig
from tests.unit.shard.test_hunt_full_disk import until

from ultraengine.delivery.driver import Delivery, deliveries, post_here, submitted
from ultraengine.delivery.parcels import CONSUMER, Parcel, parcels, said
from ultraengine.domains.counter import DOMAIN as COUNTER
from ultraengine.execution.context import Message
from ultraengine.execution.registry import Registry
from ultraengine.feed.driver import Feed
from ultraengine.log.serializer import serializers
from ultraengine.model.errors import EngineError, InvariantBroken
from ultraengine.model.ids import Offset, ShardId
from ultraengine.model.reply import Reply
from ultraengine.reply import compose
from ultraengine.reply.waiters import Ticket

CODECS = serializers()
SHARD = ShardId(0)


class PostingRig(ConsumingRig):
    """A shard whose domain sends, with its feed."""

    async def start(self, **more: Any) -> Any:
        shard = await super().start(**more)
        self.feed = Feed(shard.log.reader(), SHARD, slots=self.slots, idle_s=0.05)
        recovered = shard.log.recovered
        self.feed.publish(recovered.recorded_end, recovered.last_time)
        shard.on_recorded = self.feed.publish
        self.posted: list[Parcel] = []
        self.running: asyncio.Task[None] | None = None
        return shard

    def deliver(self, post: Callable[[Parcel], Any] | None = None) -> None:
        """Begin to send."""
        here = post_here(self.registry, self.shard.submit)

        async def counted(parcel: Parcel) -> Reply:
            self.posted.append(parcel)
            reply: Reply = await (post or here)(parcel)
            return reply

        delivery = Delivery(self.feed, counted, CODECS, retry_s=0.001)
        self.running = asyncio.create_task(delivery.run())

    async def halt(self) -> None:
        """Send nothing more."""
        if self.running is not None:
            self.running.cancel()
            await asyncio.gather(self.running, return_exceptions=True)
        self.slots.close()
        await self.feed.close()

    async def ask(self, to: Sequence[str], id: str = "ask", **more: Any) -> Reply:
        data = msgspec.json.encode({"to": to, **more})
        (reply,) = await self.send(
            self.admit(id, type="relay.pass", key="r", data=data, correlation_id="c-1")
        )
        return reply

    async def counts(self, *keys: str) -> list[int]:
        return [await self.value(key) for key in keys]

    async def until_answered(self) -> None:
        end = self.shard.executor.applied_end
        await until(lambda: self.slots.offsets().get(CONSUMER, 0) >= end)


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[PostingRig]:
    rig = PostingRig(tmp_path, domains=(RELAY, COUNTER))
    await rig.start()
    yield rig
    await rig.halt()
    await rig.shard.stop()


async def test_what_a_domain_asks_for_is_done_once_at_each_key(rig: PostingRig) -> None:
    rig.deliver()
    assert (await rig.ask(["a", "b"], times=3)).outcome == "accepted"
    await rig.until_answered()
    assert await rig.counts("a", "b") == [6, 6]
    assert len(rig.posted) == 6


async def test_a_message_carries_its_correlation_and_says_which_shard_sent_it(
    rig: PostingRig,
) -> None:
    asked = await rig.ask(["a"])
    await rig.shard.rest()
    rig.deliver()
    await until(lambda: rig.shard.executor.version("t", "a") == 1)
    await rig.shard.rest()
    commands = [one for group in rig.shard.log.reader().groups(0) for one in group.commands]
    (command,) = [one for one in commands if one.key == "a"]
    assert (command.correlation_id, command.principal, command.tenant) == ("c-1", "shard-0", "t")
    assert command.id == f"r-0-{asked.offset:x}-1-0"


async def test_messages_for_one_key_are_sent_in_the_order_in_which_they_were_asked_for(
    rig: PostingRig,
) -> None:
    rig.deliver()
    await asyncio.gather(*(rig.ask(["a", "b"], f"ask-{n}", times=4) for n in range(5)))
    await rig.until_answered()
    for key in ("a", "b"):
        asked = [(one.offset, one.message.id[-1]) for one in rig.posted if one.message.key == key]
        assert asked == sorted(asked)
    assert await rig.counts("a", "b") == [50, 50]


async def test_after_a_kill_what_was_not_confirmed_is_sent_again_and_done_once(
    tmp_path: Path,
) -> None:
    rig = PostingRig(tmp_path, domains=(RELAY, COUNTER))
    await rig.start()
    rig.deliver()
    await rig.ask(["a"], times=2)
    await rig.until_answered()
    await rig.halt()
    await rig.kill()  # Confirmed, and not logged yet: at most once a second.
    rig.domains = (RELAY, COUNTER)
    await rig.start()
    rig.deliver()
    await rig.ask(["b"], "ask-2")
    await rig.until_answered()
    assert await rig.counts("a", "b") == [3, 1]
    await rig.halt()
    await rig.shard.stop()


async def test_a_message_that_is_not_taken_now_is_sent_until_it_is(rig: PostingRig) -> None:
    here, answers = post_here(rig.registry, rig.shard.submit), ["OVERLOADED", "OUTCOME_UNKNOWN"]

    async def post(parcel: Parcel) -> Reply:
        if answers:
            return compose.refused(parcel.message.id, EngineError("no", code=answers.pop()))
        return await here(parcel)

    rig.deliver(post)
    await rig.ask(["a"])
    await rig.until_answered()
    assert await rig.counts("a") == [1]
    assert len(rig.posted) == 3


@pytest.mark.parametrize("wrong", [{"type": "nobody.knows"}, {"to": ["no such key: blanks"]}])
async def test_what_would_never_be_taken_holds_up_nothing_behind_it(
    rig: PostingRig, wrong: dict[str, Any]
) -> None:
    rig.deliver()
    await rig.ask(**{"to": ["x"], "id": "wrong"} | wrong)
    await rig.ask(["a"])
    await rig.until_answered()
    assert await rig.counts("a") == [1]


async def test_a_post_that_fails_is_tried_again_from_where_it_was_confirmed(
    rig: PostingRig,
) -> None:
    here, failing = post_here(rig.registry, rig.shard.submit), [True, True]

    async def post(parcel: Parcel) -> Reply:
        if failing:
            failing.pop()
            raise RuntimeError("a bug")
        return await here(parcel)

    rig.deliver(post)
    await rig.ask(["a"])
    await rig.until_answered()
    assert await rig.counts("a") == [1]


async def test_where_the_log_is_cut_it_begins_at_the_end_and_says_so(
    rig: PostingRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    await rig.ask(["lost"])
    await rig.shard.rest()
    pages = rig.feed.pages

    async def cut(shard: ShardId, from_offset: Offset) -> Any:
        if from_offset == 0:
            raise EngineError("the log begins later", code="TOO_OLD")
        async for page in pages(shard, from_offset):
            yield page

    monkeypatch.setattr(rig.feed, "pages", cut)
    rig.deliver()
    await until(lambda: CONSUMER in rig.slots.offsets())
    await rig.ask(["a"], "ask-2")
    await rig.until_answered()
    assert [one.message.key for one in rig.posted] == ["a"]


async def test_a_feed_that_refuses_is_asked_again(
    rig: PostingRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    consumers, refusals = rig.feed.consumers, [True]

    async def away(shard: ShardId) -> Any:
        if refusals:
            refusals.pop()
            raise EngineError("not now", code="SHARD_UNAVAILABLE")
        return await consumers(shard)

    pages, broken = rig.feed.pages, [True]

    async def breaking(shard: ShardId, from_offset: Offset) -> Any:
        if broken:
            broken.pop()
            raise EngineError("not now", code="SHARD_UNAVAILABLE")
        async for page in pages(shard, from_offset):
            yield page

    monkeypatch.setattr(rig.feed, "consumers", away)
    monkeypatch.setattr(rig.feed, "pages", breaking)
    rig.deliver()
    await rig.ask(["a"])
    await rig.until_answered()
    assert await rig.counts("a") == [1]


async def test_shards_that_come_later_are_found(rig: PostingRig) -> None:
    shards = rig.feed.shards
    found: list[Any] = [EngineError("not now", code="SHARD_UNAVAILABLE"), [], await shards()]

    class Late:
        """The feed, whose shard is not there at first."""

        pages, consumers, confirm = rig.feed.pages, rig.feed.consumers, rig.feed.confirm
        forget, close = rig.feed.forget, rig.feed.close

        async def shards(self) -> Sequence[ShardId]:
            now = found[0] if len(found) == 1 else found.pop(0)
            if isinstance(now, EngineError):
                raise now
            there: Sequence[ShardId] = now
            return there

    here = post_here(rig.registry, rig.shard.submit)
    delivery = Delivery(Late(), here, CODECS, retry_s=0.001, look_every_s=0.001)
    rig.running = asyncio.create_task(delivery.run())
    await rig.ask(["a"])
    await rig.until_answered()
    assert await rig.counts("a") == [1]


async def test_without_a_domain_that_sends_nobody_reads_the_feed_for_messages(
    rig: PostingRig,
) -> None:
    (run,) = deliveries(rig.feed, rig.registry, rig.shard.submit, ())
    run.close()
    silent = Registry([COUNTER])
    assert deliveries(rig.feed, silent, rig.shard.submit, ()) == []


async def test_a_domain_that_does_not_say_that_it_sends_cannot(tmp_path: Path) -> None:
    class Silent(Relay):
        sends = False

    rig = PostingRig(tmp_path, domains=(Silent(), COUNTER))
    await rig.start()
    reply = await rig.ask(["a"])
    assert reply.error is not None
    assert reply.error.code == "INTERNAL"
    await rig.halt()
    await rig.shard.stop()


async def test_an_answer_that_nobody_waits_for_any_more_harms_nothing() -> None:
    tickets: list[Ticket] = []
    waiting = asyncio.ensure_future(submitted(lambda _one, ticket: tickets.append(ticket), "x"))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    tickets[0].put(0, compose.refused("x", EngineError("late", code="OVERLOADED")))
    assert waiting.cancelled()


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("OVERLOADED", "again"),
        ("OUTCOME_UNKNOWN", "again"),
        ("WRONG_SHARD", "again"),
        ("MALFORMED", "refused"),
        ("IDEMPOTENCY_MISMATCH", "refused"),
        ("FORBIDDEN", "refused"),
    ],
)
def test_what_may_be_taken_later_is_sent_again_and_nothing_else(code: str, expected: str) -> None:
    assert said(compose.refused("x", EngineError("no", code=code))) == expected


def test_a_rule_of_the_receiver_that_says_no_is_an_answer() -> None:
    assert said(Reply(id="x", outcome="rejected")) == "taken"
    assert said(Reply(id="x", outcome="refused")) == "refused"


async def test_messages_are_read_from_an_offset_on_and_of_known_codecs_only(
    rig: PostingRig,
) -> None:
    await asyncio.gather(rig.ask(["a"], "one"), rig.ask(["b"], "two"))
    await rig.shard.rest()
    async for page in rig.feed.pages(SHARD, Offset(0)):
        (group,) = [one for one in page.groups if parcels(one, CODECS, 0)]
        break
    both = parcels(group, CODECS, 0)
    assert [one.message.key for one in both] == ["a", "b"]
    assert parcels(group, CODECS, both[0].offset + 1) == both[1:]
    assert both[0].message == Message("t", "a", "counter.add", both[0].message.id, {"delta": 1})
    with pytest.raises(InvariantBroken, match="codec"):
        parcels(group, {}, 0)
