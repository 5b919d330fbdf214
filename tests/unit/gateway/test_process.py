"""What the gateway owns besides handlers: doors, health, listeners, key files, admin."""

import asyncio
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import structlog
from prometheus_client import CollectorRegistry, generate_latest
from tests.unit.gateway.conftest import (
    CountingRandom,
    Served,
    Serving,
    SmallEngine,
    StillClock,
    add,
)

from ultraengine.domains.counter import DOMAIN
from ultraengine.edge import door
from ultraengine.edge.auth import (
    ApiKeys,
    KeyFileError,
    KeyTable,
    Loopback,
    entry_text,
    issue_key,
)
from ultraengine.edge.door import Door, Doorkeeper, listen
from ultraengine.edge.health import LOOP_AGE_MAX_S, Heartbeat, health_bytes
from ultraengine.edge.metrics import Histogram
from ultraengine.edge.quota import Quotas
from ultraengine.edge.server import KEY_FILE_BYTES_MAX, KeyFile
from ultraengine.gateway.driver import Gateway, GatewayOptions
from ultraengine.gateway.edge import Parts
from ultraengine.gateway.engine import Operations
from ultraengine.gateway.waits import Waits
from ultraengine.model.errors import EngineError
from ultraengine.model.limits import DEFAULT_LIMITS, Limits
from ultraengine.model.outcome import Status
from ultraengine.reply.waiters import Ticket

PROBE = b"GET /healthz HTTP/1.1\r\nHost: probe\r\n\r\n"


def ask(address: tuple[str, int], request: bytes) -> bytes:
    """Send bytes from a thread that blocks, and read to the end."""
    with socket.create_connection(address, timeout=5) as connection:
        connection.sendall(request)
        parts = []
        while part := connection.recv(65_536):
            parts.append(part)
    return b"".join(parts)


async def until(happened: Callable[[], bool]) -> None:
    """Wait for something that the event loop is about to do."""
    async with asyncio.timeout(5):
        while not happened():  # noqa: ASYNC110  (it has no event of its own)
            await asyncio.sleep(0.01)


# --- health --------------------------------------------------------------------------------


async def test_a_probe_is_answered_while_the_event_loop_is_busy(served: Served) -> None:
    address = served.gateway.addresses[0]
    answers: list[bytes] = []
    asked = threading.Thread(target=lambda: answers.append(ask(address, PROBE)))
    asked.start()
    asked.join(5)  # The loop does nothing meanwhile: this line blocks it.
    (answer,) = answers
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK")
    assert msgspec.json.decode(body)["alive"] is True


async def test_probes_on_a_used_connection_and_by_head_are_answered_too(served: Served) -> None:
    assert (await served.get("/v1/limits"))[0] == 200
    assert (await served.get("/healthz"))[0] == 200
    head = PROBE.replace(b"GET", b"HEAD")
    answer = await asyncio.to_thread(ask, served.gateway.addresses[0], head)
    assert answer.startswith(b"HTTP/1.1 200 OK")
    assert answer.endswith(b"\r\n\r\n")


def test_a_loop_that_does_not_come_back_is_reported_after_its_limit() -> None:
    heartbeat = Heartbeat(100.0)
    assert heartbeat.beat(101.5) == 1.5
    assert heartbeat.answer(101.5 + LOOP_AGE_MAX_S).status == 200
    hangs = heartbeat.answer(101.6 + LOOP_AGE_MAX_S)
    assert hangs.status == 503
    assert health_bytes(hangs, head=False).startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
    assert msgspec.json.decode(heartbeat.answer(101.0).body)["loop_age_s"] == 0.0


@pytest.mark.parametrize(
    ("state", "status", "code"),
    [
        ("serving", 200, None),
        ("paused", 200, None),
        ("read_only", 200, None),
        ("recovering", 503, "SHARD_UNAVAILABLE"),
        ("draining", 503, "DRAINING"),
        ("halted", 503, "SHARD_UNAVAILABLE"),
        ("stopped", 503, "SHARD_UNAVAILABLE"),
    ],
)
async def test_ready_is_who_can_answer_reads(
    served: Served, state: str, status: int, code: str | None
) -> None:
    served.engine.state = state
    found, body = await served.get("/readyz")
    assert (found, body.get("code")) == (status, code)
    assert (body.get("state") or body["detail"]).endswith(state)


# --- doors ---------------------------------------------------------------------------------


class Doors:
    """A doorkeeper over one listener, without a gateway."""

    def __init__(self) -> None:
        self.taken: list[socket.socket] = []
        self.room = True
        listener = listen("127.0.0.1", 0)
        self.address: tuple[str, int] = listener.getsockname()[:2]
        self.keeper = Doorkeeper(
            [Door(listener, self.taken.append, lambda: self.room)], Heartbeat(0.0), time.monotonic
        )
        self.keeper.start()

    def connect(self, data: bytes = b"") -> socket.socket:
        connection = socket.create_connection(self.address, timeout=5)
        connection.sendall(data)
        return connection

    def close(self) -> None:
        self.keeper.close()
        for connection in self.taken:
            connection.close()


@pytest.fixture
def doors() -> Any:
    doors = Doors()
    yield doors
    doors.close()


def wait_for(happened: Any) -> None:
    deadline = time.monotonic() + 5
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_a_connection_is_handed_over_with_its_first_bytes_untouched(doors: Doors) -> None:
    with doors.connect(b"POST /v1/commands"):
        wait_for(lambda: doors.taken)
        assert doors.taken[0].recv(100) == b"POST /v1/commands"


def test_a_silent_connection_is_closed_after_a_while(
    doors: Doors, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(door, "FIRST_BYTES_S", 0.0)
    with doors.connect() as connection:
        assert connection.recv(1) == b""
    assert doors.taken == []


def test_a_connection_that_ends_at_once_is_forgotten(doors: Doors) -> None:
    doors.connect().close()
    with doors.connect(b"x"):
        wait_for(lambda: doors.taken)
    assert len(doors.taken) == 1


def test_without_room_connections_wait_and_are_taken_later(doors: Doors) -> None:
    doors.room = False
    with doors.connect(b"x"):
        time.sleep(0.1)
        assert doors.taken == []
        doors.room = True
        wait_for(lambda: doors.taken)


def test_closing_twice_is_closing_once_and_ends_silent_connections() -> None:
    doors = Doors()
    connection = doors.connect()
    wait_for(lambda: doors.keeper._silent)
    doors.close()
    doors.close()
    assert connection.recv(1) == b""
    connection.close()
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(doors.address, timeout=1)


async def test_an_address_in_use_is_an_error_and_leaves_nothing_open() -> None:
    taken = listen("127.0.0.1", 0)
    engine = SmallEngine((DOMAIN,), DEFAULT_LIMITS)
    parts = Parts(engine=engine, identity=Loopback(), clock=StillClock(), random=CountingRandom())
    options = GatewayOptions(port=0, admin_port=taken.getsockname()[1])
    gateway = Gateway(parts, options, registry=CollectorRegistry())
    with pytest.raises(OSError, match="in use"):
        await gateway.start()
    first = gateway.addresses[0]
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(first, timeout=1)
    await gateway.stop()
    taken.close()


async def test_stopping_twice_is_stopping_once(serving: Serving) -> None:
    served = await serving()
    await served.gateway.stop()
    await served.gateway.stop()


# --- key files -----------------------------------------------------------------------------


class Keys:
    """A key file on disk with what reads it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.random = CountingRandom()
        self.quotas = Quotas(0.0, 10, {})

    def write(self, *principals: str) -> list[str]:
        made = [
            issue_key(self.random, tenant="acme", principal=name, scopes=["*:write"])
            for name in principals
        ]
        self.path.write_text("".join(entry_text(entry) for _, entry in made))
        return [key for key, _ in made]


async def test_a_changed_key_file_is_taken_while_requests_go_on(
    serving: Serving, tmp_path: Path
) -> None:
    keys = Keys(tmp_path / "keys.toml")
    (old,) = keys.write("till-1")
    identity = ApiKeys(KeyFile.read(keys.path), StillClock())
    file = KeyFile(keys.path, identity, keys.quotas.replace)
    served = await serving(identity=identity, key_file=file)
    assert (await served.send(add(), Authorization=f"Bearer {old}"))[0] == 200
    (new,) = keys.write("till-2")
    reloads = served.gateway.edge.metrics.key_file_reloads
    await until(lambda: reloads["ok"] == 1)
    assert (await served.send(add("b"), Authorization=f"Bearer {new}"))[0] == 200
    assert (await served.send(add("c"), Authorization=f"Bearer {old}"))[0] == 401
    keys.path.write_text("nonsense")
    await until(lambda: reloads["failed"] == 1)
    assert (await served.send(add("d"), Authorization=f"Bearer {new}"))[0] == 200
    assert reloads == {"ok": 1, "failed": 1}


def test_a_key_file_that_cannot_be_used_leaves_the_old_keys_in_force(tmp_path: Path) -> None:
    keys = Keys(tmp_path / "keys.toml")
    (key,) = keys.write("till-1")
    identity = ApiKeys(KeyFile.read(keys.path), StillClock())
    file = KeyFile(keys.path, identity, keys.quotas.replace)
    assert file.reload() is None
    for damage in (lambda: keys.path.write_text("["), keys.path.unlink):
        damage()
        assert file.reload() is False
        assert file.reload() is None, "it is not read again before it changes"
        assert identity.table.find(key, StillClock().now()).principal == "till-1"
    keys.write("till-2", "till-3")
    assert file.reload() is True
    assert len(identity.table.known) == 2
    keys.path.write_text("[tenants.acme]\ncommands_per_s = 1\nburst = 1\n")
    assert file.reload() is True
    keys.quotas.take("acme", 1, 0.0)
    with pytest.raises(EngineError):
        keys.quotas.take("acme", 1, 0.0)


def test_a_key_file_beyond_its_size_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "keys.toml"
    path.write_bytes(b"#" * (KEY_FILE_BYTES_MAX + 1))
    with pytest.raises(KeyFileError, match="larger"):
        KeyFile.read(path)


# --- admin ---------------------------------------------------------------------------------


async def test_the_edge_of_a_copy_takes_reads_alone_and_says_who_leads(serving: Serving) -> None:
    reasons: list[EngineError] = []
    served = await serving(refusal=lambda: reasons[0] if reasons else None, role="follower")
    assert (await served.send(add("a-0")))[0] == 200
    reasons.append(EngineError("replica 1 leads", code="NOT_LEADER", leader_url="http://b:1"))
    status, body = await served.send(add())
    assert (status, body["code"], body["leader_url"]) == (503, "NOT_LEADER", "http://b:1")
    assert body["error"]["leader_url"] == "http://b:1"
    assert (await served.get("/v1/stream"))[0] == 503
    async with served.http.get("/v1/counter/book-1?read=follower") as answer:
        assert (answer.status, answer.headers["Ultra-Role"]) == (200, "leader")
    assert (await served.get("/healthz"))[1]["role"] == "follower"
    assert (await served.get("/readyz?role=nobody"))[0] == 400


async def test_the_doors_of_an_edge_are_handed_on_and_nobody_is_let_in_meanwhile(
    serving: Serving,
) -> None:
    before = await serving()
    assert (await before.get("/v1/limits"))[0] == 200, "the door itself answers probes and closes"
    listeners = await before.gateway.hand_over()
    assert [one.getsockname()[:2] for one in listeners] == before.gateway.addresses
    status, body = await before.get("/readyz")
    assert (status, body["code"]) == (503, "DRAINING"), "who was let in is still answered"
    for one in listeners:
        assert one.fileno() >= 0
        one.close()


async def test_an_edge_that_has_handed_on_its_doors_leaves_its_metrics_to_the_next_one(
    serving: Serving,
) -> None:
    before = await serving()
    text = generate_latest(before.registry).decode()
    assert text.count("\nultra_edge_feeds_open ") == 1
    for one in await before.gateway.hand_over():
        one.close()
    assert "ultra_edge" not in generate_latest(before.registry).decode()


class Recorded:
    """Operations that remember how they were called."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.refusal: EngineError | None = None

    def operations(self) -> Operations:
        return Operations(
            pause=self.record("pause"),
            resume=self.record("resume"),
            drain=self.record("drain"),
            snapshot=self.record("snapshot"),
            backup=self.record("backup"),
            replay_validate=self.record("replay-validate"),
            promote=self.record("promote"),
            skip=self.record("skip"),
        )

    def record(self, name: str) -> Any:
        async def call(*arguments: object) -> dict[str, str]:
            if self.refusal is not None:
                raise self.refusal
            self.calls.append((name, *arguments))
            return {"did": name}

        return call


@pytest.mark.parametrize(
    ("name", "body", "call"),
    [
        ("pause", {"reason": "disk swap"}, ("pause", "disk swap")),
        ("pause", None, ("pause", "")),
        ("resume", None, ("resume",)),
        ("drain", {}, ("drain",)),
        ("snapshot", None, ("snapshot",)),
        ("backup", None, ("backup",)),
        ("replay-validate", {"from_offset": 3}, ("replay-validate", 3, None)),
        ("replay-validate", {"to_offset": 9}, ("replay-validate", 0, 9)),
        ("promote", None, ("promote", None, "")),
        ("promote", {"replica": 2, "reason": "node 0"}, ("promote", 2, "node 0")),
        ("skip", {"offset": 7, "reason": "bad event"}, ("skip", 7, "bad event")),
    ],
)
async def test_an_operation_is_done_answered_and_audited(
    serving: Serving, name: str, body: Any, call: tuple[Any, ...]
) -> None:
    recorded = Recorded()
    served = await serving(operations=recorded.operations())
    sent = {} if body is None else {"json": body}
    with structlog.testing.capture_logs() as lines:
        async with served.http.post(f"/admin/v1/{name}", **sent) as answer:
            assert answer.status == 200, await answer.text()
            done = await answer.json()
    assert recorded.calls == [call]
    assert (done["operation"], done["result"]) == (name, {"did": name})
    assert done["status"]["state"] == "serving"
    (line,) = [line for line in lines if line["event"] == "admin.done"]
    assert (line["operation"], line["principal"], line["tenant"]) == (name, "loopback", "default")


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("promote", {"replica": -1}),
        ("skip", None),
        ("skip", {"offset": 7, "reason": ""}),
        ("skip", {"offset": -1, "reason": "x"}),
        ("pause", {"reason": "x" * 501}),
        ("resume", {"extra": 1}),
        ("replay-validate", {"from_offset": "3"}),
        ("drain", []),
    ],
)
async def test_an_operation_with_the_wrong_body_is_not_done(
    serving: Serving, name: str, body: Any
) -> None:
    recorded = Recorded()
    served = await serving(operations=recorded.operations())
    sent = {} if body is None else {"json": body}
    async with served.http.post(f"/admin/v1/{name}", **sent) as answer:
        assert (answer.status, (await answer.json(content_type=None))["code"]) == (400, "MALFORMED")
    assert recorded.calls == []


async def test_a_refused_operation_is_a_problem_and_audited(serving: Serving) -> None:
    recorded = Recorded()
    recorded.refusal = EngineError("a snapshot is running", code="SHARD_UNAVAILABLE")
    served = await serving(operations=recorded.operations())
    with structlog.testing.capture_logs() as lines:
        async with served.http.post(
            "/admin/v1/snapshot",
            data=msgspec.msgpack.encode({}),
            headers={"Content-Type": "application/msgpack"},
        ) as answer:
            assert answer.status == 503
    assert [line["event"] for line in lines] == ["admin.refused"]


async def test_what_an_engine_does_not_offer_is_not_there(served: Served) -> None:
    async with served.http.post("/admin/v1/pause") as answer:
        assert answer.status == 404


async def test_the_audit_log_names_who_was_turned_away(serving: Serving) -> None:
    key, entry = issue_key(CountingRandom(), tenant="acme", principal="eve", scopes=["*:read"])
    table = KeyTable.parse(entry_text(entry).encode())
    served = await serving(identity=lambda clock: ApiKeys(table, clock))
    with structlog.testing.capture_logs() as lines:
        status, _ = await served.get("/admin/v1/status", Authorization=f"Bearer {key}")
    assert status == 403
    (line,) = lines
    assert (line["event"], line["principal"]) == ("admin.forbidden", "eve")
    assert key not in str(lines)


# --- small parts ---------------------------------------------------------------------------


def test_waits_end_in_their_order_and_only_once() -> None:
    ended: list[Ticket] = []
    waits = Waits(10.0)
    tickets = [Ticket(1, lambda _: None) for _ in range(4)]
    for number, ticket in enumerate(tickets):
        waits.add(ticket, float(number), ended.append)
    waits.done(tickets[1])
    waits.done(tickets[1])
    assert waits.sweep(9.9) == 0
    assert waits.sweep(12.0) == 2
    assert ended == [tickets[0], tickets[2]]
    assert len(waits) == 1
    assert waits.sweep(100.0) == 1
    assert waits.sweep(100.0) == 0


def test_a_histogram_counts_values_at_or_below_each_bound() -> None:
    histogram = Histogram((1.0, 2.0))
    for value in (0.5, 1.0, 1.5, 99.0):
        histogram.observe(value)
    assert histogram.cumulative() == [("1.0", 2), ("2.0", 3), ("+Inf", 4)]
    assert histogram.total == 102.0


async def test_spans_are_recorded_for_sampled_traces_alone(serving: Serving) -> None:
    spans: list[tuple[str, str | None, Any]] = []

    class Telemetry:
        def span(self, name: str, *, traceparent: str | None, attributes: Any, **_: Any) -> None:
            spans.append((name, traceparent, attributes))

    served = await serving(telemetry=Telemetry())
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0"
    await served.send(add("1"), traceparent=trace + "0")
    await served.send(add("2"), traceparent=trace + "1")
    async with served.http.post(
        "/v1/commands:batch", json=[add("3"), add("4")], headers={"traceparent": trace + "1"}
    ) as answer:
        assert answer.status == 200
    async with served.http.post(
        "/v1/commands:batch", json=[add("5")], headers={"traceparent": "odd"}
    ) as answer:
        assert answer.status == 200
    assert spans == [
        ("command", trace + "1", {"ultra.commands": 1}),
        ("batch", trace + "1", {"ultra.commands": 2}),
    ]
    carried = [outcome.command.traceparent for outcome in served.engine.outcomes]
    assert carried == [trace + "0", trace + "1", trace + "1", trace + "1", None]
    assert all(outcome.outcome.status == Status.ACCEPTED for outcome in served.engine.outcomes)


async def test_an_idle_gateway_measures_the_gaps_of_its_loop(serving: Serving) -> None:
    served = await serving(limits=Limits())
    await asyncio.sleep(0.25)
    assert served.gateway._heartbeat.at == served.clock.monotonic()
    async with served.http.get("/metrics") as answer:
        assert "ultra_edge_loop_gap_max_seconds" in await answer.text()
