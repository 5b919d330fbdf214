"""Slots move between shards under load, while everybody who takes part is killed.

Clients see no failed command; each transfer is in its book, once, with its first reply; and each
log, decided again, comes to what is recorded.
"""

import asyncio
import contextlib
import json
import os
import random
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count, pairwise
from typing import Any

import pytest
from tests.e2e.pods.running import PORT, ULTRA, WAIT_S, Place, Pod, as_operator, ask, until

from ultraengine.client import Client
from ultraengine.model.ids import ShardId, slot_of
from ultraengine.model.reply import Reply
from ultraengine.router.shard_map import ShardMap, SlotRange

BOOKS = [f"book-{number}" for number in range(24)]
TENANT = "default"
REBALANCING_S = 600.0


class Load:
    """Transfers of one cent, each with an id of its own; half by stream, half by requests."""

    def __init__(self, gateway: Pod) -> None:
        self._url = f"http://{gateway.host}:{PORT}"
        self.acknowledged: dict[str, dict[str, Reply]] = {book: {} for book in BOOKS}
        self.stopping = asyncio.Event()

    def client(self, transport: Any = "http") -> Client:
        return Client(self._url, transport=transport, deadline_s=None)

    async def run(self) -> None:
        async with self.client() as requests, self.client("stream") as stream:
            for book in BOOKS:
                accounts = [
                    {"id": "alice", "asset": "USD/2", "min_balance": None},
                    {"id": "shop", "asset": "USD/2"},
                ]
                await requests.send(
                    "ledger.open_accounts", key=book, id="open", data={"accounts": accounts}
                )
            both = (requests, stream)
            await asyncio.gather(
                *(self._book(both[number % 2], book) for number, book in enumerate(BOOKS))
            )

    async def _book(self, client: Client, book: str) -> None:
        for number in count():
            if self.stopping.is_set():
                return
            name = f"t-{number}"
            self.acknowledged[book][name] = await self.transfer(client, book, name)
            await asyncio.sleep(0.03)

    async def transfer(self, client: Client, book: str, name: str) -> Reply:
        data = {"id": name, "from": "alice", "to": "shop", "amount": "1"}
        reply = await client.send(
            "ledger.create_transfers", key=book, id=name, data={"transfers": [data]}
        )
        assert reply.outcome == "accepted", reply
        return reply

    async def goes_on(self) -> None:
        """Wait until every book has another transfer."""
        before = {book: len(done) for book, done in self.acknowledged.items()}
        async with asyncio.timeout(WAIT_S):
            while any(len(self.acknowledged[book]) <= had for book, had in before.items()):  # noqa: ASYNC110
                await asyncio.sleep(0.05)


@asynccontextmanager
async def loaded(gateway: Pod) -> AsyncIterator[Load]:
    """A load for as long as a story lasts; it ends without a failed command."""
    load = Load(gateway)
    running = asyncio.create_task(load.run())
    try:
        await load.goes_on()
        yield load
        await load.goes_on()
    finally:
        load.stopping.set()
        await running


def entries(gateway: Pod, book: str) -> list[str]:
    found: list[str] = []
    after = ""
    while True:
        path = f"/v1/ledger/{book}/accounts/shop/entries?limit=500{after}"
        status, page = ask(gateway.host, "GET", path, {})
        assert status == 200, page
        found += [entry["transfer"] for entry in page["entries"]]
        if not page["next_cursor"]:
            return found
        after = f"&cursor={page['next_cursor']}"


async def check(gateway: Pod, load: Load) -> None:
    """Everything acknowledged is there once, nothing else is, and retries get the first reply."""
    places: set[tuple[int | None, int | None]] = set()
    async with load.client() as client:
        for book, acknowledged in load.acknowledged.items():
            found = await asyncio.to_thread(entries, gateway, book)
            assert sorted(found) == sorted(acknowledged)
            places |= {(reply.shard, reply.offset) for reply in acknowledged.values()}
            for name, first in list(acknowledged.items())[::11]:
                again = await load.transfer(client, book, name)
                assert again.duplicate
                for member in ("shard", "epoch", "offset", "version", "time", "result"):
                    assert getattr(again, member) == getattr(first, member)
    assert len(places) == sum(len(done) for done in load.acknowledged.values())


class Mover:
    """`ultra shards rebalance`, killed now and then and run again until it is done."""

    def __init__(self, place: Place) -> None:
        self._arguments = [
            "--map", str(place.map), "--hop-key", str(place.hop_key),
            "--shard-address", f"http://{place.net}.10{{shard}}:{PORT}",
        ]  # fmt: skip

    async def start(self, *verb: str) -> asyncio.subprocess.Process:
        pipe = asyncio.subprocess.PIPE
        return await asyncio.create_subprocess_exec(
            ULTRA, "shards", *verb, *self._arguments, stdout=pipe, stderr=pipe
        )

    async def run(self, *verb: str) -> tuple[int, str]:
        process = await self.start(*verb)
        async with asyncio.timeout(REBALANCING_S):
            said, complained = await process.communicate()
        return process.returncode or 0, (said + complained).decode()

    async def killed(self, after_s: float, *verb: str) -> None:
        process = await self.start(*verb)
        await asyncio.sleep(after_s)
        with contextlib.suppress(ProcessLookupError):  # It was done before.
            process.kill()
        await process.communicate()


async def hurt(pod: Pod, chance: random.Random) -> None:
    """Kill a shard, and start it again."""
    await asyncio.sleep(chance.uniform(1.0, 4.0))
    await asyncio.to_thread(pod.end, signal.SIGKILL)
    pod.start()
    await asyncio.to_thread(pod.wait_for, "/readyz")


def slots(place: Place) -> list[int]:
    shard_map = ShardMap.decode(place.map.read_bytes())
    return [shard_map.owners.count(ShardId(shard)) for shard in range(4)]


async def started(place: Place) -> tuple[list[Pod], Pod]:
    shards = [place.shard(number) for number in range(4)]
    gateway = place.gateway(0, ULTRA_KEYLESS="true")
    for pod in (*shards, gateway):
        pod.start()
    for pod in (*shards, gateway):
        await asyncio.to_thread(pod.wait_for, "/readyz")
    return shards, gateway


async def check_logs(pods: list[Pod]) -> None:
    """What was decided is decided again, and a start from a snapshot comes to the same."""
    for pod in pods:
        end = as_operator(pod, "GET", "/admin/v1/status")["applied_end"]
        body = {"from_offset": 0, "to_offset": end}
        report = await asyncio.to_thread(
            as_operator, pod, "POST", "/admin/v1/replay-validate", body
        )
        assert report["result"]["equal"], report
        taken = await asyncio.to_thread(as_operator, pod, "POST", "/admin/v1/snapshot", {})
        assert taken["result"]["entry"]["offset_end"] > 0
        await asyncio.to_thread(pod.end, signal.SIGKILL)
        pod.start()
        await asyncio.to_thread(pod.wait_for, "/readyz")


@pytest.mark.skipif("ULTRA_TORTURE" not in os.environ, reason="many minutes: make torture")
@pytest.mark.timeout(900)
async def test_slots_go_to_new_shards_and_back_whoever_is_killed(place: Place) -> None:
    shards, gateway = await started(place)
    mover = Mover(place)
    chance = random.Random(20261130)
    used = sorted({slot_of(TENANT, book) for book in BOOKS})
    first = ShardMap.decode(place.map.read_bytes())
    away = {slot: 2 + slot % 2 for slot in used}
    home = {slot: int(first.owners[slot]) for slot in used}
    async with loaded(gateway) as load:
        for goals, victims in ((away, shards), (home, shards[2:])):
            verbs = [
                ("move", *(str(slot) for slot in used if goals[slot] == shard), "--to", str(shard))
                for shard in sorted(set(goals.values()))
            ]
            for number, pod in enumerate(victims):
                again = asyncio.create_task(hurt(pod, chance))
                await mover.killed(chance.uniform(1.5, 4.0), *verbs[number % 2])
                await again
            for verb in verbs:
                code, said = await mover.run(*verb, "--parallel", "4")
                assert code == 0, said
            shard_map = ShardMap.decode(place.map.read_bytes())
            assert {slot: int(shard_map.owners[slot]) for slot in used} == goals
            await load.goes_on()
            last = {list(done.values())[-1].shard for done in load.acknowledged.values()}
            assert last <= set(goals.values())
        assert slots(place) == [2048, 2048, 0, 0]
        for pod in shards[2:]:
            assert await asyncio.to_thread(pod.end, signal.SIGTERM) == 0
    await check(gateway, load)
    await check_logs(shards[:2])
    await check(gateway, load)


@pytest.mark.timeout(600)
async def test_an_uneven_map_becomes_even(place: Place) -> None:
    ends = (0, 1048, 2096, 3096, 4096)
    ranges = tuple(
        SlotRange(start, end, ShardId(shard)) for shard, (start, end) in enumerate(pairwise(ends))
    )
    place.map.write_bytes(ShardMap(1, ranges).encode())
    _, gateway = await started(place)
    mover = Mover(place)
    async with loaded(gateway) as load:
        await mover.killed(2.0, "rebalance", "--shards", "4")
        code, said = await mover.run("rebalance", "--shards", "4", "--parallel", "4")
        assert code == 0, said
        assert "0 left" in said
        assert slots(place) == [1024] * 4
        code, said = await mover.run("status", "-o", "json")
        shards = json.loads(said)["shards"]
        assert [(one["slots"], one["open_moves"]) for one in shards] == [(1024, [])] * 4
    await check(gateway, load)


async def test_a_move_is_taken_back_before_its_cutover(place: Place) -> None:
    shards, gateway = await started(place)
    mover = Mover(place)
    slot = slot_of(TENANT, BOOKS[0])
    async with loaded(gateway) as load:
        source = int(ShardMap.decode(place.map.read_bytes()).owners[slot])
        await asyncio.to_thread(shards[3].end, signal.SIGKILL)
        moving = await mover.start("move", str(slot), "--to", "3")
        begun = '"message": "Begin", "state": "exporting"'
        await asyncio.to_thread(until, lambda: begun in shards[source].log.read_text())
        moving.kill()
        await moving.communicate()
        shards[3].start()
        await asyncio.to_thread(shards[3].wait_for, "/readyz")
        code, said = await mover.run("abort")
        assert code == 0, said
        assert slots(place) == [2048, 2048, 0, 0]
        assert '"message": "Stop", "state": "owned"' in shards[source].log.read_text()
        await load.goes_on()
    await check(gateway, load)
