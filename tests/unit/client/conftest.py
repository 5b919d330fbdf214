"""A small real engine for the client's tests: HTTP and WebSocket, with faults on demand.

It does what the contract says where the client depends on it: an id is taken once per key
and answered again as a duplicate, offsets are dense, replies come in the order of the
batch.  Faults are a list that is used up request by request, so every run is the same.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Any, NamedTuple

import msgspec
import pytest
from aiohttp import WSMsgType, web

from ultraengine.model.errors import PROBLEMS
from ultraengine.model.reply import Durable, Reply, ReplyError

Body = list[dict[str, Any]]


class Fault(NamedTuple):
    """Something that happens to one request."""

    before: bool
    """Whether the request is lost before its commands are executed."""
    answer: Callable[[list[Reply]], web.StreamResponse | None]
    """What is answered to the commands with these replies; None: the connection breaks."""


def packed(replies: list[Reply], length: int | None = None) -> web.Response:
    """Replies as the engine answers them, or only the first `length` bytes."""
    body = msgspec.msgpack.encode(replies)[:length]
    return web.Response(body=body, content_type="application/msgpack")


def problem(code: str, headers: dict[str, str]) -> web.Response:
    """A problem as the engine writes it."""
    row = PROBLEMS[code]
    return web.json_response(
        {"code": row.code, "status": row.status, "title": row.title, "detail": "as told"},
        status=row.status,
        headers=headers,
        content_type="application/problem+json",
    )


class StreamPlan(NamedTuple):
    """What happens on one stream."""

    credit: int = 4096
    refuse: int | None = None
    """HTTP status of a refused handshake."""
    break_before: int | None = None
    """The connection breaks when so many commands were executed; half of the last frame's
    replies are sent."""
    garble: bool = False
    error: str | None = None
    """A notice with this code, then `close_code`."""
    close_code: int = 1000
    go_away: float | None = None
    """The engine goes away after the first answer, and asks for this many seconds."""
    linger_s: float = 0.0
    """How long the engine looks for further frames before it answers one."""
    answer_after: int = 1
    """Frames that must have come before the first answer."""


PASS = Fault(before=False, answer=packed)


class SmallEngine:
    """Executes commands in memory, exactly once per (key, id)."""

    def __init__(self) -> None:
        self.faults: deque[Fault] = deque()
        """What happens to the next requests."""
        self.refusals: dict[str, deque[str]] = {}
        """Codes with which the next attempts of a command id are refused singly."""
        self.retry_after_s: float | None = None
        """What single refusals ask for."""
        self.uncertain: dict[str, int] = {}
        """Attempts of a command id that are executed and answered OUTCOME_UNKNOWN."""
        self.executed: list[tuple[str, str]] = []
        """(key, id) in the order of execution: the truth that tests compare with."""
        self.commands: list[dict[str, Any]] = []
        """Commands as they came, faulty requests included."""
        self.batches: list[list[str]] = []
        """Ids of each request, faulty ones included."""
        self.reads: list[tuple[str, dict[str, str]]] = []
        """Path and query of each read."""
        self.operations: list[tuple[str, Any]] = []
        """Name and body of each admin operation."""
        self.headers: list[dict[str, str]] = []
        self.commands_max = 1_000
        self.stream_plans: deque[StreamPlan] = deque()
        """What happens on the next streams."""
        self.streams = 0
        """Streams that were asked for."""
        self.most_unanswered = 0
        self.late = 0
        """Frames that came after the engine had said that it goes away."""
        self._sockets: list[web.WebSocketResponse] = []
        self.gate: asyncio.Event | None = None
        """When set, answers wait for it."""
        self.on_batch: Callable[[], None] | None = None
        self._done: dict[tuple[str, str], Reply] = {}
        self.url = ""

    def codes(self, *codes: str) -> deque[str]:
        """Codes for the next attempts of one command."""
        return deque(codes)

    def pass_one(self) -> None:
        """One request without a fault."""
        self.faults.append(PASS)

    def lose_request(self) -> None:
        """The connection breaks before anything is executed."""
        self.faults.append(Fault(before=True, answer=lambda _: None))

    def lose_answer(self) -> None:
        """Everything is executed, then the connection breaks."""
        self.faults.append(Fault(before=False, answer=lambda _: None))

    def garble(self) -> None:
        """Everything is executed, the answer cannot be decoded."""
        self.faults.append(Fault(before=False, answer=lambda replies: packed(replies, 20)))

    def drop_a_reply(self) -> None:
        """Everything is executed, the answer lacks a reply."""
        self.faults.append(Fault(before=False, answer=lambda replies: packed(replies[1:])))

    def say(self, code: str, *, retry_after: str | None = None) -> None:
        """The whole request is refused with `code`."""
        headers = {} if retry_after is None else {"Retry-After": retry_after}
        self.faults.append(Fault(before=True, answer=lambda _: problem(code, headers)))

    def proxy(self, status: int) -> None:
        """A proxy in between answers with `status`."""
        page = "<html>bad gateway</html>"
        self.faults.append(
            Fault(before=True, answer=lambda _: web.Response(status=status, text=page))
        )

    def answering(self, replies: list[Reply]) -> Fault:
        """A request that is answered with just these replies."""
        return Fault(before=True, answer=lambda _: packed(replies))

    def plan_stream(self, **plan: Any) -> None:
        """What happens on the next stream that has no plan yet; see `StreamPlan`."""
        self.stream_plans.append(StreamPlan(**plan))

    async def close_streams(self) -> None:
        """End what is left open."""
        for socket in self._sockets:
            await socket.close()

    def execute(self, command: dict[str, Any]) -> Reply:
        """The reply to one command, as the engine would give it."""
        name, key = command["id"], command["key"]
        waiting = self.refusals.get(name)
        if waiting:
            return refusal(name, waiting.popleft(), self.retry_after_s)
        done = self._done.get((key, name))
        if done is not None:
            reply = msgspec.structs.replace(done, duplicate=True)
        else:
            reply = self._first(command)
            self._done[(key, name)] = reply
        if self.uncertain.get(name, 0) > 0:
            self.uncertain[name] -= 1
            # As the engine says it: no refusal, since the command may be logged.
            unknown = refusal(name, "OUTCOME_UNKNOWN", self.retry_after_s)
            return msgspec.structs.replace(unknown, outcome="unknown")
        return reply

    def _first(self, command: dict[str, Any]) -> Reply:
        offset = len(self.executed)
        self.executed.append((command["key"], command["id"]))
        no = command["data"].get("no")
        return Reply(
            id=command["id"],
            outcome="rejected" if no else "accepted",
            result=None if no else {"echo": command["data"]},
            error=ReplyError(no, "the domain said no", advice="ask differently") if no else None,
            shard=0,
            epoch=1,
            offset=offset,
            version=offset,
            time="2026-11-20T10:00:00.000001Z",
            durable=Durable("sync", local=True, replicas=1),
        )

    async def batch(self, request: web.Request) -> web.StreamResponse:
        """``POST /v1/commands:batch``."""
        commands: Body = msgspec.msgpack.decode(await request.read())
        self.commands.extend(commands)
        self.batches.append([command["id"] for command in commands])
        self.headers.append(dict(request.headers))
        if self.on_batch is not None:
            self.on_batch()
        if self.gate is not None:
            await self.gate.wait()
        fault = self.faults.popleft() if self.faults else PASS
        if len(commands) > self.commands_max:
            fault = Fault(before=True, answer=lambda _: problem("TOO_LARGE", {}))
        replies = [] if fault.before else [self.execute(command) for command in commands]
        answer = fault.answer(replies)
        if answer is None:
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        return answer

    async def stream(self, request: web.Request) -> web.StreamResponse:
        """``GET /v1/stream``: what `stream_plans` says for this connection, then normal."""
        plan = self.stream_plans.popleft() if self.stream_plans else StreamPlan()
        self.streams += 1
        if plan.refuse is not None:
            return web.Response(status=plan.refuse, headers={"Retry-After": "0"})
        socket = web.WebSocketResponse(protocols=("ultra.v1.msgpack",))
        await socket.prepare(request)
        self._sockets.append(socket)

        async def say(message: object) -> None:
            await socket.send_bytes(msgspec.msgpack.encode(message))

        limits = {"commands_per_batch_max": self.commands_max}
        await say({"op": "hello", "credit": plan.credit, "limits": limits})
        taken = unanswered = frames = 0
        replies: list[Reply] = []
        async for message in socket:
            commands: Body = msgspec.msgpack.decode(message.data)
            if plan.linger_s:
                with contextlib.suppress(TimeoutError):
                    while True:
                        more = await socket.receive(plan.linger_s)
                        commands += msgspec.msgpack.decode(more.data)
            self.batches.append([command["id"] for command in commands])
            frames += 1
            if self.on_batch is not None:
                self.on_batch()
            unanswered += len(commands)
            self.most_unanswered = max(self.most_unanswered, unanswered)
            assert unanswered <= plan.credit
            if plan.error is not None:
                await say({"op": "error", "code": plan.error, "detail": "as told"})
                await socket.close(code=plan.close_code)
                break
            for command in commands:
                taken += 1
                if plan.break_before is not None and taken > plan.break_before:
                    break
                replies.append(self.execute(command))
            if plan.break_before is not None and taken > plan.break_before:
                # Everything before is executed, and not all of it is answered.
                await say(replies[: len(replies) // 2])
                assert request.transport is not None
                request.transport.abort()
                break
            if self.gate is not None:
                await self.gate.wait()
            if plan.garble:
                await say([{"neither": "reply nor notice"}])
                continue
            if frames < plan.answer_after:
                continue
            if plan.go_away is not None:
                await say({"op": "goaway", "retry_after": plan.go_away, "resume": None})
            await say(replies if len(replies) > 1 else replies[0])
            unanswered -= len(replies)
            await say({"op": "credit", "n": len(replies)})
            replies.clear()
            await say({"op": "event", "offset": 1})
            if plan.go_away is not None:
                with contextlib.suppress(TimeoutError):
                    late = await socket.receive(0.05)
                    if late.type is WSMsgType.BINARY:
                        self.late += 1
                await socket.close(code=1001)
                break
        return socket

    async def read(self, request: web.Request) -> web.StreamResponse:
        """Any ``GET /v1/…``."""
        self.reads.append((request.path, dict(request.query)))
        fault = self.faults.popleft() if self.faults else PASS
        if fault is not PASS:
            answer = fault.answer([])
            if answer is not None:
                return answer
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        headers = {"ETag": '"7"', "Ultra-Epoch": "1", "Ultra-Offset": str(len(self.executed))}
        return web.json_response({"path": request.path}, headers=headers)

    async def operate(self, request: web.Request) -> web.StreamResponse:
        """``POST /admin/v1/{operation}``."""
        self.operations.append((request.match_info["operation"], await request.json()))
        fault = self.faults.popleft() if self.faults else PASS
        if fault is PASS:
            return web.json_response({"operation": request.match_info["operation"]})
        answer = fault.answer([])
        if answer is None:
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        return answer

    async def outcome(self, request: web.Request) -> web.StreamResponse:
        """``GET /v1/commands/{id}``."""
        done = self._done.get((request.query.get("key", ""), request.match_info["id"]))
        body = {"state": "done" if done else "unknown", "reply": done, "dedup_floor": 0}
        return web.Response(body=msgspec.json.encode(body), content_type="application/json")


def refusal(name: str, code: str, retry_after_s: float | None = None) -> Reply:
    """A reply to a command that was not taken."""
    row = PROBLEMS[code]
    error = ReplyError(code, row.title, advice=row.advice, retry_after_s=retry_after_s)
    return Reply(id=name, outcome="refused", error=error)


@contextlib.asynccontextmanager
async def listening() -> AsyncIterator[SmallEngine]:
    """A small engine that listens on a free port."""
    small = SmallEngine()
    app = web.Application()
    app.router.add_post("/v1/commands:batch", small.batch)
    app.router.add_post("/admin/v1/{operation}", small.operate)
    app.router.add_get("/v1/commands/{id}", small.outcome)
    app.router.add_get("/v1/stream", small.stream)
    app.router.add_get("/v1/{path:.*}", small.read)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    small.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield small
    if small.gate is not None:
        small.gate.set()
    await small.close_streams()
    await runner.cleanup()


@pytest.fixture
async def engine() -> AsyncIterator[SmallEngine]:
    """A small engine that listens on a free port."""
    async with listening() as small:
        yield small


@pytest.fixture
async def other() -> AsyncIterator[SmallEngine]:
    """Another one."""
    async with listening() as small:
        yield small
