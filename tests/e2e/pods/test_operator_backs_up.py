"""A Snapshot is applied, and an engine with `deletionPolicy: Snapshot` goes: the operator's loop
over shards that are processes, and a real S3 server.

The API server is in memory.  What the Snapshot promises is restored, and is what was acknowledged.
"""

import asyncio
import os
import subprocess
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import aiohttp
import pytest
from tests.e2e.pods.running import PORT, ULTRA, Place, Pod, as_operator, ask
from tests.e2e.pods.test_operator_moves_slots import first_cluster
from tests.servers.s3 import KEY as ACCESS_KEY
from tests.servers.s3 import SECRET as SECRET_KEY
from tests.servers.s3 import S3Server
from tests.unit.operator.memory import MemoryCluster, SilentShards, engine
from tests.unit.operator.rounds import KEY

from ultraengine.client import Client
from ultraengine.model.ids import ShardId
from ultraengine.router.driver import Address
from ultraengine_operator import names
from ultraengine_operator.cache import Key
from ultraengine_operator.cluster import KINDS
from ultraengine_operator.drivers.backups import Backups
from ultraengine_operator.drivers.loop import Loop
from ultraengine_operator.drivers.pods import PodShards
from ultraengine_operator.plan import Settings

BOOKS = tuple(f"book-{number}" for number in range(4))
NEW_UID = "6d0f1bd2-8d2c-4b5e-9a55-ba9876543210"
STORE_KEYS = {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY}
WAIT_S = 120.0


class Operator:
    """One that looks at its engine again and again."""

    def __init__(
        self, cluster: MemoryCluster, place: Place, session: aiohttp.ClientSession
    ) -> None:
        def address(_key: Key, shard: ShardId) -> Address:
            return Address(host=f"{place.net}.10{shard}", port=PORT + 1)

        self.cluster = cluster
        self.backups = Backups(PodShards(cluster, session, address), lambda _key: None)
        self._loop = Loop(cluster, SilentShards(), Settings(), backups=self.backups)

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(WAIT_S):
            while not holds():
                await self._loop.relist()
                for key in self._loop.concerned():
                    await self._loop.reconcile(key)
                self.cluster.controllers()
                await asyncio.sleep(0.05)


def stands(cluster: MemoryCluster, kind: str, name: str) -> dict[str, tuple[str, str]]:
    found = cluster.objects[kind, "default", name].get("status", {}).get("conditions", ())
    return {one["type"]: (one["status"], one["reason"]) for one in found}


def gateway_of(place: Place, number: int, **more: object) -> Pod:
    gateway = place.gateway(number, ULTRA_KEYLESS="true", **more)
    gateway.start()
    gateway.wait_for("/readyz")
    return gateway


def served(place: Place, s3_server: S3Server) -> tuple[str, list[Pod], Pod]:
    """Two shards that have a place for their backups, and a gateway."""
    location = s3_server.new_place()
    told: dict[str, Any] = {**STORE_KEYS, "ULTRA_BACKUP": location, "ULTRA_BACKUP_INTERVAL_S": 0}
    shards = [place.shard(shard, **told) for shard in range(2)]
    for pod in shards:
        pod.start()
    for pod in shards:
        pod.wait_for("/readyz")
    return location, shards, gateway_of(place, 0)


async def book(gateway: Pod, start: int, end: int) -> dict[str, int]:
    """Transfers in some books, all of them acknowledged; where each book is."""
    found: dict[str, int] = {}
    async with Client(f"http://{gateway.host}:{PORT}", deadline_s=None) as client:
        for name in BOOKS:
            accounts = [{"id": "alice", "asset": "USD/2", "min_balance": None},
                        {"id": "shop", "asset": "USD/2"}]  # fmt: skip
            await client.send(
                "ledger.open_accounts", key=name, id="open", data={"accounts": accounts}
            )
            for number in range(start, end):
                one = {"id": f"t-{number}", "from": "alice", "to": "shop", "amount": "1"}
                reply = await client.send(
                    "ledger.create_transfers", key=name, id=one["id"], data={"transfers": [one]}
                )
                assert reply.outcome == "accepted"
                found[name] = int(reply.shard or 0)
    assert set(found.values()) == {0, 1}
    return found


def ultra(*arguments: object) -> str:
    """What a verb says that must not fail, with the keys of the store."""
    done = subprocess.run(
        [ULTRA, *map(str, arguments)], env={**os.environ, **STORE_KEYS},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def restored(place: Place, location: str, ends: Sequence[str | None]) -> Pod:
    """A gateway before new shards, made from backups of the old ones up to these offsets; None is
    all there is."""
    for shard, end in enumerate(ends):
        volume = place.path / f"restored-{shard}"
        ultra(
            "restore", "--from", location, "--data", volume, "--shard", shard,
            "--engine-uid", NEW_UID, *(["--offset", end] if end else []),
        )  # fmt: skip
        place.shard(
            shard, host=150 + shard, ULTRA_DATA=volume, ULTRA_ENGINE_UID=NEW_UID
        ).start()  # fmt: skip
    for pod in place.pods[-len(ends) :]:
        pod.wait_for("/readyz")
    return gateway_of(place, 5, ULTRA_SHARD_ADDRESS=f"http://{place.net}.15{{shard}}:{PORT}")


def transfers(gateway: Pod, name: str) -> list[str]:
    """What is in a book, in order of the names."""
    path = f"/v1/ledger/{name}/accounts/shop/entries?limit=1000"
    status, page = ask(gateway.host, "GET", path, {})
    assert status == 200, page
    return sorted(entry["transfer"] for entry in page["entries"])


@pytest.mark.timeout(900)
async def test_a_snapshot_is_what_it_says_and_the_last_one_has_everything(
    place: Place, s3_server: S3Server
) -> None:
    location, shards, gateway = served(place, s3_server)
    cluster = await first_cluster(place, 2)
    backup = {"location": location, "interval": "0s"}
    await engine(cluster, shards=2, backup=backup, deletionPolicy="Snapshot")
    async with aiohttp.ClientSession() as session:
        operator = Operator(cluster, place, session)
        await operator.until(
            lambda: stands(cluster, "UltraEngine", "shop").get("Ready") == ("True", "AsWished")
        )
        homes = await book(gateway, 0, 20)
        asked = {"apiVersion": names.API_VERSION, "kind": "Snapshot", "spec": {"engine": "shop"},
                 "metadata": {"name": "now", "namespace": "default"}}  # fmt: skip
        await cluster.create(KINDS["Snapshot"], asked)
        ready = {"Ready": ("True", "BackedUp")}
        await operator.until(lambda: stands(cluster, "Snapshot", "now") == ready)
        images = cluster.objects["Snapshot", "default", "now"]["status"]["shards"]
        assert [(one["shard"], one["location"]) for one in images] == [(0, location), (1, location)]
        await book(gateway, 20, 40)

        cluster.now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        await cluster.delete(KINDS["UltraEngine"], *KEY, uid=None)
        await operator.until(lambda: ("UltraEngine", *KEY) not in cluster.objects)
        await operator.backups.close()
    for pod in shards:
        assert as_operator(pod, "GET", "/admin/v1/status")["state"] == "paused"

    listed = await asyncio.to_thread(ultra, "backup", "list", "--to", location)
    assert all(one["manifest"] in listed for one in images), listed
    # One shard as the Snapshot says, the other one with everything.
    again = await asyncio.to_thread(restored, place, location, [images[0]["offsetEnd"], None])
    for name, shard in homes.items():
        count = (20, 40)[shard]
        assert transfers(again, name) == sorted(f"t-{number}" for number in range(count))
