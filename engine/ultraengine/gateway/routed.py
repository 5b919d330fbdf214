"""Commands for many shards: the edge of a front, which forwards instead of executing.

    envelopes -> shard of each key -> one request per shard -> replies back in their places

A front decodes the envelope, not ``data``: that is for the shard, whose handlers decide.  Keys,
quotas and the shape of envelopes are checked here, everything else there, so a front need not
have the same domains as its shards.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ultraengine.execution.registry import Registry
from ultraengine.gateway.admission import Intake
from ultraengine.gateway.codec import JSON, MSGPACK, Codec, CodecName
from ultraengine.gateway.commands import Begun, Commands
from ultraengine.gateway.edge import Edge, Parts
from ultraengine.gateway.envelope import (
    ID_RANDOM_BYTES,
    Envelope,
    Parsed,
    decode_one,
    merge_headers,
    uuid7,
    wants_async,
)
from ultraengine.gateway.forwarded import (
    Routed,
    Single,
    Way,
    batch_request,
    made_reply,
    replies_of,
    unknown_reply,
)
from ultraengine.gateway.hop import hop_headers
from ultraengine.gateway.problems import Answer, reply_problem
from ultraengine.model.errors import EngineError, Malformed
from ultraengine.model.ids import ShardId, is_name
from ultraengine.model.limits import Limits
from ultraengine.model.reply import Reply
from ultraengine.ports import Caller
from ultraengine.reply.waiters import Ticket
from ultraengine.router.driver import Links, Result
from ultraengine.router.lane import Lane
from ultraengine.router.partition import split
from ultraengine.router.wire import Answered, request

Place = tuple[Ticket, int, Routed]
"""A command, and where its reply belongs."""


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
            replies = replies_of(batch, result, was_lost=was_lost)
            lane.answered()
            self._go_on(shard, lane)
            for (ticket, index, _), reply in zip(places, replies, strict=True):
                ticket.put(index, reply)

        self._links.send(shard, batch_request(batch), done, deadline_s=self._limits.reply_wait_s)


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

    def submit(self, admitted: Sequence[Any], ticket: Ticket, first_index: int = 0) -> None:
        """Forward the commands of one request; every reply arrives through the ticket."""
        first = admitted[0]
        if isinstance(first, Single):
            self._forward(first, ticket)
        else:
            Lanes(self.links, self.limits).submit(admitted, ticket, first_index)

    def _forward(self, single: Single, ticket: Ticket) -> None:
        def done(result: Result, was_lost: bool) -> None:  # noqa: FBT001  (a callback's shape)
            del was_lost  # An answer that leaves the lost attempt open does not come here.
            answer: Any = result
            if isinstance(result, EngineError):
                answer = made_reply(single.command, result)
            ticket.put(0, answer)

        deadline_s = self.limits.reply_wait_s
        self.links.send(single.shard, single.request, done, deadline_s=deadline_s)


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

    def count(self, replies: Sequence[Reply]) -> None:
        """Count what ended here; what a shard answered, it has counted itself."""
        super().count([reply for reply in replies if isinstance(reply, Reply)])


def _codec(name: CodecName) -> Codec:
    return JSON if name == "json" else MSGPACK


class RoutedCommands(Commands):
    """Single commands are forwarded as they came; batches as any edge takes them."""

    def __init__(self, edge: RoutedEdge) -> None:
        super().__init__(edge)
        self._routed = edge

    def single(self, caller: Caller, headers: Mapping[str, str], body: bytes) -> Answer | Begun:
        """One command."""
        edge = self._routed
        envelope: Envelope | None = None
        try:
            codec, out = self.check(headers)
            envelope = decode_one(body, codec.name)
            merge_headers(envelope, headers)
            if envelope.id is None:
                random = edge.random.bytes(ID_RANDOM_BYTES)
                envelope.id = uuid7(edge.clock.now() // 1_000, random)
            elif not is_name(envelope.id):
                raise Malformed("an id is 1-128 characters of A-Z a-z 0-9 . _ : -", pointer="/id")
            edge.charge(caller, 1)
        except EngineError as error:
            return self.refuse(caller, headers, error, None if envelope is None else envelope.id)
        forwarded = [
            ("Content-Type", codec.media_type),
            ("Accept", out.media_type),
            ("Idempotency-Key", envelope.id),
            *edge.hop_headers(caller),
        ]
        if "if-match" in headers:
            forwarded.append(("If-Match", f'"{envelope.expected_version}"'))
        if wants_async(headers):
            forwarded.append(("Prefer", "respond-async"))
        if envelope.traceparent is not None and "traceparent" in headers:
            forwarded.append(("traceparent", envelope.traceparent))
        shard = edge.links.shard_map.shard_of(caller.tenant, envelope.key)
        single = Single(envelope, shard, request("POST", "/v1/commands", forwarded, body))
        start, command = edge.clock.now(), envelope

        def finish(ticket: Ticket) -> Answer:
            edge.trace("command", start, command.traceparent, 1)
            answered: Any = ticket.answers[0]
            quota = edge.quotas.headers(caller.tenant, edge.clock.monotonic())
            if isinstance(answered, Answered):
                more = (*answered.headers, *quota)
                return Answer(answered.status, answered.body, answered.content_type, more)
            reply = answered or unknown_reply(command)
            edge.count((reply,))
            return reply_problem(reply, quota)

        return Begun((single,), finish)
