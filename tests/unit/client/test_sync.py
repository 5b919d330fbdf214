"""The synchronous client: the same answers and errors without an event loop."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from ultraengine.client import Backoff, ClientError, NewCommand, Rejected, Reply, SyncClient

if TYPE_CHECKING:
    from tests.unit.client.conftest import SmallEngine

QUICK = Backoff(base_s=0.001, cap_s=0.005)


async def test_commands_reads_and_outcomes_work_without_an_event_loop(
    engine: "SmallEngine",
) -> None:
    def work() -> None:
        with SyncClient(engine.url, backoff=QUICK) as client:
            assert client.send("t.do", key="k", data={}, id="a").offset == 0
            with pytest.raises(Rejected):
                client.send("t.do", key="k", data={"no": "exceeds_balance"})
            more = [NewCommand(type="t.do", key="k", data={}) for _ in range(3)]
            assert [reply.offset for reply in client.send_all(more)] == [2, 3, 4]
            assert client.get("t/k/things").value == {"path": "/v1/t/k/things"}
            assert client.operate("snapshot") == {"operation": "snapshot"}
            assert client.outcome(id="a", key="k").state == "done"

    await asyncio.to_thread(work)
    assert engine.reads == [("/v1/t/k/things", {"min_offset": "4"})]


async def test_threads_share_one_client_and_its_batches(engine: "SmallEngine") -> None:
    def work() -> list[Reply]:
        with SyncClient(engine.url, lanes=1) as client, ThreadPoolExecutor(16) as pool:
            return list(pool.map(lambda n: client.send("t.do", key="k", data={"n": n}), range(200)))

    replies = await asyncio.to_thread(work)
    assert sorted(reply.offset or 0 for reply in replies) == list(range(200))
    assert len(engine.batches) < 200


async def test_a_closed_client_says_so(engine: "SmallEngine") -> None:
    def work() -> None:
        client = SyncClient(engine.url)
        client.close()
        client.close()
        with pytest.raises(ClientError, match="closed"):
            client.send("t.do", key="k", data={})

    await asyncio.to_thread(work)
    assert engine.batches == []
