"""The gateway in front of a real, durable engine: one process, one data directory."""

import asyncio
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Self

import aiohttp
import pytest
from tests.unit.gateway.conftest import add

from ultraengine.config import Config
from ultraengine.main import Process
from ultraengine.model.limits import Limits

LEDGER_BOOK: list[dict[str, Any]] = [
    {
        "id": "open",
        "type": "ledger.open_accounts",
        "key": "book",
        "data": {
            "accounts": [
                {"id": "alice", "asset": "USD/2", "min_balance": None},
                {"id": "shop", "asset": "USD/2"},
            ]
        },
    },
    {
        "id": "pay",
        "type": "ledger.create_transfers",
        "key": "book",
        "data": {"transfers": [{"id": "t1", "from": "alice", "to": "shop", "amount": "1250"}]},
    },
    {
        "id": "steal",
        "type": "ledger.create_transfers",
        "key": "book",
        "data": {"transfers": [{"id": "t2", "from": "shop", "to": "alice", "amount": "1251"}]},
    },
]


def config(path: Path) -> Config:
    return Config(
        data=path,
        port=0,
        dev=True,
        domains=("ultraengine.domains.counter:DOMAIN", "ultraengine.domains.ledger:DOMAIN"),
        limits=Limits(segment_bytes=4 * 1024**2, frame_bytes_max=1024**2, min_offset_wait_s=0.2),
        snapshot_mode="inline",
    )


class Running:
    """An engine and a session for it."""

    def __init__(self, path: Path) -> None:
        self.process = Process(config(path), on_fatal=self._fatal)
        self.http: aiohttp.ClientSession

    @staticmethod
    def _fatal(error: BaseException) -> None:
        raise error

    async def __aenter__(self) -> Self:
        await self.process.start()
        host, port = self.process.gateway.addresses[0]
        self.http = aiohttp.ClientSession(f"http://{host}:{port}")
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.http.close()
        await self.process.stop()

    async def send(self, command: Any) -> tuple[int, Any]:
        async with self.http.post("/v1/commands", json=command) as answer:
            return answer.status, await answer.json(content_type=None)

    async def get(self, path: str) -> tuple[int, Any]:
        async with self.http.get(path) as answer:
            return answer.status, await answer.json(content_type=None)


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[Running]:
    async with Running(tmp_path) as running:
        yield running


async def test_the_directory_is_locked_as_long_as_background_work_goes_on(tmp_path: Path) -> None:
    async with Running(tmp_path) as running:
        disk = running.process.world.disk
        may_end, tried = threading.Event(), threading.Event()

        def work() -> None:
            tried.set()
            may_end.wait(20)
            with pytest.raises(BlockingIOError):
                disk.lock("LOCK")

        done = running.process.background.submit(work)
        stopping = asyncio.create_task(running.process.shard.stop())
        await asyncio.to_thread(tried.wait, 20)
        # Long enough for a stop that would not wait.
        done_first, _ = await asyncio.wait({stopping}, timeout=0.5)
        assert not done_first
        may_end.set()
        await stopping
        done.result(0)
        disk.lock("LOCK").release()


async def test_what_was_answered_is_there_after_a_restart_and_is_not_done_twice(
    tmp_path: Path,
) -> None:
    async with Running(tmp_path) as first:
        async with first.http.post("/v1/commands:batch", json=LEDGER_BOOK) as answer:
            replies = await answer.json()
        assert [reply["outcome"] for reply in replies] == ["accepted", "accepted", "rejected"]
        assert replies[2]["error"]["code"] == "exceeds_balance"
        assert replies[1]["durable"] == {"policy": "sync", "local": True, "replicas": 1}
    async with Running(tmp_path) as second:
        for command, original in zip(LEDGER_BOOK, replies, strict=True):
            status, body = await second.send(command)
            assert status == (422 if original["outcome"] == "rejected" else 200)
            assert {name: body[name] for name in original} == {**original, "duplicate": True}
            status, outcome = await second.get(f"/v1/commands/{command['id']}?key=book")
            assert (status, outcome["state"]) == (200, "done")
        _, account = await second.get("/v1/ledger/book/accounts/shop")
        assert account["balance"] == "1250"
        status, outcome = await second.get("/v1/commands/pay")
        assert (outcome["state"], outcome["reply"]["offset"]) == ("done", replies[1]["offset"])
        status, outcome = await second.get("/v1/commands/never?key=book")
        assert (status, outcome["state"]) == (200, "unknown")


async def test_a_read_waits_for_the_offset_of_a_reply_and_not_for_ever(running: Running) -> None:
    _, reply = await running.send(add())
    async with running.http.get(f"/v1/counter/book-1?min_offset={reply['offset']}") as answer:
        assert await answer.json() == {"value": 5, "additions": 1}
        assert int(answer.headers["Ultra-Offset"]) >= reply["offset"]
    status, body = await running.get(f"/v1/counter/book-1?min_offset={reply['offset'] + 1_000}")
    assert (status, body["code"]) == (504, "WAIT_TIMEOUT")


async def test_a_stream_takes_commands_and_follows_their_events(running: Running) -> None:
    async with running.http.ws_connect("/v1/stream", protocols=("ultra.v1.json",)) as socket:
        hello = await socket.receive_json(timeout=5)
        assert "subscribe" in hello["capabilities"]
        await socket.send_json({"op": "subscribe", "from": 0})
        assert await socket.receive_json(timeout=5) == {"op": "subscribed", "from": 0}
        await socket.send_json([add(str(n)) for n in range(100)])
        ids: dict[str, list[str]] = {"reply": [], "event": []}
        while min(len(seen) for seen in ids.values()) < 100:
            frame = await socket.receive_json(timeout=5)
            for item in frame if isinstance(frame, list) else [frame]:
                ids["event" if item.get("op") == "event" else "reply"].append(item["id"])
    wanted = [str(n) for n in range(100)]
    assert ids == {"reply": wanted, "event": wanted}


async def test_a_person_can_pause_resume_snapshot_and_validate(running: Running) -> None:
    async def do(name: str, **body: Any) -> Any:
        async with running.http.post(f"/admin/v1/{name}", json=body) as answer:
            assert answer.status == 200, await answer.text()
            return await answer.json()

    await running.send(add("1"))
    assert (await do("pause", reason="a test"))["status"]["state"] == "paused"
    status, body = await running.send(add("2"))
    assert (status, body["code"]) == (503, "PAUSED")
    status, body = await running.send(add("1"))
    assert (status, body["duplicate"]) == (200, True)
    assert (await running.get("/v1/counter/book-1"))[0] == 200
    assert (await do("resume"))["status"]["state"] == "serving"
    assert (await running.send(add("2")))[0] == 200
    await do("snapshot")
    _, report = await running.get("/admin/v1/status")
    assert report["snapshot_offset"] is not None
    validated = (await do("replay-validate"))["result"]
    assert (validated["equal"], validated["first_difference"]) == (True, None)
    assert (await do("drain"))["status"]["state"] == "draining"
    status, body = await running.send(add("3"))
    assert (status, body["code"]) == (503, "DRAINING")


async def test_metrics_of_the_shard_and_of_the_edge_are_on_one_page(running: Running) -> None:
    await running.send(add())
    async with running.http.get("/metrics") as answer:
        text = await answer.text()
    for name in ("ultra_edge_commands_total", "ultra_commands_total", "ultra_log_sync_seconds"):
        assert f"# TYPE {name}" in text


async def test_a_stop_answers_everything_it_took(running: Running) -> None:
    sending = [asyncio.create_task(running.send(add(str(n)))) for n in range(200)]
    await asyncio.sleep(0.01)
    await running.process.gateway.drain()
    answers = await asyncio.gather(*sending, return_exceptions=True)
    codes = [answer[0] for answer in answers if not isinstance(answer, BaseException)]
    assert set(codes) <= {200, 503}
    accepted = codes.count(200)
    assert running.process.shard.status().applied_end >= accepted
    # A connection that was never served may be closed; a command that was taken may not.
    lost = [answer for answer in answers if isinstance(answer, BaseException)]
    assert all(isinstance(error, aiohttp.ClientConnectionError) for error in lost)
