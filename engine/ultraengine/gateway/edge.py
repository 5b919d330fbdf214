"""What all ways into the engine share: the engine, callers, quotas, counters, the drain.

One object per process, used on the thread of the event loop alone.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import msgspec

from ultraengine.edge.codec import CodecName
from ultraengine.edge.quota import Quotas
from ultraengine.execution.registry import Admitted
from ultraengine.feed.source import FeedSource
from ultraengine.gateway.admission import Intake, admit_all
from ultraengine.gateway.engine import Engine, Feed, Operations, Slots
from ultraengine.gateway.envelope import ID_RANDOM_BYTES, Parsed, fill_ids, missing_ids
from ultraengine.gateway.metrics import EdgeMetrics
from ultraengine.gateway.waits import Waits
from ultraengine.model.errors import EngineError
from ultraengine.model.ids import Instant
from ultraengine.model.limits import Limits
from ultraengine.model.reply import Reply
from ultraengine.model.trace import is_sampled
from ultraengine.ports import Caller, Clock, Identity, Random, Telemetry
from ultraengine.reply.waiters import Ticket

DRAIN_RETRY_AFTER_S: Final = 2.0
"""What a draining engine tells its callers to wait: about the time of a restart."""


class Parts(msgspec.Struct, frozen=True, kw_only=True):
    """What an edge is made of; `main` joins them."""

    engine: Engine
    identity: Identity
    clock: Clock
    random: Random
    operations: Operations = Operations()
    """What the admin API offers beyond the status."""
    feed: Feed | None = None
    """None: streams offer no subscriptions."""
    source: FeedSource | None = None
    """None: ``/v1/feed`` is absent."""
    slots: Slots | None = None
    """None: this process hands no slots over."""
    telemetry: Telemetry | None = None
    quotas: Quotas | None = None
    """None: made from the limits, the same for all tenants."""
    role: str = ""
    """``leader`` or ``follower`` of one of several copies, for ``/healthz``."""
    refusal: Callable[[], EngineError | None] = lambda: None
    """Why nothing but reads is taken here, as of a copy that follows; None: it is."""
    shard_map_version: Callable[[], int] = lambda: 0
    """Version of the shard map in force; 0 while one shard owns everything."""


class Edge:
    """The shared state of HTTP and streams."""

    def __init__(self, parts: Parts) -> None:
        self.engine = parts.engine
        self.identity = parts.identity
        self.clock = parts.clock
        self.random = parts.random
        self.operations = parts.operations
        self.feed = parts.feed
        self.source = parts.source
        self.telemetry = parts.telemetry
        self.limits: Limits = parts.engine.limits
        self.quotas = parts.quotas or Quotas(
            self.limits.tenant_commands_per_s, self.limits.tenant_burst, {}
        )
        self.metrics = EdgeMetrics()
        self.waits = Waits(self.limits.reply_wait_s)
        self.leaving = False
        """Not ready any more, and still serving whoever has not heard of it yet."""
        self.draining = False
        self.role = parts.role
        """``leader`` or ``follower`` of one of several copies; empty otherwise."""
        self._refusal = parts.refusal
        self._loop = asyncio.get_running_loop()
        self._shard_map_version = parts.shard_map_version
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def shard_map_version(self) -> int:
        """Version of the shard map in force."""
        return self._shard_map_version()

    def background(self, task: "asyncio.Task[None]") -> None:
        """Keep a task that nobody awaits until it is done."""
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def caller(self, headers: Mapping[str, str], *, peer_is_loopback: bool) -> Caller:
        """Authenticate a request.  Raises `EngineError` UNAUTHENTICATED or FORBIDDEN."""
        return self.identity.authenticate(headers, peer_is_loopback=peer_is_loopback)

    def require_intake(self) -> None:
        """Raise `EngineError` DRAINING once the edge takes nothing new, or why it never does."""
        self.require_open()
        self.require_leading()

    def require_leading(self) -> None:
        """Raise why nothing but reads is taken here, as by a copy that follows."""
        refusal = self._refusal()
        if refusal is not None:
            raise refusal

    def require_open(self) -> None:
        """Raise `EngineError` DRAINING once the edge takes nothing new, reads neither."""
        if self.draining:
            raise EngineError(
                "this process is shutting down", code="DRAINING", retry_after_s=DRAIN_RETRY_AFTER_S
            )

    def require_room(self) -> None:
        """Raise `EngineError` OVERLOADED when too many requests are being answered, this one
        included."""
        in_flight_max = self.limits.requests_in_flight_max
        if self.metrics.requests_in_flight > in_flight_max:
            raise EngineError(
                f"more than {in_flight_max} requests are being answered", code="OVERLOADED"
            )

    def name_commands(self, parsed: Sequence[Parsed]) -> None:
        """Give the commands without an id one of the server's making."""
        places = missing_ids(parsed)
        if places:
            random = self.random.bytes(ID_RANDOM_BYTES * len(places))
            fill_ids(parsed, places, self.clock.now() // 1_000, random)

    def charge(self, caller: Caller, count: int) -> None:
        """Take commands from the tenant's quota.  Raises `EngineError` QUOTA."""
        self.quotas.take(caller.tenant, count, self.clock.monotonic())

    def take_in(
        self,
        caller: Caller,
        parsed: Sequence[Parsed],
        codec: CodecName,
        traceparent: str | None = None,
        out: CodecName | None = None,
    ) -> Intake:
        """Name and admit the commands of a batch or frame; `out` is the codec of the replies."""
        del out  # Replies are values here; who forwards asks for them in this codec.
        self.name_commands(parsed)
        self.metrics.batch_sizes.observe(len(parsed))
        return admit_all(self.engine.registry, caller, parsed, codec, traceparent)

    def ordered(self) -> Callable[[Sequence[Admitted], Ticket], None]:
        """How one stream submits its frames, so that they are taken in their order."""
        return self.engine.submit

    async def answers(self, admitted: Sequence[Admitted]) -> Ticket:
        """Submit commands and wait for their answers, at most ``reply_wait_s``."""
        future: asyncio.Future[None] = self._loop.create_future()

        def wake(_ticket: Ticket) -> None:
            if not future.done():
                future.set_result(None)

        ticket = Ticket(len(admitted), wake)
        self.engine.submit(admitted, ticket)
        if ticket.missing:
            self.waits.add(ticket, self.clock.monotonic(), wake)
            try:
                await future
            finally:
                self.waits.done(ticket)
        return ticket

    def count(self, replies: Sequence[Reply]) -> None:
        """Count how commands ended."""
        others = [reply for reply in replies if reply.outcome != "accepted"]
        self.metrics.commands("accepted", "", len(replies) - len(others))
        for reply in others:
            code = "" if reply.error is None else reply.error.code
            self.metrics.commands(reply.outcome, code, 1)

    def trace(self, name: str, start: Instant, traceparent: str | None, commands: int) -> None:
        """Record a span of one request when the caller's trace is sampled."""
        if self.telemetry is not None and is_sampled(traceparent):
            self.telemetry.span(
                name,
                start=start,
                end=self.clock.now(),
                traceparent=traceparent,
                attributes={"ultra.commands": commands},
            )
