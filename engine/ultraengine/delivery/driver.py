"""Sends what domains ask for with ``context.send``: after commit, at least once, until answered.

    pages of a shard's feed -> messages -> post, in order for each key -> all answered -> confirm

The position is a consumer slot of the shard, so the log keeps whatever was not answered, and the
next start goes on there; what is sent twice for it is executed once.  One task for each shard.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import Any, Final

import msgspec
import structlog

from ultraengine.delivery.parcels import CONSUMER, Parcel, parcels, said
from ultraengine.execution.registry import Admitted, Registry
from ultraengine.feed.source import FeedPage, FeedSource
from ultraengine.log.serializer import serializers
from ultraengine.model.domain import Domain
from ultraengine.model.errors import EngineError
from ultraengine.model.ids import Offset, ShardId
from ultraengine.model.policy import LogSerializer
from ultraengine.model.reply import Reply
from ultraengine.reply import compose
from ultraengine.reply.waiters import Ticket

RETRY_S: Final = 0.1
RETRY_S_MAX: Final = 10.0
NOWHERE: Final = Offset(1 << 62)
"""Beyond the end of every log."""
LOOK_EVERY_S: Final = 5.0
"""How often shards that have come or gone are looked for."""
ENCODE: Final = msgspec.msgpack.Encoder().encode
SCOPES: Final = frozenset({"*:write"})

log = structlog.get_logger("delivery")

Post = Callable[[Parcel], Awaitable[Reply]]
Submit = Callable[[Sequence[Any], Ticket], None]


def wanted(domains: Sequence[Domain]) -> bool:
    """Whether any of the domains sends messages: without, nobody reads the feed for them."""
    return any(getattr(domain, "sends", False) for domain in domains)


async def submitted(submit: Submit, command: Any) -> Reply:
    """The reply to a command that is handed in alone."""
    answered: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()

    def tell(ticket: Ticket) -> None:
        reply = ticket.answers[0]
        if reply is not None and not answered.done():  # Done: its sender was cancelled.
            answered.set_result(reply)

    submit([command], Ticket(1, tell))
    return await answered


def post_here(registry: Registry, submit: Submit) -> Post:
    """Hand messages to the shard of this process, which has all keys."""

    def admitted(parcel: Parcel) -> Admitted:
        message = parcel.message
        return registry.admit(
            id=message.id,
            type=message.type,
            key=message.key,
            data=ENCODE(message.data),
            codec="msgpack",
            tenant=message.tenant,
            principal=parcel.sender,
            scopes=SCOPES,
            correlation_id=parcel.correlation_id,
            traceparent=parcel.traceparent,
        )

    async def post(parcel: Parcel) -> Reply:
        try:
            command = admitted(parcel)
        except EngineError as error:
            return compose.refused(parcel.message.id, error)
        return await submitted(submit, command)

    return post


def deliveries(
    source: FeedSource, registry: Registry, submit: Submit, own: Sequence[LogSerializer]
) -> list[Coroutine[Any, Any, None]]:
    """What a process with all keys has to run: nothing where no domain sends."""
    if not wanted(registry.domains):
        return []
    return [Delivery(source, post_here(registry, submit), serializers(own)).run()]


class Delivery:
    """The messages of all shards of one engine."""

    def __init__(
        self,
        source: FeedSource,
        post: Post,
        codecs: Mapping[int, LogSerializer],
        *,
        retry_s: float = RETRY_S,
        look_every_s: float = LOOK_EVERY_S,
    ) -> None:
        self._source = source
        self._post = post
        self._codecs = codecs
        self._retry_s = retry_s
        self._look_every_s = look_every_s
        self._shards: dict[ShardId, asyncio.Task[None]] = {}

    async def run(self) -> None:
        """Follow every shard, until cancelled."""
        try:
            while True:
                with contextlib.suppress(EngineError):
                    for shard in await self._source.shards():
                        if shard not in self._shards:
                            self._shards[shard] = asyncio.create_task(self._follow(shard))
                await asyncio.sleep(self._look_every_s)
        finally:
            for task in self._shards.values():
                task.cancel()
            await asyncio.gather(*self._shards.values(), return_exceptions=True)

    async def _follow(self, shard: ShardId) -> None:
        delay = self._retry_s
        while True:
            try:
                await self._carry(shard)
                delay = self._retry_s
            except Exception as error:  # noqa: BLE001  (the shard serves on, whatever it is)
                log.warning("delivery.waits", shard=shard, why=str(error), retry_s=delay)
                delay = min(delay * 2, RETRY_S_MAX)
            await asyncio.sleep(delay)

    async def _carry(self, shard: ShardId) -> None:
        """Send what the feed of a shard asks for until it ends.  Raises `EngineError`."""
        slots = {one.name: one.offset for one in await self._source.consumers(shard)}
        if CONSUMER not in slots:
            await self._begin(shard)
            return
        start = confirmed = slots[CONSUMER]
        async with contextlib.aclosing(self._source.pages(shard, start)) as pages:
            async for page in pages:
                position = confirmed
                for group in page.groups:
                    await self._deliver(parcels(group, self._codecs, start))
                    position = group.offset_end
                if position > confirmed:
                    await self._source.confirm(shard, CONSUMER, position)
                    confirmed = position

    async def _begin(self, shard: ShardId) -> None:
        """Make the slot: at the start of the log, or at its end where that is not kept any more."""
        start = Offset(0)
        try:
            await self._first_page(shard, start)
        except EngineError as error:
            if error.code != "TOO_OLD":
                raise
            start = (await self._first_page(shard, NOWHERE)).end
            log.warning("delivery.begins_late", shard=shard, offset=start, why=str(error))
        await self._source.confirm(shard, CONSUMER, start)

    async def _first_page(self, shard: ShardId, start: Offset) -> FeedPage:
        async with contextlib.aclosing(self._source.pages(shard, start)) as pages:
            return await anext(pages)

    async def _deliver(self, asked: Sequence[Parcel]) -> None:
        """Send until all are answered: those for one key one after the other."""
        lanes: dict[tuple[str, str], list[Parcel]] = {}
        for one in asked:
            lanes.setdefault((one.message.tenant, one.message.key), []).append(one)
        await asyncio.gather(*(self._in_order(lane) for lane in lanes.values()))

    async def _in_order(self, lane: Sequence[Parcel]) -> None:
        for parcel in lane:
            await self._until_answered(parcel)

    async def _until_answered(self, parcel: Parcel) -> None:
        delay = self._retry_s
        while True:
            reply = await self._post(parcel)
            answer = said(reply)
            if answer == "taken":
                return
            code = None if reply.error is None else reply.error.code
            facts = {
                "shard": parcel.shard,
                "offset": parcel.offset,
                "type": parcel.message.type,
                "id": parcel.message.id,
                "code": code,
            }
            if answer == "refused":
                # It would be refused again for ever, and hold the log and all that comes after.
                log.error("delivery.refused", **facts)
                return
            log.warning("delivery.again", retry_s=delay, **facts)
            await asyncio.sleep(delay)
            delay = min(delay * 2, RETRY_S_MAX)
