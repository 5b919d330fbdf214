"""Commands for many shards: the edge of a front, which forwards instead of executing.

    envelopes -> shard of each key -> one request per shard -> replies back in their places

A front decodes the envelope, not ``data``: that is for the shard, whose handlers decide.  Keys,
quotas and the shape of envelopes are checked here, everything else there, so a front need not
have the same domains as its shards.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Final

from ultraengine.edge.codec import JSON, MSGPACK, Codec, CodecName
from ultraengine.execution.registry import Registry
from ultraengine.gateway.admission import Intake
from ultraengine.gateway.commands import Commands
from ultraengine.gateway.edge import Edge, Parts
from ultraengine.gateway.envelope import Envelope, Parsed
from ultraengine.gateway.forwarded import (
    Alone,
    Routed,
    Way,
    batch_request,
    replies_of,
    single_replies_of,
)
from ultraengine.gateway.hop import hop_headers
from ultraengine.model.errors import EngineError
from ultraengine.model.ids import ShardId
from ultraengine.model.limits import Limits
from ultraengine.model.reply import Reply
from ultraengine.ports import Caller
from ultraengine.reply.waiters import Ticket
from ultraengine.router.driver import Links, Result
from ultraengine.router.lane import Lane
from ultraengine.router.partition import split
from ultraengine.router.wire import Answered

PARALLEL_MAX: Final = 4
"""Batches of single commands under way to one shard for one caller; the rest forms the next."""

_WRONG_SHARD: Final = b"WRONG_SHARD"

Place = tuple[Ticket, int, Routed]
"""A command, and where its reply belongs."""


def notice(links: Links, result: Result) -> None:
    """Ask for a newer map when a shard says that it does not own a key.

    Answers are not decoded for it: content that looks like it costs a look at the map.
    """
    if isinstance(result, Answered) and (result.status == 421 or _WRONG_SHARD in result.body):
        links.on_wrong_shard()


class Lanes:
    """The commands of one stream, or of one batch: to each shard in their order."""

    def __init__(self, links: Links, limits: Limits) -> None:
        self._links = links
        self._limits = limits
        self._lanes: dict[ShardId, Lane[Place]] = {}

    def submit(self, admitted: Sequence[Any], ticket: Ticket, first_index: int = 0) -> None:
        """Forward commands (`Routed`); every reply arrives through the ticket."""
        routed: Sequence[Routed] = admitted
        for shard, places in split([one.shard for one in routed]).items():
            lane = self._lanes.get(shard)
            if lane is None:
                limits = self._limits
                lane = self._lanes[shard] = Lane(
                    count_max=limits.commands_per_batch_max, bytes_max=limits.batch_bytes_max
                )
            lane.put(
                [(ticket, first_index + place, routed[place]) for place in places],
                [len(routed[place].raw) + 1 for place in places],
            )
            self._go_on(shard, lane)

    def _go_on(self, shard: ShardId, lane: Lane[Place]) -> None:
        places = lane.take()
        if not places:
            return
        batch = [routed for _, _, routed in places]

        def done(result: Result, was_lost: bool) -> None:  # noqa: FBT001  (a callback's shape)
            notice(self._links, result)
            replies = replies_of(batch, result, was_lost=was_lost)
            lane.answered()
            self._go_on(shard, lane)
            for (ticket, index, _), reply in zip(places, replies, strict=True):
                ticket.put(index, reply)

        self._links.send(shard, batch_request(batch), done, deadline_s=self._limits.reply_wait_s)


class Pool:
    """Commands that come alone, gathered for each shard while others are under way.

    A request of its own costs a shard several times what a command in a batch does.
    """

    def __init__(self, links: Links, limits: Limits) -> None:
        self._links = links
        self._limits = limits
        self._lanes: dict[tuple[ShardId, Way], Lane[Place]] = {}
        """By shard and way: callers are never mixed.  Idle ones are removed."""
        self._scheduled: dict[tuple[ShardId, Way], None] = {}
        self._loop = asyncio.get_running_loop()

    def submit(self, one: Alone, ticket: Ticket) -> None:
        """Forward one command with those that come in the same turn of the event loop."""
        name = one.shard, one.way
        lane = self._lanes.get(name)
        if lane is None:
            limits = self._limits
            lane = self._lanes[name] = Lane(
                count_max=limits.commands_per_batch_max,
                bytes_max=limits.batch_bytes_max,
                parallel_max=PARALLEL_MAX,
            )
        lane.put([(ticket, 0, one)], [len(one.raw) + 1])
        if name not in self._scheduled:
            self._scheduled[name] = None
            self._loop.call_soon(self._go_on, name, lane)

    def _go_on(self, name: tuple[ShardId, Way], lane: Lane[Place]) -> None:
        self._scheduled.pop(name, None)
        while places := lane.take():
            self._send(name, lane, places)
        if lane.is_idle:
            self._lanes.pop(name, None)

    def _send(self, name: tuple[ShardId, Way], lane: Lane[Place], places: Sequence[Place]) -> None:
        batch = [routed for _, _, routed in places]

        def done(result: Result, was_lost: bool) -> None:  # noqa: FBT001  (a callback's shape)
            notice(self._links, result)
            replies = single_replies_of(batch, result, was_lost=was_lost)
            lane.answered()
            self._go_on(name, lane)
            for (ticket, index, _), reply in zip(places, replies, strict=True):
                ticket.put(index, reply)

        deadline_s = self._limits.reply_wait_s
        self._links.send(name[0], batch_request(batch), done, deadline_s=deadline_s)


class RoutedEngine:
    """What the edge hands commands to; `status` comes from whoever watches the shards."""

    def __init__(
        self, links: Links, registry: Registry, limits: Limits, status: Callable[[], Any]
    ) -> None:
        self.links = links
        self.registry = registry
        """For documents and paths; it admits nothing here."""
        self.limits = limits
        self.status = status
        self._pool = Pool(links, limits)

    def submit(self, admitted: Sequence[Any], ticket: Ticket, first_index: int = 0) -> None:
        """Forward the commands of one request; every reply arrives through the ticket."""
        first = admitted[0]
        if isinstance(first, Alone):
            self._pool.submit(first, ticket)
        else:
            Lanes(self.links, self.limits).submit(admitted, ticket, first_index)


class RoutedEdge(Edge):
    """The shared state of a front's ways in."""

    def __init__(self, parts: Parts, links: Links, secret: str) -> None:
        super().__init__(parts)
        self.links = links
        self._secret = secret

    def hop_headers(self, caller: Caller) -> tuple[tuple[str, str], ...]:
        """The headers that name a caller to a shard."""
        return hop_headers(self._secret, caller)

    def ordered(self) -> Callable[[Sequence[Any], Ticket], None]:
        """How one stream forwards: to each shard in the stream's order."""
        return Lanes(self.links, self.limits).submit

    def take_in(
        self,
        caller: Caller,
        parsed: Sequence[Parsed],
        codec: CodecName,
        traceparent: str | None = None,
        out: CodecName | None = None,
    ) -> Intake:
        """Name the commands of a batch or frame and find their shards; bad ones are refused
        singly.  What they ask for is checked by the shards."""
        self.name_commands(parsed)
        self.metrics.batch_sizes.observe(len(parsed))
        way = Way(self.hop_headers(caller), _codec(codec), _codec(out or codec))
        encode, shard_of, tenant = way.codec.encode, self.links.shard_map.shard_of, caller.tenant
        routed: list[Any] = []
        errors: list[tuple[int, EngineError]] = []
        for index, item in enumerate(parsed):
            if isinstance(item, EngineError):
                errors.append((index, item))
                continue
            if item.traceparent is None:
                item.traceparent = traceparent
            routed.append(Routed(item, shard_of(tenant, item.key), way, encode(item)))
        return Intake(routed, errors)

    def route(self, caller: Caller, envelope: Envelope, codec: Codec, out: Codec) -> Alone:
        """One command with its shard."""
        shard = self.links.shard_map.shard_of(caller.tenant, envelope.key)
        way = Way(self.hop_headers(caller), codec, out)
        return Alone(envelope, shard, way, codec.encode(envelope))

    def count(self, replies: Sequence[Reply]) -> None:
        """Count what ended here; what a shard answered, it has counted itself."""
        super().count([reply for reply in replies if reply.__class__ is Reply])


def _codec(name: CodecName) -> Codec:
    return JSON if name == "json" else MSGPACK


class RoutedCommands(Commands):
    """Commands are handed in with their shards; all else is as at any edge."""

    def __init__(self, edge: RoutedEdge) -> None:
        super().__init__(edge)
        self._route = edge.route

    def _admit(self, caller: Caller, envelope: Envelope, codec: Codec, out: Codec) -> Any:
        return self._route(caller, envelope, codec, out)
