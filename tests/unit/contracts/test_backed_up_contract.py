"""What everybody does who has shards back themselves up: those of a test, and those behind HTTP."""

import base64
import socket
from collections.abc import AsyncIterator

import aiohttp
import msgspec
import pytest
from aiohttp import web
from tests.unit.operator.backed import LOCATION, MemoryShards
from tests.unit.operator.memory import MemoryCluster

from ultraengine.backup.driver import BackupReport
from ultraengine.gateway.admin import Done
from ultraengine.gateway.hop import HopIdentity
from ultraengine.model.ids import ShardId
from ultraengine.router.driver import Address
from ultraengine_operator import names
from ultraengine_operator.backups import NotTaken
from ultraengine_operator.cache import Key
from ultraengine_operator.cluster import KINDS, BackedUp
from ultraengine_operator.drivers.pods import PodShards
from ultraengine_operator.reasons import Reason

HOP_KEY = "hop-" * 10


class BackedUpContract:
    """Subclasses give shards and what befalls them."""

    @pytest.fixture
    def shards(self) -> BackedUp:
        raise NotImplementedError

    @pytest.fixture
    def world(self) -> MemoryShards:
        raise NotImplementedError

    async def test_an_image_is_what_the_shard_says_of_it(
        self, shards: BackedUp, world: MemoryShards
    ) -> None:
        image = await shards.back_up("default", "shop", 1, last=False)
        assert (image.shard, image.offset, image.offset_end) == (1, "1", "2")
        assert (image.location, image.state_hash) == (LOCATION, "cafe")
        assert image.manifest == "1/backups/1"
        assert image.verified_at == "2026-01-01T00:00:00Z"
        assert world.paused == set()

    async def test_a_last_one_is_of_a_shard_that_takes_no_command_any_more(
        self, shards: BackedUp, world: MemoryShards
    ) -> None:
        await shards.back_up("default", "shop", 0, last=True)
        assert world.paused == {0}

    async def test_who_is_away_who_has_no_place_and_who_fails_are_told_apart(
        self, shards: BackedUp, world: MemoryShards
    ) -> None:
        world.placeless.add(0)
        world.broken[1] = "the store is away"
        found = []
        for shard in (0, 1):
            with pytest.raises(NotTaken) as caught:
                await shards.back_up("default", "shop", shard, last=False)
            found.append(caught.value.reason)
        assert found == [Reason.BACKUP_NOT_CONFIGURED, Reason.BACKUP_FAILED]
        assert "the store is away" in caught.value.message
        world.away.add(2)
        with pytest.raises(NotTaken) as caught:
            await shards.back_up("default", "shop", 2, last=True)
        assert caught.value.reason is Reason.SHARD_UNREACHABLE


class TestMemoryShards(BackedUpContract):
    @pytest.fixture
    def shards(self, world: MemoryShards) -> BackedUp:
        return world

    @pytest.fixture
    def world(self) -> MemoryShards:
        return MemoryShards()


class Doors:
    """The admin port of each shard, as `gateway.admin` answers."""

    def __init__(self, world: MemoryShards) -> None:
        self.world = world
        self.addresses: dict[int, Address] = {}
        self.answers_as: int | None = None
        """The number that a shard gives instead of its own."""

    async def answer(self, request: web.Request) -> web.Response:
        caller = HopIdentity(HOP_KEY).authenticate(request.headers, peer_is_loopback=True)
        assert "admin" in caller.scopes
        shard = next(one for one, at in self.addresses.items() if at.port == request.url.port)
        if request.path == "/admin/v1/pause":
            self.world.paused.add(shard)
            return web.Response(body=msgspec.json.encode(Done("pause", None, {})))
        if request.path != "/admin/v1/backup" or shard in self.world.placeless:
            return web.json_response({"code": "NOT_FOUND"}, status=404)
        try:
            image = await self.world.back_up("default", "shop", shard, last=False)
        except NotTaken as no:
            problem = {"code": "SHARD_UNAVAILABLE", "detail": f"the backup failed: {no}"}
            return web.json_response(problem, status=503)
        report = BackupReport(
            shard=shard if self.answers_as is None else self.answers_as, name=image.manifest,
            location=image.location, snapshot_offset=int(image.offset),
            state_hash=image.state_hash, offset_end=int(image.offset_end),
            verified_at=1_767_225_600_000_000, sent_objects=1, sent_bytes=1, kept_objects=0,
        )  # fmt: skip
        return web.Response(body=msgspec.json.encode(Done("backup", report, {})))


class TestPodShards(BackedUpContract):
    @pytest.fixture
    def world(self) -> MemoryShards:
        return MemoryShards()

    @pytest.fixture
    async def doors(self, world: MemoryShards) -> AsyncIterator[Doors]:
        doors = Doors(world)
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", doors.answer)
        runner = web.AppRunner(app)
        await runner.setup()
        for shard in range(2):
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            host, port = runner.addresses[-1][:2]
            doors.addresses[shard] = Address(host=host, port=port)
        with socket.socket() as silent:
            # It is nobody else's, and nobody listens.
            silent.bind(("127.0.0.1", 0))
            doors.addresses[2] = Address(host="127.0.0.1", port=silent.getsockname()[1])
            yield doors
        await runner.cleanup()

    @pytest.fixture
    async def cluster(self) -> MemoryCluster:
        cluster = MemoryCluster()
        key = base64.b64encode(HOP_KEY.encode()).decode()
        metadata = {"name": "shop-hop", "namespace": "default"}
        content = {"kind": "Secret", "metadata": metadata, "data": {names.KEY_FILE: key}}
        await cluster.create(KINDS["Secret"], content)
        return cluster

    @pytest.fixture
    async def shards(self, doors: Doors, cluster: MemoryCluster) -> AsyncIterator[BackedUp]:
        def address(_key: Key, shard: ShardId) -> Address:
            return doors.addresses[shard]

        async with aiohttp.ClientSession() as session:
            yield PodShards(cluster, session, address)

    async def test_the_answer_of_another_shard_is_none(
        self, shards: BackedUp, doors: Doors
    ) -> None:
        doors.answers_as = 0
        with pytest.raises(NotTaken, match="shard 0 answers at the address of shard 1"):
            await shards.back_up("default", "shop", 1, last=False)

    async def test_without_the_secret_nobody_is_asked(
        self, shards: BackedUp, cluster: MemoryCluster, world: MemoryShards
    ) -> None:
        await cluster.delete(KINDS["Secret"], "default", "shop-hop", uid=None)
        with pytest.raises(NotTaken, match="there is no Secret shop-hop") as caught:
            await shards.back_up("default", "shop", 0, last=True)
        assert caught.value.reason is Reason.SHARD_UNREACHABLE
        assert world.paused == set()
