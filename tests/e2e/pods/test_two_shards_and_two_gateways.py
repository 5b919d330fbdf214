"""Two shards and two gateways under load, killed and stopped: nothing is lost or done twice.

Every transfer has an id of its own and moves one cent within one book.  A journal in memory keeps
every first acknowledgement; at the end each of them is in the books, once, and nothing else is; and
what the shards have in memory is what their logs say, decided again and replayed from the start.
"""

import asyncio
import json
import random
import shutil
import signal
import subprocess
from itertools import count, islice
from pathlib import Path
from typing import Any

from tests.e2e.pods.running import PORT, ULTRA, WAIT_S, Place, Pod, as_operator, ask

from ultraengine.client import Client
from ultraengine.edge.auth import entry_text, issue_key
from ultraengine.model.ids import ShardId
from ultraengine.model.reply import Reply
from ultraengine.router.shard_map import ShardMap
from ultraengine_adapters.local.random import SystemRandom

BOOKS_PER_SHARD = 2
MAP = ShardMap.even(2)


def books() -> dict[str, ShardId]:
    """Books with their shards, the same number in each."""
    found: dict[str, ShardId] = {}
    for shard in MAP.shards:
        names = (f"book-{number}" for number in count())
        mine = (name for name in names if MAP.shard_of("acme", name) == shard)
        found |= dict.fromkeys(islice(mine, BOOKS_PER_SHARD), shard)
    return found


BOOKS = books()


def key_file(path: Path) -> str:
    """A file of API keys; its one key."""
    key, entry = issue_key(
        SystemRandom(), tenant="acme", principal="till", scopes=["*:read", "*:write", "admin"]
    )
    path.write_text(entry_text(entry))
    return key


class Load:
    """Transfers through both gateways and both transports, each with an id of its own."""

    def __init__(self, gateways: list[Pod], key: str) -> None:
        self._gateways = gateways
        self._key = key
        self.sent: dict[str, list[str]] = {book: [] for book in BOOKS}
        self.acknowledged: dict[str, dict[str, Reply]] = {book: {} for book in BOOKS}
        self.stopping = asyncio.Event()

    def client(self, gateway: Pod, transport: Any = "http") -> Client:
        url = f"http://{gateway.host}:{PORT}"
        return Client(url, api_key=self._key, transport=transport, deadline_s=None)

    async def run(self) -> None:
        """Book until told to stop; every transfer is answered at the end."""
        first, second = self._gateways
        async with self.client(first) as batches, self.client(second, "stream") as stream:
            for book in BOOKS:
                accounts = [
                    {"id": "alice", "asset": "USD/2", "min_balance": None},
                    {"id": "shop", "asset": "USD/2"},
                ]
                await batches.send(
                    "ledger.open_accounts", key=book, id="open", data={"accounts": accounts}
                )
            await asyncio.gather(
                *(
                    self._book(client, book, f"{way}-{lane}")
                    for book in BOOKS
                    for way, client in (("batch", batches), ("stream", stream))
                    for lane in range(2)
                )
            )

    async def _book(self, client: Client, book: str, name: str) -> None:
        number = 0
        while not self.stopping.is_set():
            transfer = f"{name}-{number}"
            number += 1
            self.sent[book].append(transfer)
            self.acknowledged[book][transfer] = await self.transfer(client, book, transfer)
            await asyncio.sleep(0.005)

    async def transfer(self, client: Client, book: str, transfer: str) -> Reply:
        data = {"id": transfer, "from": "alice", "to": "shop", "amount": "1"}
        reply = await client.send(
            "ledger.create_transfers", key=book, id=transfer, data={"transfers": [data]}
        )
        assert reply.outcome == "accepted"
        assert reply.shard == BOOKS[book]
        return reply

    async def goes_on(self, loading: asyncio.Task[None]) -> None:
        """Wait until every book has another transfer."""
        before = {book: len(done) for book, done in self.acknowledged.items()}
        async with asyncio.timeout(WAIT_S):
            while any(len(self.acknowledged[book]) <= count for book, count in before.items()):
                if loading.done():
                    await loading
                await asyncio.sleep(0.02)


def get(gateway: Pod, path: str, key: str) -> Any:
    status, body = ask(gateway.host, "GET", path, {"Authorization": f"Bearer {key}"})
    assert status == 200, body
    return body


def check_books(gateway: Pod, load: Load, key: str) -> None:
    """Every transfer that was sent is acknowledged, and in its book, once, and no other is."""
    places: set[tuple[int | None, int | None]] = set()
    for book, acknowledged in load.acknowledged.items():
        found: list[str] = []
        after = ""
        while True:
            page = get(gateway, f"/v1/ledger/{book}/accounts/shop/entries?limit=1000{after}", key)
            found += [entry["transfer"] for entry in page["entries"]]
            if not page["next_cursor"]:
                break
            after = f"&cursor={page['next_cursor']}"
        assert sorted(found) == sorted(acknowledged) == sorted(load.sent[book])
        assert int(get(gateway, f"/v1/ledger/{book}/accounts/shop", key)["balance"]) == len(found)
        places |= {(reply.shard, reply.offset) for reply in acknowledged.values()}
    assert len(places) == sum(len(done) for done in load.acknowledged.values())


async def check_replies(gateway: Pod, load: Load) -> None:
    """Who asks again gets the first reply, from the other gateway too."""
    async with load.client(gateway) as client:
        for book, acknowledged in load.acknowledged.items():
            for name, first in list(acknowledged.items())[::7]:
                again = await load.transfer(client, book, name)
                assert again.duplicate
                for member in ("offset", "epoch", "time", "result"):
                    assert getattr(again, member) == getattr(first, member)


def check_decisions(place: Place, gateway: Pod, key: str) -> None:
    """All of both logs, decided again, comes to what is recorded."""
    (place.path / "key").write_text(key)
    url = f"http://{gateway.host}:{PORT + 1}"
    decided = subprocess.run(
        [ULTRA, "log", "replay", "--validate", "--url", url,
         "--api-key-file", place.path / "key"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert decided.returncode == 0, decided.stdout + decided.stderr
    assert [one["equal"] for one in json.loads(decided.stdout).values()] == [True, True]


def snapshot(pod: Pod) -> Any:
    """Take one; what the listing says of it."""
    return as_operator(pod, "POST", "/admin/v1/snapshot", {})["result"]["entry"]


def check_replays(place: Place, shards: list[Pod]) -> None:
    """A shard that starts from its snapshot and one that has its log alone have the same state."""
    copies = []
    for number, pod in enumerate(shards):
        volume = place.path / f"copy-{number}"
        shutil.copytree(pod.environment["ULTRA_DATA"], volume)
        shutil.rmtree(volume / f"shard-{number:04d}" / "snapshots")
        copies.append(place.shard(number, host=150 + number, ULTRA_DATA=volume))
    for pod in (*shards, *copies):
        pod.start()
    for pod, copy in zip(shards, copies, strict=True):
        pod.wait_for("/readyz")
        copy.wait_for("/readyz")
        assert as_operator(pod, "GET", "/admin/v1/status")["replayed"] == 0
        image, replayed = snapshot(pod), snapshot(copy)
        assert as_operator(copy, "GET", "/admin/v1/status")["replayed"] == image["offset_end"] - 1
        for member in ("offset_end", "state_hash"):
            assert image[member] == replayed[member]


async def hurt(pod: Pod, chance: random.Random) -> None:
    """End a process in each of two ways while it lives, and start it again."""
    numbers = [signal.SIGKILL, signal.SIGTERM]
    chance.shuffle(numbers)
    for number in numbers:
        await asyncio.to_thread(pod.wait_for, "/healthz")
        await asyncio.sleep(chance.uniform(0.0, 1.0))
        code = await asyncio.to_thread(pod.end, number)
        assert code == (0 if number is signal.SIGTERM else -number), pod.log.read_text()
        pod.start()


async def test_every_acknowledged_command_is_there_once_whatever_was_killed(place: Place) -> None:
    keys = place.path / "keys"
    key = key_file(keys)
    shards = [place.shard(number) for number in (0, 1)]
    gateways = [place.gateway(number, ULTRA_API_KEYS=keys) for number in (0, 1)]
    for pod in (*gateways, *shards):  # Gateways are there first, as any order is allowed.
        pod.start()
    for pod in (*shards, *gateways):
        await asyncio.to_thread(pod.wait_for, "/readyz")
    load = Load(gateways, key)
    loading = asyncio.create_task(load.run())
    await load.goes_on(loading)
    chance = random.Random(20261130)
    await asyncio.gather(*(hurt(pod, chance) for pod in (*shards, *gateways)))
    await load.goes_on(loading)
    load.stopping.set()
    await loading
    for pod in (*shards, *gateways):
        await asyncio.to_thread(pod.wait_for, "/readyz")
    for gateway in gateways:
        await asyncio.to_thread(check_books, gateway, load, key)
    await check_replies(gateways[0], load)
    await asyncio.to_thread(check_decisions, place, gateways[1], key)
    for pod in shards:
        assert snapshot(pod)["offset_end"] > 0
    for pod in (*gateways, *shards):
        assert await asyncio.to_thread(pod.end, signal.SIGTERM) == 0
    await asyncio.to_thread(check_replays, place, shards)
