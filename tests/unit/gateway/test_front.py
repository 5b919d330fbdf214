"""What a front does besides the API of one engine: shards apart, shards away, answers lost."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import msgspec
import pytest
from tests.unit.gateway.conftest import add
from tests.unit.gateway.routed_world import SECRET, RoutedServed, RoutedServing
from tests.unit.gateway.test_http import batch
from tests.unit.gateway.test_stream import connect, opened

from ultraengine.edge.auth import KnownCaller
from ultraengine.gateway.engine import Operations
from ultraengine.gateway.hop import HopIdentity, hop_headers
from ultraengine.model.errors import EngineError, InvariantBroken
from ultraengine.model.ids import ShardId
from ultraengine.model.limits import Limits
from ultraengine.moving.wire import MAP_PATH
from ultraengine.router.driver import Address
from ultraengine.router.shard_map import ShardMap
from ultraengine.router.wire import request


@pytest.fixture(name="serving")
async def fronts() -> AsyncIterator[RoutedServing]:
    start = RoutedServing()
    yield start
    await start.stop()


async def until(happened: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not happened():  # noqa: ASYNC110  (it has no event of its own)
            await asyncio.sleep(0.01)


class LossyShard:
    """Reads requests, and never answers: the connection breaks."""

    def __init__(self) -> None:
        self.requests: list[bytes] = []
        self.lost = 0
        self._server: asyncio.Server | None = None

    async def start(self, served: RoutedServed, shard: int) -> None:
        self._server = await asyncio.start_unix_server(self._serve, str(served.socket(shard)))

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if b" /admin/" not in head:
            length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0] or 0)
            self.requests.append(await reader.readexactly(length))
            self.lost += 1
        writer.close()


# --- shards apart -------------------------------------------------------------------------------


async def test_each_command_of_a_batch_goes_to_its_shard_and_replies_come_back_in_place(
    serving: RoutedServing,
) -> None:
    served = await serving(apart=True)
    keys = [served.key_of(n % 2, n // 4) for n in range(12)]
    commands: list[Any] = [add(f"c-{n}", key, n) for n, key in enumerate(keys)]
    commands[5] = {"id": "bad", "type": "counter.add", "key": 7, "data": {}}
    commands[8] = {"type": "counter.add", "key": keys[8], "data": {"delta": 8}}
    status, replies = await batch(served, commands)
    assert status == 200
    assert [reply["outcome"] for reply in replies] == [
        "refused" if n == 5 else "accepted" for n in range(12)
    ]
    assert [reply["id"] for n, reply in enumerate(replies) if n not in {5, 8}] == [
        f"c-{n}" for n in range(12) if n not in {5, 8}
    ]
    for shard, engine in enumerate(served.engines):
        of_shard = [key for n, key in enumerate(keys) if n % 2 == shard and n != 5]
        assert [outcome.command.key for outcome in engine.outcomes] == of_shard
    _, value = await served.get(f"/v1/counter/{keys[1]}")
    assert value == {"value": 1 + 3, "additions": 2}


@pytest.mark.parametrize("accept", ["application/json", "application/msgpack"])
async def test_the_answer_of_a_batch_is_in_the_codec_that_the_client_accepts(
    serving: RoutedServing, accept: str
) -> None:
    served = await serving(apart=True)
    commands = [add(str(shard), served.key_of(shard)) for shard in (0, 1)]
    async with served.http.post(
        "/v1/commands:batch",
        data=msgspec.msgpack.encode(commands),
        headers={"Content-Type": "application/msgpack", "Accept": accept},
    ) as answer:
        assert answer.headers["Content-Type"] == accept
        decode = msgspec.json.decode if accept.endswith("json") else msgspec.msgpack.decode
        replies = decode(await answer.read())
    assert [(reply["id"], reply["outcome"]) for reply in replies] == [
        ("0", "accepted"),
        ("1", "accepted"),
    ]


async def test_a_stream_waits_for_no_other_shard_and_keeps_the_order_of_each(
    serving: RoutedServing,
) -> None:
    served = await serving(apart=True)
    client = await opened(served)
    slow, fast = served.key_of(0), served.key_of(1)
    served.engines[0].held = []
    await client.say([add("s-1", slow), add("f-1", fast)])
    await client.say(add("s-2", slow))
    await client.say([add("f-2", fast), {"type": 1}])
    found = await client.replies(3)
    assert [one["id"] for one in found if one["outcome"] == "accepted"] == ["f-1", "f-2"]
    assert [one["error"]["code"] for one in found if one["error"]] == ["MALFORMED"]
    served.engines[0].release()
    assert [one["id"] for one in await client.replies(2)] == ["s-1", "s-2"]


async def test_the_order_of_a_stream_holds_in_every_shard_however_it_is_cut(
    serving: RoutedServing,
) -> None:
    served = await serving(apart=True, limits=Limits(commands_per_batch_max=50))
    client = await opened(served)
    keys = [served.key_of(0), served.key_of(1)]
    for start in range(0, 1_000, 20):
        await client.say([add(str(n), keys[n % 3 % 2]) for n in range(start, start + 20)])
    replies = await client.replies(1_000)
    for shard, engine in enumerate(served.engines):
        mine = [str(n) for n in range(1_000) if n % 3 % 2 == shard]
        assert [outcome.command.id for outcome in engine.outcomes] == mine
        of_shard = set(mine)
        assert [reply["id"] for reply in replies if reply["id"] in of_shard] == mine


async def test_a_stream_says_by_which_map_it_goes_and_which_shards_there_are(
    serving: RoutedServing,
) -> None:
    served = await serving()
    hello = await (await connect(served)).next()
    assert (hello["shard_map_version"], hello["shards"]) == (6, [0, 1])
    assert hello["capabilities"] == ["commands", "subscribe"]


@pytest.mark.parametrize("name", ["ultra.v1.json", "ultra.v1.msgpack"])
async def test_events_of_each_shard_come_once_and_in_order_even_if_it_goes_away(
    serving: RoutedServing, name: str
) -> None:
    served = await serving(apart=True)
    keys = [served.key_of(0), served.key_of(1)]
    for n in range(6):
        await served.send(add(f"c-{n}", keys[n % 2], n))
    client = await opened(served, name)
    await client.subscribe(1, shard=1)
    first = [await client.next() for _ in range(2)]
    assert [(one["op"], one["id"], one["offset"]) for one in first] == [
        ("event", "c-3", 1),
        ("event", "c-5", 2),
    ]
    await served.stop_shard(1)
    await served.start_shard(1)
    await served.send(add("c-6", keys[1]))
    assert (await client.next())["id"] == "c-6"
    await client.subscribe(0, shard=0)
    assert [(await client.next())["id"] for _ in range(3)] == ["c-0", "c-2", "c-4"]


async def test_a_subscription_to_some_domains_is_passed_on_with_where_it_stands(
    serving: RoutedServing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ultraengine.gateway.stream.POSITION_EVERY_S", 0.0)
    served = await serving(apart=True)
    key = served.key_of(1)
    await served.send(add("1", key))
    client = await opened(served)
    await client.subscribe(0, shard=1, domains=["ledger"])
    assert await client.next() == {"op": "position", "shard": 1, "offset": 1}
    await served.stop_shard(1)
    await served.start_shard(1)
    await served.send(add("2", key))
    assert await client.next() == {"op": "position", "shard": 1, "offset": 2}


async def test_a_subscription_names_a_shard_and_is_told_what_the_shard_says(
    serving: RoutedServing,
) -> None:
    served = await serving(apart=True)
    client = await opened(served)
    for wrong in ({"from": 0}, {"from": 0, "shard": 2}):
        await client.say({"op": "subscribe", **wrong})
        error = await client.next()
        assert (error["op"], error["code"], error["pointer"]) == ("error", "MALFORMED", "/shard")
    served.feeds[0].floor = 5
    await client.say({"op": "subscribe", "from": 4, "shard": 0})
    assert (await client.next())["code"] == "TOO_OLD"
    served.feeds[0].floor = 0
    await client.subscribe(0, shard=0)
    await client.say({"op": "subscribe", "from": 0, "shard": 0})
    assert (await client.next())["code"] == "MALFORMED"
    await served.send(add("1", served.key_of(0)))
    assert (await client.next())["id"] == "1"


async def test_a_front_of_one_shard_needs_no_name_of_it(serving: RoutedServing) -> None:
    served = await serving(apart=True)
    served.links.adopt(ShardMap.even(1, version=7), {})
    await served.send(add("1"))
    client = await opened(served)
    await client.say({"op": "subscribe", "from": 0})
    assert await client.next() == {"op": "subscribed", "shard": 0, "from": 0}
    assert (await client.next())["id"] == "1"


async def test_credit_holds_over_all_shards_together(serving: RoutedServing) -> None:
    served = await serving(apart=True, limits=Limits(stream_credit=5))
    for engine in served.engines:
        engine.held = []
    client = await opened(served)
    keys = [served.key_of(0), served.key_of(1)]
    await client.say([add(str(n), keys[n % 2]) for n in range(4)])
    await until(lambda: sum(engine.submitted for engine in served.engines) == 4)
    await client.say([add(str(n), keys[n % 2]) for n in range(4, 6)])
    assert await client.closed() == 4008
    assert sum(engine.submitted for engine in served.engines) == 4


# --- shards away --------------------------------------------------------------------------------


async def test_a_shard_that_is_away_refuses_its_keys_alone_and_comes_back(
    serving: RoutedServing,
) -> None:
    served = await serving(apart=True, shards=(0,))
    here, away = served.key_of(0), served.key_of(1)
    assert (await served.send(add("1", here)))[0] == 200
    async with served.http.post("/v1/commands", json=add("2", away)) as answer:
        body = await answer.json(content_type=None)
        assert (answer.status, body["code"]) == (503, "SHARD_UNAVAILABLE")
        assert (body["outcome"], body["id"], body["retryable"]) == ("refused", "2", True)
        assert answer.headers["Retry-After"] == "1"
    _, replies = await batch(served, [add("3", away), add("4", here), add("5", away)])
    assert [reply["outcome"] for reply in replies] == ["refused", "accepted", "refused"]
    assert replies[0]["error"]["retry_after_s"] == 1.0
    assert (await served.get(f"/v1/counter/{away}"))[0] == 503
    assert (await served.get("/readyz"))[0] == 200
    await served.start_shard(1)
    assert (await served.send(add("2", away)))[0] == 200
    assert (await served.get(f"/v1/counter/{away}"))[0] == 200


async def test_an_outcome_without_a_key_is_looked_for_everywhere_or_not_known(
    serving: RoutedServing,
) -> None:
    served = await serving(apart=True)
    there = served.key_of(1)
    await served.send(add("mine", there))
    status, found = await served.get("/v1/commands/mine")
    assert (status, found["state"], found["key"]) == (200, "done", None)
    assert found["reply"]["id"] == "mine"
    assert (await served.get("/v1/commands/nobody"))[1]["state"] == "unknown"
    await served.stop_shard(0)
    assert (await served.get("/v1/commands/mine"))[1]["state"] == "done"
    status, body = await served.get("/v1/commands/nobody")
    assert (status, body["code"]) == (503, "SHARD_UNAVAILABLE")
    assert (await served.get(f"/v1/commands/nobody?key={there}"))[1]["state"] == "unknown"


async def test_an_id_in_flight_in_one_shard_is_in_flight(serving: RoutedServing) -> None:
    served = await serving(apart=True)
    key = served.key_of(1)
    served.engines[1].held = []
    sending = asyncio.create_task(served.send(add("slow", key)))
    await until(lambda: bool(served.engines[1].held))
    async with served.http.get(f"/v1/commands/slow?key={key}") as answer:
        assert (await answer.json())["state"] == "in_flight"
        assert answer.headers["Retry-After"] == "1"
    served.engines[1].release()
    assert (await sending)[0] == 200


async def test_without_a_shard_the_front_is_not_ready(serving: RoutedServing) -> None:
    served = await serving(shards=())
    status, body = await served.get("/readyz")
    assert (status, body["code"]) == (503, "SHARD_UNAVAILABLE")
    _, about = await served.get("/admin/v1/status")
    assert [shard["state"] for shard in about["shards"]] == ["unreachable"] * 2
    assert (await served.get("/v1/commands/nobody"))[0] == 503


async def test_commands_that_come_alone_share_requests_and_answers_stay_their_own(
    serving: RoutedServing,
) -> None:
    served = await serving(apart=True)
    key = served.key_of(0)
    sent = [add(str(n), key, n) for n in range(40)] + [add("40", key, expected_version=99)]
    answers = await asyncio.gather(*(served.send(command) for command in sent))
    assert [status for status, _ in answers] == [200] * 40 + [412]
    assert [body["id"] for _, body in answers] == [str(n) for n in range(41)]
    async with served.http.post("/v1/commands", json=add("7", key, 7)) as answer:
        assert answer.headers["Idempotent-Replayed"] == "true"
    headers = {"Prefer": "respond-async"}
    async with served.http.post("/v1/commands", json=add("41", key), headers=headers) as answer:
        assert (answer.status, answer.headers["Location"]) == (202, f"/v1/commands/41?key={key}")
    requests = served.shards[0].edge.metrics.requests
    assert requests["/v1/commands:batch", 200] < 43


class ByHeader:
    """Believes whom a header names."""

    def authenticate(self, headers: Mapping[str, str], *, peer_is_loopback: bool) -> KnownCaller:
        name = headers.get("x-tenant", "nobody")
        return KnownCaller(name, f"of-{name}", frozenset({"*:write", "*:read"}))


@pytest.mark.parametrize("codec", ["json", "msgpack"])
async def test_commands_that_share_a_moment_never_share_a_caller_or_a_codec(
    serving: RoutedServing, codec: str
) -> None:
    served = await serving(identity=ByHeader())
    tenants = ["acme", "bolt", "coil"]
    encode = msgspec.json.encode if codec == "json" else msgspec.msgpack.encode

    async def send(n: int) -> int:
        # The same ids and keys: what was mixed up would be a duplicate or a mismatch.
        mine = codec if n % 2 else "json"
        body = encode(add(f"c-{n // 3}", "book", n)) if n % 2 else None
        async with served.http.post(
            "/v1/commands",
            data=body or msgspec.json.encode(add(f"c-{n // 3}", "book", n)),
            headers={"X-Tenant": tenants[n % 3], "Content-Type": f"application/{mine}"},
        ) as answer:
            decode = msgspec.json.decode if mine == "json" else msgspec.msgpack.decode
            assert decode(await answer.read())["duplicate"] is False
            return answer.status

    assert await asyncio.gather(*(send(n) for n in range(60))) == [200] * 60
    found = {(one.command.tenant, one.command.id) for one in served.engine.outcomes}
    assert found == {(tenants[n % 3], f"c-{n // 3}") for n in range(60)}
    assert {one.command.principal for one in served.engine.outcomes} == {
        f"of-{tenant}" for tenant in tenants
    }


# --- answers lost -------------------------------------------------------------------------------


async def test_a_lost_answer_is_asked_for_again_with_the_same_id(serving: RoutedServing) -> None:
    served = await serving(shards=(1,))
    key = served.key_of(0)
    lossy = LossyShard()
    await lossy.start(served, 0)
    sending = asyncio.create_task(
        served.send({"type": "counter.add", "key": key, "data": {"delta": 2}})
    )
    await until(lambda: lossy.lost >= 2)
    await lossy.stop()
    await served.start_shard(0)
    status, reply = await sending
    assert (status, reply["outcome"]) == (200, "accepted")
    ids = {command["id"] for body in lossy.requests for command in msgspec.json.decode(body)}
    assert ids == {reply["id"]}
    assert len(served.engine.outcomes) == 1


async def test_a_lost_answer_that_does_not_come_back_is_unknown_and_never_refused(
    serving: RoutedServing,
) -> None:
    served = await serving(shards=(1,), apart=True, limits=Limits(reply_wait_s=0.3))
    key, other = served.key_of(0), served.key_of(1)
    lossy = LossyShard()
    await lossy.start(served, 0)
    async with served.http.post("/v1/commands", json=add("x", key)) as answer:
        body = await answer.json(content_type=None)
        assert (answer.status, body["code"], body["outcome"]) == (
            504,
            "OUTCOME_UNKNOWN",
            "unknown",
        )
        assert answer.headers["Location"] == f"/v1/commands/x?key={key}"
    _, replies = await batch(served, [add("y", key), add("z", other)])
    assert [reply["outcome"] for reply in replies] == ["unknown", "accepted"]
    assert replies[0]["error"]["location"] == f"/v1/commands/y?key={key}"
    client = await opened(served)
    await client.say([add("v", key), add("w", other)])
    found = {one["id"]: one["outcome"] for one in await client.replies(2)}
    assert found == {"v": "unknown", "w": "accepted"}
    await lossy.stop()


async def test_try_later_after_a_lost_answer_is_not_passed_on(serving: RoutedServing) -> None:
    served = await serving(shards=(1,), limits=Limits(reply_wait_s=0.6))
    key = served.key_of(0)
    lossy = LossyShard()
    await lossy.start(served, 0)
    sending = asyncio.create_task(served.send(add("x", key)))
    batching = asyncio.create_task(batch(served, [add("y", key)]))
    await until(lambda: lossy.lost >= 4)
    await lossy.stop()
    served.engine.closed = EngineError("paused", code="PAUSED")
    await served.start_shard(0)
    status, body = await sending
    assert (status, body["code"]) == (504, "OUTCOME_UNKNOWN")
    _, (reply,) = await batching
    assert (reply["outcome"], reply["error"]["code"]) == ("unknown", "OUTCOME_UNKNOWN")
    assert (await served.send(add("z", key)))[1]["code"] == "PAUSED"


async def test_a_shard_that_goes_away_after_a_lost_answer_decides_nothing(
    serving: RoutedServing,
) -> None:
    served = await serving(shards=(1,), limits=Limits(reply_wait_s=0.6))
    key = served.key_of(0)
    lossy = LossyShard()
    await lossy.start(served, 0)
    sending = asyncio.create_task(served.send(add("x", key)))
    await until(lambda: lossy.lost >= 2)
    await lossy.stop()
    await served.start_shard(0)
    served.shards[0].edge.draining = True
    assert (await sending)[1]["code"] == "OUTCOME_UNKNOWN"
    assert (await served.send(add("y", key)))[1]["code"] == "DRAINING"


async def test_an_idle_connection_that_the_shard_closed_costs_nobody_anything(
    serving: RoutedServing,
) -> None:
    served = await serving()
    key = served.key_of(0)
    assert (await served.send(add("1", key)))[0] == 200
    await served.stop_shard(0)
    await served.start_shard(0)
    assert (await served.send(add("2", key)))[0] == 200


# --- all shards together ------------------------------------------------------------------------


async def test_metrics_are_those_of_the_front_and_of_every_shard(serving: RoutedServing) -> None:
    served = await serving(apart=True)
    await served.send(add("1", served.key_of(0)))
    await served.send({"type": "counter.add", "key": 3, "data": {}})
    async with served.http.get("/metrics") as answer:
        text = await answer.text()
    lines = text.splitlines()
    assert 'ultra_router_shard_up{process="router",shard="1"} 1.0' in lines
    accepted = 'code="",outcome="accepted"} '
    assert f'ultra_edge_commands_total{{process="shard-0000",{accepted}1.0' in lines
    malformed = 'code="MALFORMED",outcome="refused"} 1.0'
    assert f'ultra_edge_commands_total{{process="router",{malformed}' in lines
    types = [line for line in lines if line.startswith("# TYPE ")]
    assert len(types) == len(set(types))
    await served.stop_shard(1)
    await served.watch.look()
    async with served.http.get("/metrics") as answer:
        text = await answer.text()
    assert 'ultra_router_shard_up{process="router",shard="1"} 0.0' in text.splitlines()
    assert 'process="shard-0001"' not in text


async def test_an_operator_asks_all_shards_at_once_and_is_told_which_one_failed(
    serving: RoutedServing,
) -> None:
    calls: list[Any] = []

    async def pause(reason: str) -> Any:
        calls.append(reason)
        return {"paused": reason}

    async def validate(from_offset: int, to_offset: int | None) -> Any:
        calls.append((from_offset, to_offset))
        return {"same": True}

    async def snapshot() -> Any:
        raise EngineError("no room", code="READ_ONLY")

    async def backup() -> Any:
        return {"name": "0/backups/x.json"}

    operations = Operations(pause=pause, replay_validate=validate, snapshot=snapshot, backup=backup)
    served = await serving(shard_operations=operations)

    async def ask(name: str, body: Any) -> tuple[int, Any]:
        async with served.http.post(f"/admin/v1/{name}", json=body) as answer:
            return answer.status, await answer.json(content_type=None)

    status, done = await ask("pause", {"reason": "why"})
    assert (status, done["result"]) == (200, {"0": {"paused": "why"}, "1": {"paused": "why"}})
    assert done["status"]["role"] == "router"
    assert (await ask("replay-validate", {"from_offset": 3}))[0] == 200
    assert sorted(map(str, calls)) == ["(3, None)", "(3, None)", "why", "why"]
    status, done = await ask("backup", {})
    assert (status, done["result"]["1"]) == (200, {"name": "0/backups/x.json"})
    status, body = await ask("snapshot", {})
    assert (status, body["code"]) == (503, "READ_ONLY")
    assert "shard 0: no room" in body["detail"]
    await served.stop_shard(1)
    status, body = await ask("pause", {})
    assert (status, body["code"]) == (503, "SHARD_UNAVAILABLE")
    assert body["detail"].startswith("shard 1:")


async def test_a_skip_goes_to_the_shard_that_has_halted_there_and_to_no_other(
    serving: RoutedServing,
) -> None:
    calls: list[Any] = []

    async def skip(offset: int, reason: str) -> Any:
        calls.append((offset, reason))
        return "logged"

    served = await serving(apart=True, shard_operations=Operations(skip=skip))
    await served.send(add("1", served.key_of(1)))

    async def ask(offset: int) -> tuple[int, Any]:
        body = {"offset": offset, "reason": "why"}
        async with served.http.post("/admin/v1/skip", json=body) as answer:
            return answer.status, await answer.json(content_type=None)

    assert (await ask(1))[1]["detail"] == "0 shards have halted at offset 1"
    served.engines[1].state = "halted"
    assert (await ask(0))[0] == 400
    status, done = await ask(1)
    assert (status, done["result"]) == (200, {"1": "logged"})
    assert calls == [(1, "why")]
    served.engines[0].state = "halted"
    await served.send(add("2", served.key_of(0)))
    assert (await ask(1))[1]["detail"] == "2 shards have halted at offset 1"


async def test_a_front_that_drains_answers_what_it_took_and_takes_nothing_new(
    serving: RoutedServing,
) -> None:
    served = await serving(apart=True)
    served.engines[0].held = []
    client = await opened(served)
    key = served.key_of(0)
    await client.say(add("stream", key))
    sending = asyncio.create_task(served.send(add("single", key)))
    await until(lambda: len(served.engines[0].held or ()) == 2)
    draining = asyncio.create_task(served.gateway.drain())
    assert (await client.next())["op"] == "goaway"
    async with served.http.post("/v1/commands", json=add("late", key)) as answer:
        assert (await answer.json(content_type=None))["code"] == "DRAINING"
    served.engines[0].release()
    assert (await client.replies(1))[0]["id"] == "stream"
    assert (await sending)[0] == 200
    assert await client.closed() == 1001
    await draining


async def test_wrong_shard_comes_back_with_the_version_that_the_shard_goes_by(
    serving: RoutedServing,
) -> None:
    served = await serving()
    error = EngineError("moved", code="WRONG_SHARD", shard_map_version=9)
    served.engine.closed = error
    status, body = await served.send(add("1"))
    assert (status, body["code"], body["shard_map_version"]) == (421, "WRONG_SHARD", 9)


@pytest.mark.parametrize("way", ["single", "batch", "read"])
async def test_a_front_that_is_told_wrong_shard_looks_for_a_newer_map_by_itself(
    serving: RoutedServing, way: str
) -> None:
    served = await serving(apart=True)
    key = served.key_of(0)
    turned = ShardMap.decode(b'{"version":7,"ranges":[[0,2048,1],[2048,4096,0]]}')
    served.newest = turned, {}
    moved = EngineError("moved", code="WRONG_SHARD", shard_map_version=7)
    served.engines[0].closed = moved
    if way == "single":
        status, _ = await served.send(add("1", key))
        assert status == 421
    elif way == "batch":
        async with served.http.post("/v1/commands:batch", json=[add("1", key)]) as answer:
            (reply,) = await answer.json()
            assert reply["error"]["code"] == "WRONG_SHARD"
    else:

        async def refuse(*_: Any, **__: Any) -> Any:
            raise moved

        served.engines[0].query = refuse  # type: ignore[method-assign]  # As an owner would.
        async with served.http.get(f"/v1/counter/{key}") as answer:
            assert answer.status == 421
    await until(lambda: served.links.shard_map.version == 7)
    status, _ = await served.send(add("2", key))
    assert status == 200
    assert len(served.engines[1].outcomes) == 1


async def test_a_map_that_cannot_be_read_leaves_the_front_with_its_own(
    serving: RoutedServing,
) -> None:
    served = await serving()
    looks: list[int] = []

    def broken() -> None:
        looks.append(1)
        raise OSError("gone")

    served.watch._newest = broken
    served.watch.refresh()
    served.watch.refresh()
    await until(lambda: bool(looks))
    version = served.links.shard_map.version
    served.engine.closed = EngineError("moved", code="WRONG_SHARD", shard_map_version=version)
    assert (await served.send(add("1")))[0] == 421
    assert served.links.shard_map.version == version
    assert looks == [1]


async def test_a_newer_map_is_gone_by_from_then_on_and_an_older_one_is_not(
    serving: RoutedServing,
) -> None:
    served = await serving(apart=True)
    key = served.key_of(0)
    turned = ShardMap.decode(b'{"version":7,"ranges":[[0,2048,1],[2048,4096,0]]}')
    assert not served.links.adopt(ShardMap.even(2, version=6), {})
    assert served.links.adopt(turned, {})
    await served.send(add("1", key))
    assert [len(engine.outcomes) for engine in served.engines] == [0, 1]
    with pytest.raises(InvariantBroken):
        served.links.adopt(ShardMap.even(3, version=8), {})
    assert served.links.adopt(
        ShardMap.even(3, version=8), {ShardId(2): Address(path=str(served.socket(1)))}
    )
    assert served.links.shards == (0, 1, 2)


# --- who may forward ----------------------------------------------------------------------------


def test_a_shard_believes_who_has_the_secret_and_nobody_else() -> None:
    caller = KnownCaller("acme", "till", frozenset({"counter:read", "admin"}))
    identity = HopIdentity(SECRET)
    headers = {name.lower(): value for name, value in hop_headers(SECRET, caller)}
    assert identity.authenticate(headers, peer_is_loopback=False) == caller
    for wrong in (
        {},
        {**headers, "ultra-hop-key": SECRET + "x"},
        {**headers, "ultra-hop-key": "caf\u00e9"},
        {**headers, "ultra-caller": "%%%"},
        {**headers, "ultra-caller": "e30="},
        {"ultra-hop-key": SECRET},
    ):
        with pytest.raises(EngineError) as refused:
            identity.authenticate(wrong, peer_is_loopback=True)
        assert refused.value.code == "UNAUTHENTICATED"


@pytest.mark.parametrize("secret", ["", "short", "\u00e9" * 40, "x" * 40 + "\n"])
def test_a_hop_key_is_long_and_printable(secret: str) -> None:
    with pytest.raises(ValueError, match="at least 32"):
        HopIdentity(secret)


async def test_a_front_that_answers_too_much_at_once_turns_the_next_one_away(
    serving: RoutedServing,
) -> None:
    served = await serving(apart=True, limits=Limits(requests_in_flight_max=2))
    key = served.key_of(0)
    served.engines[0].held = []
    waiting = [asyncio.create_task(served.send(add(str(n), key))) for n in range(2)]
    await until(lambda: served.engines[0].submitted == 2)
    status, body = await served.send(add("more", key))
    assert (status, body["code"]) == (429, "OVERLOADED")
    served.engines[0].release()
    assert [status for status, _ in await asyncio.gather(*waiting)] == [200, 200]


async def told(served: RoutedServed, shard: int, content: bytes) -> int:
    caller = KnownCaller("system", "mover", frozenset({"admin"}))
    sent = request("PUT", MAP_PATH, hop_headers(SECRET, caller), content)
    return (await served.links.ask(ShardId(shard), sent, deadline_s=5.0)).status


async def test_a_map_that_one_shard_was_told_of_reaches_a_front_before_the_published_one(
    serving: RoutedServing,
) -> None:
    served = await serving(apart=True)
    key = served.key_of(0)
    served.newest = served.links.shard_map, {}
    turned = b'{"version":8,"ranges":[[0,2048,1],[2048,4096,0]]}'
    assert await told(served, 0, turned.replace(b"8", b"7", 1)) == 200
    assert await told(served, 1, turned) == 200
    assert await told(served, 1, ShardMap.even(2, version=7).encode()) == 200  # Too late.
    assert await told(served, 1, b"{}") == 400
    served.engines[0].closed = EngineError("moved", code="WRONG_SHARD", shard_map_version=6)
    assert (await served.send(add("1", key)))[0] == 421
    await until(lambda: served.links.shard_map.version == 8)
    assert (await served.send(add("2", key)))[0] == 200
    assert len(served.engines[1].outcomes) == 1


async def test_a_published_map_may_be_behind_what_the_shards_know_and_not_behind_itself(
    serving: RoutedServing,
) -> None:
    watch = (await serving()).watch
    assert watch._go_by_published(ShardMap.even(2, version=9), {}) == ""
    watch._links.adopt(ShardMap.even(2, version=12), {})
    assert watch._go_by_published(ShardMap.even(2, version=10), {}) == ""
    assert "and 10 was before" in watch._go_by_published(ShardMap.even(2, version=9), {})
    other = ShardMap.even(1, version=12)
    assert "something else" in watch._go_by_published(other, {})
