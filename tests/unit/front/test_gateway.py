"""The process of `ultra gateway`: its files, its shards by TCP, the map that changes, its end."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
import structlog
from prometheus_client import CollectorRegistry
from tests.unit.gateway.conftest import CountingRandom, SmallEngine, StillClock, add

from ultraengine.config import ConfigErrors
from ultraengine.domains.counter import DOMAIN
from ultraengine.edge.auth import entry_text, issue_key
from ultraengine.front.driver import GatewayProcess, _run, read_files
from ultraengine.front.settings import GatewaySettings
from ultraengine.gateway import watch
from ultraengine.gateway.driver import Gateway, GatewayOptions
from ultraengine.gateway.edge import Parts
from ultraengine.gateway.hop import HopIdentity
from ultraengine.model.ids import ShardId
from ultraengine.model.limits import DEFAULT_LIMITS
from ultraengine.router.driver import Address
from ultraengine.router.shard_map import ShardMap

SECRET = "s" * 40
PORT = 20_021
NET = f"127.{100 + (os.getpid() >> 8) % 150}.{os.getpid() % 256}"
"""Addresses that nobody else has, so that a shard finds its port free again."""


async def until(happened: Callable[[], Any]) -> None:
    async with asyncio.timeout(20):
        while not happened():  # noqa: ASYNC110  (it has no event of its own)
            await asyncio.sleep(0.01)


class World:
    """A gateway's files, and its shards."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.map = place / "map.json"
        self.publish(ShardMap.even(2))
        (place / "hop").write_text(SECRET + "\n")
        self.shards: dict[int, Gateway] = {}
        self.engines = {number: SmallEngine((DOMAIN,), DEFAULT_LIMITS) for number in range(3)}
        self.gateways: list[GatewayProcess] = []
        self.http = aiohttp.ClientSession()

    def publish(self, shard_map: ShardMap) -> None:
        self.map.write_bytes(shard_map.encode())

    def settings(self, **more: Any) -> GatewaySettings:
        told: dict[str, Any] = {
            "map": self.map,
            "shard_address": f"http://{NET}.10{{shard}}:{PORT}",
            "hop_key": self.place / "hop",
            "keyless": True,
            "host": f"{NET}.200",
            "port": PORT,
            "admin_port": PORT + 1,
            "domains": ("ultraengine.domains.counter:DOMAIN",),
            "linger_s": 0.0,
        }
        return GatewaySettings(**told | more)

    async def start_shard(self, number: int) -> None:
        parts = Parts(
            engine=self.engines[number],
            identity=HopIdentity(SECRET),
            clock=StillClock(),
            random=CountingRandom(),
        )
        options = GatewayOptions(
            host=f"{NET}.10{number}", port=PORT, admin_port=PORT + 1, admin_with_data=True
        )
        shard = self.shards[number] = Gateway(parts, options, registry=CollectorRegistry())
        await shard.start()

    async def start(self, **more: Any) -> GatewayProcess:
        process = GatewayProcess(self.settings(**more))
        self.gateways.append(process)
        await process.start()
        return process

    async def ask(
        self, method: str, path: str, body: Any = None, port: int = PORT, **headers: str
    ) -> tuple[int, Any, Any]:
        """Status, body and headers of an answer of the gateway."""
        url = f"http://{NET}.200:{port}{path}"
        async with self.http.request(method, url, json=body, headers=headers) as answer:
            return answer.status, msgspec.json.decode(await answer.read()), answer.headers

    async def stop(self) -> None:
        await self.http.close()
        for process in self.gateways:
            await process.front.stop()
        for shard in self.shards.values():
            await shard.stop()


@pytest.fixture
async def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    monkeypatch.setattr(watch, "POLL_S", 0.02)
    monkeypatch.setattr(watch, "REFRESH_S", 0.02)
    world = World(tmp_path)
    yield world
    await world.stop()


def key_of(shard: int) -> str:
    shard_map = ShardMap.even(2)
    return next(f"k{n}" for n in range(99) if shard_map.shard_of("default", f"k{n}") == shard)


async def test_a_gateway_is_there_before_its_shards_and_ready_with_the_first_one(
    world: World,
) -> None:
    await world.start()
    assert (await world.ask("GET", "/healthz"))[0] == 200
    status, problem, _ = await world.ask("GET", "/readyz")
    assert (status, problem["code"]) == (503, "SHARD_UNAVAILABLE")
    status, problem, headers = await world.ask("POST", "/v1/commands", add("1", key_of(1)))
    assert (status, problem["code"], headers["Retry-After"]) == (503, "SHARD_UNAVAILABLE", "1")
    await world.start_shard(1)
    async with asyncio.timeout(20):
        while (await world.ask("GET", "/readyz"))[0] != 200:  # noqa: ASYNC110  (as a probe does)
            await asyncio.sleep(0.01)
    assert (await world.ask("POST", "/v1/commands", add("1", key_of(1))))[0] == 200
    assert (await world.ask("POST", "/v1/commands", add("1", key_of(0))))[0] == 503


async def test_keyless_is_said_at_the_start_and_leaves_administration_to_the_loopback(
    world: World,
) -> None:
    with structlog.testing.capture_logs() as lines:
        await world.start()
    warned = [line for line in lines if line["event"] == "gateway.keyless"]
    assert [line["log_level"] for line in warned] == ["warning"]
    path = "/admin/v1/status"
    assert (await world.ask("GET", path, port=PORT + 1))[0] == 403
    assert (await world.ask("GET", path, port=PORT + 1, Host="localhost"))[0] == 200
    assert (await world.ask("GET", path, Host="localhost"))[0] == 404


async def test_with_keys_nobody_is_let_in_without_one(world: World) -> None:
    keys = world.place / "keys"
    key, entry = issue_key(
        CountingRandom(), tenant="default", principal="till", scopes=["counter:write"]
    )
    keys.write_text(entry_text(entry) + "[tenants.default]\ncommands_per_s = 0.001\nburst = 1\n")
    with structlog.testing.capture_logs() as lines:
        await world.start(api_keys=keys, keyless=False)
    assert [line for line in lines if line["event"] == "gateway.keyless"] == []
    await world.start_shard(0)
    command = add("1", key_of(0))
    assert (await world.ask("POST", "/v1/commands", command, Host="localhost"))[0] == 401
    known = f"Bearer {key}"
    assert (await world.ask("POST", "/v1/commands", command, Authorization=known))[0] == 200
    again = await world.ask("POST", "/v1/commands", add("2", key_of(0)), Authorization=known)
    status, problem, _ = again
    assert (status, problem["code"]) == (429, "QUOTA")


async def test_a_map_that_changes_on_disk_is_gone_by_and_a_wrong_one_is_not(world: World) -> None:
    for number in range(3):
        await world.start_shard(number)
    process = await world.start()
    links = process.links
    with structlog.testing.capture_logs() as lines:

        def said() -> list[str]:
            return [line["error"] for line in lines if line["event"] == "shard_map.not_taken"]

        world.publish(ShardMap.even(3, version=3))
        await until(lambda: links.shard_map.version == 3)
        assert links.shards == (0, 1, 2)
        assert links.address_of(ShardId(2)) == Address(host=f"{NET}.102", port=PORT)
        assert said() == []
        wrongs = [
            (ShardMap.even(3, version=4).encode()[:-9], "Input data was truncated"),
            (ShardMap.even(2, version=2).encode(), "version 2 is published, and 3 was before"),
            (ShardMap.even(2, version=3).encode(), "version 3 says something else than before"),
        ]
        for count, (content, words) in enumerate(wrongs, start=1):
            world.map.write_bytes(content)
            await until(partial(lambda wanted: len(said()) == wanted, count))
            assert words in said()[-1]
            assert links.shard_map == ShardMap.even(3, version=3)
        world.map.unlink()
        await until(lambda: len(said()) == 4)
        world.publish(ShardMap.even(2, version=4))
        await until(lambda: links.shard_map.version == 4)
        assert len(said()) == 4
    assert links.shards == (0, 1, 2)  # Requests may be under way to one that owns nothing more.


async def test_a_map_whose_shards_have_no_address_is_not_gone_by(world: World) -> None:
    label = "x" * (63 - len("1"))
    process = await world.start(shard_address=f"http://{label}{{shard}}:80")
    with structlog.testing.capture_logs() as lines:
        world.publish(ShardMap.even(11, version=2))
        await until(lambda: any(line["event"] == "shard_map.not_taken" for line in lines))
    assert process.links.shard_map.version == 1
    with pytest.raises(ConfigErrors, match="for shard 10"):
        GatewayProcess(world.settings(shard_address=f"http://{label}{{shard}}:80"))


async def test_one_that_leaves_is_not_ready_and_serves_whoever_has_not_heard_of_it(
    world: World,
) -> None:
    await world.start_shard(0)
    process = await world.start()
    process.front.leave()
    status, problem, _ = await world.ask("GET", "/readyz")
    assert (status, problem["code"]) == (503, "DRAINING")
    assert (await world.ask("GET", "/healthz"))[0] == 200
    for path, method, body in (
        ("/v1/commands", "POST", add("1", key_of(0))),
        ("/v1/commands:batch", "POST", [add("2", key_of(0))]),
        ("/v1/limits", "GET", None),
    ):
        status, _, headers = await world.ask(method, path, body)
        assert (status, headers["Connection"].lower()) == (200, "close")
    await process.front.drain()
    status, problem, _ = await world.ask("POST", "/v1/commands", add("3", key_of(0)))
    assert (status, problem["code"]) == (503, "DRAINING")


async def test_what_is_wrong_with_its_files_is_said_together(world: World) -> None:
    (world.place / "hop").write_text("short")
    (world.place / "keys").write_text("[[keys]]\n")
    world.map.write_bytes(b"{")
    settings = world.settings(api_keys=world.place / "keys", keyless=False)
    with pytest.raises(ConfigErrors) as refused:
        read_files(settings)
    named = [one.partition(":")[0] for one in refused.value.mistakes]
    assert named == ["ULTRA_MAP", "ULTRA_HOP_KEY", "ULTRA_API_KEYS"]
    with pytest.raises(ConfigErrors):
        await _run(settings, lambda _: None)


async def test_a_port_that_is_taken_ends_it_as_a_wrong_setting(world: World) -> None:
    await world.start()
    with pytest.raises(ConfigErrors, match="ULTRA_PORT: cannot listen"):
        await _run(world.settings(), lambda _: None)
    assert (await world.ask("GET", "/healthz"))[0] == 200
