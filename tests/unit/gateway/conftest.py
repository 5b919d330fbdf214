"""A small real engine in memory behind a real gateway on a loopback socket.

The engine executes commands with the domains' own handlers, remembers ids, counts versions
and offsets; it lacks the log, and it can be told to hold its answers.
"""

import asyncio
import hashlib
import struct
from collections.abc import AsyncIterator, Sequence
from typing import Any

import aiohttp
import msgspec
import pytest
from prometheus_client import CollectorRegistry

from ultraengine.domains.counter import DOMAIN
from ultraengine.edge.auth import Loopback
from ultraengine.execution.context import CommandContext, EventPlace
from ultraengine.execution.registry import Admitted, Registry
from ultraengine.gateway.driver import Gateway, GatewayOptions
from ultraengine.gateway.edge import Parts
from ultraengine.model.domain import Domain, QuerySpec
from ultraengine.model.errors import EngineError
from ultraengine.model.ids import Epoch, Instant, Offset, ShardId
from ultraengine.model.instant import format_instant
from ultraengine.model.limits import DEFAULT_LIMITS, Limits
from ultraengine.model.outcome import CommittedOutcome, Outcome, Status
from ultraengine.model.reply import Durable, Reply, ReplyError
from ultraengine.reply import compose
from ultraengine.reply.waiters import Ticket
from ultraengine.shard.status import OutcomeAnswer, ReadAnswer

START = Instant(1_800_000_000_000_000)
DURABLE = Durable("sync", True, 1)


class StillClock:
    """Time that stands still until a test moves it."""

    def __init__(self) -> None:
        self.micros = int(START)

    def now(self) -> Instant:
        return Instant(self.micros)

    def monotonic(self) -> float:
        return self.micros / 1e6

    def advance(self, seconds: float) -> None:
        self.micros += round(seconds * 1e6)


class CountingRandom:
    """Bytes that never repeat and are the same in every run."""

    def __init__(self) -> None:
        self.calls = 0

    def bytes(self, length: int) -> bytes:
        self.calls += 1
        return hashlib.shake_128(struct.pack("<Q", self.calls)).digest(length)


class NoHistory:
    def events(self, _offset: Offset, /) -> None:
        return None


class SmallStatus(msgspec.Struct, frozen=True):
    role: str
    state: str
    epoch: int
    dedup_floor_time: str | None
    applied_end: int


class SmallEngine:
    """Executes at once, or when released."""

    def __init__(self, domains: Sequence[Domain], limits: Limits) -> None:
        self.registry = Registry(domains, limits=limits)
        self.limits = limits
        self.state = "serving"
        self.closed: EngineError | None = None
        self.held: list[tuple[Sequence[Admitted], Ticket, int]] | None = None
        """When a list: submissions wait here."""
        self.submitted = 0
        self.outcomes: list[CommittedOutcome] = []
        self.grew = asyncio.Event()
        self._states = {domain.name: domain.new_state() for domain in self.registry.domains}
        self._versions: dict[tuple[str, str], int] = {}
        self._done: dict[tuple[str, str, str], tuple[int, Reply]] = {}
        self._context = CommandContext(ShardId(0), NoHistory())
        self._place = EventPlace()

    def submit(self, admitted: Sequence[Admitted], ticket: Ticket, first_index: int = 0) -> None:
        self.submitted += len(admitted)
        if self.held is not None:
            self.held.append((admitted, ticket, first_index))
            return
        for index, item in enumerate(admitted, first_index):
            ticket.put(index, self._execute(item))

    def release(self) -> None:
        waiting, self.held = self.held or [], None
        for entry in waiting:
            self.submitted -= len(entry[0])
            self.submit(*entry)

    def _execute(self, item: Admitted) -> Reply:
        command = item.command
        name = (command.tenant, command.key, command.id)
        known = self._done.get(name)
        if known is not None:
            if known[0] != item.fingerprint:
                return compose.refused(
                    command.id, EngineError("another content", code="IDEMPOTENCY_MISMATCH")
                )
            return msgspec.structs.replace(known[1], duplicate=True)
        if self.closed is not None:
            return compose.refused(command.id, self.closed)
        aggregate = (command.tenant, command.key)
        version = self._versions.get(aggregate, 0)
        offset = len(self.outcomes)
        reply = self._decide(item, version, offset)
        if reply.outcome == "accepted":
            self._versions[aggregate] = version + 1
        self._done[name] = (item.fingerprint, reply)
        return reply

    def _decide(self, item: Admitted, version: int, offset: int) -> Reply:
        command, context, place, handler = item.command, self._context, self._place, item.handler
        assert handler is not None
        base = Reply(
            id=command.id,
            outcome="rejected",
            shard=0,
            epoch=1,
            offset=offset,
            version=version,
            time=format_instant(START),
            durable=DURABLE,
        )
        events, result = msgspec.Raw(b"\x90"), msgspec.Raw(b"\xc0")
        if command.expected_version not in (None, version):
            error = ReplyError(
                "VERSION_MISMATCH", f"the version is {version}", current_version=version
            )
            reply = msgspec.structs.replace(base, error=error)
            status = int(Status.REJECTED)
        else:
            context.renew()
            context.tenant, context.key, context.offset = (
                command.tenant,
                command.key,
                Offset(offset),
            )
            place.tenant, place.key, place.offset = command.tenant, command.key, Offset(offset)
            state = handler.focus(self._states[handler.domain.name], command.tenant, command.key)
            verdict = handler.run(state, command, item.payload, context, place)
            status = int(verdict.status)
            events, result = msgspec.Raw(verdict.events), msgspec.Raw(verdict.raw_result)
            reply = msgspec.structs.replace(
                base,
                outcome="accepted" if status == Status.ACCEPTED else "rejected",
                result=verdict.result,
                version=version + (status == Status.ACCEPTED),
                error=None if verdict.failure is None else compose.failure_error(verdict.failure),
            )
        self.outcomes.append(
            CommittedOutcome(
                ShardId(0),
                Epoch(1),
                Offset(offset),
                START,
                command,
                Outcome(offset, status, reply.version or 0, result, events),
            )
        )
        self.grew.set()
        return reply

    async def query(
        self,
        spec: QuerySpec,
        domain: str,
        tenant: str,
        key: str,
        params: Any,
        *,
        min_offset: int | None = None,
        read: str = "leader",
    ) -> ReadAnswer:
        assert read in {"leader", "confirm", "follower"}
        if min_offset is not None and min_offset >= len(self.outcomes):
            raise EngineError(f"offset {min_offset} was not reached", code="WAIT_TIMEOUT")
        value = spec.capture(self._states[domain], tenant, key, params)
        if spec.render is not None:
            value = spec.render(value, params, NoHistory())
        return ReadAnswer(value, 1, len(self.outcomes) - 1)

    async def outcome(self, tenant: str, key: str | None, command_id: str) -> OutcomeAnswer:
        for admitted, _, _ in self.held or ():
            if any((c.command.key, c.command.id) == (key, command_id) for c in admitted):
                return OutcomeAnswer("in_flight", None, 0)
        for (owner, of_key, name), (_, reply) in self._done.items():
            if (owner, name) == (tenant, command_id) and key in {None, of_key}:
                return OutcomeAnswer("done", msgspec.structs.replace(reply, duplicate=True), 0)
        return OutcomeAnswer("unknown", None, 0)

    def status(self) -> SmallStatus:
        return SmallStatus("leader", self.state, 1, None, len(self.outcomes))


class SmallFeed:
    """Everything that a small engine has done, then whatever it does."""

    def __init__(self, engine: SmallEngine) -> None:
        self._engine = engine
        self.floor = 0

    async def outcomes(self, from_offset: int) -> AsyncIterator[Sequence[CommittedOutcome]]:
        if from_offset < self.floor:
            raise EngineError("the log starts later", code="TOO_OLD")
        at = from_offset
        if not self._engine.outcomes[at:]:
            yield []
        while True:
            group = self._engine.outcomes[at:]
            if group:
                at += len(group)
                yield group
            else:
                self._engine.grew.clear()
                await self._engine.grew.wait()


class Served:
    """A running gateway and a client session for it."""

    def __init__(self, engine: SmallEngine, clock: StillClock) -> None:
        self.engine = engine
        self.clock = clock
        self.registry = CollectorRegistry()
        self.gateway: Gateway
        self.http: aiohttp.ClientSession

    async def start(self, parts: Parts, options: GatewayOptions, **more: Any) -> None:
        self.gateway = Gateway(parts, options, registry=self.registry, **more)
        await self.gateway.start()
        self.http = aiohttp.ClientSession(self.url)

    @property
    def url(self) -> str:
        host, port = self.gateway.addresses[0]
        return f"http://{host}:{port}"

    async def stop(self) -> None:
        await self.http.close()
        await self.gateway.stop()

    async def send(self, command: Any, **headers: str) -> tuple[int, dict[str, Any]]:
        """Send one command as JSON; status and body."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        async with self.http.post("/v1/commands", json=command, headers=named) as answer:
            return answer.status, await answer.json(content_type=None)

    async def get(self, path: str, **headers: str) -> tuple[int, Any]:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        async with self.http.get(path, headers=named) as answer:
            return answer.status, await answer.json(content_type=None)


class Serving:
    """Starts gateways and stops them all at the end of a test."""

    def __init__(self) -> None:
        self._started: list[Served] = []

    async def __call__(
        self,
        *,
        limits: Limits = DEFAULT_LIMITS,
        identity: Any = None,
        options: GatewayOptions | None = None,
        feed: bool = False,
        domains: Sequence[Domain] = (DOMAIN,),
        key_file: Any = None,
        **more: Any,
    ) -> Served:
        engine, clock = SmallEngine(domains, limits), StillClock()
        served = Served(engine, clock)
        parts = Parts(
            engine=engine,
            identity=identity(clock) if callable(identity) else identity or Loopback(),
            clock=clock,
            random=CountingRandom(),
            feed=SmallFeed(engine) if feed else None,
            **more,
        )
        await served.start(parts, options or GatewayOptions(port=0), key_file=key_file)
        self._started.append(served)
        return served

    async def stop(self) -> None:
        for served in self._started:
            await served.stop()


@pytest.fixture
async def serving() -> AsyncIterator[Serving]:
    start = Serving()
    yield start
    await start.stop()


@pytest.fixture
async def served(serving: Serving) -> Served:
    """A gateway over the counter domain, keyless on the loopback."""
    return await serving()


def add(id: str | None = "a-1", key: str = "book-1", delta: int = 5, **more: Any) -> dict[str, Any]:
    """A command of the counter domain."""
    command = {"type": "counter.add", "key": key, "data": {"delta": delta}, **more}
    return command if id is None else {"id": id, **command}
