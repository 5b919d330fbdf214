"""As a reader, I know from whom and as of when I read; as an operator, I see how copies are."""

import asyncio
import signal
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from tests.e2e.replicas.processes import WAIT_S, Copy, Trio

from ultraengine.client import Client

LAG_S = 30.0


async def get(copy: Copy, path: str) -> tuple[int, dict[str, Any], dict[str, str]]:
    """Status, body and headers of one answer; 0 when there is none."""
    timeout = aiohttp.ClientTimeout(total=20)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.get(f"{copy.url}{path}") as answer,
        ):
            return answer.status, await answer.json(), dict(answer.headers)
    except (aiohttp.ClientError, TimeoutError):
        return 0, {}, {}


async def add(client: Client, count: int = 1) -> int:
    """The offset of the last of some commands."""
    offset = -1
    for _ in range(count):
        reply = await client.send("counter.add", key="a", data={"delta": 1})
        assert reply.offset is not None
        offset = reply.offset
    return offset


async def knowing(trio: Trio, copy: Copy) -> dict[str, Any]:
    """The status of a copy that knows where its leader is: they tell each other once in a while."""
    async with asyncio.timeout(WAIT_S):
        while (told := await trio.status(copy)).get("leader_url") is None:  # noqa: ASYNC110
            await asyncio.sleep(0.1)
    return told


@pytest.mark.timeout(300)
async def test_a_copy_answers_with_its_position_and_names_its_leader(tmp_path: Path) -> None:
    trio = Trio(tmp_path)
    try:
        await trio.start()
        leader = await trio.leader()
        copy = next(one for one in trio.copies if one is not leader)
        await trio.in_sync(leader, 3)
        async with Client([one.url for one in trio.copies], deadline_s=WAIT_S) as client:
            offset = await add(client, 5)
        await knowing(trio, copy)
        status, body, headers = await get(copy, f"/v1/counter/a?read=follower&min_offset={offset}")
        assert (status, body["value"]) == (200, 5), body
        assert headers["Ultra-Role"] == "follower"
        assert int(headers["Ultra-Offset"]) >= offset
        assert headers["Ultra-Epoch"] == "1"
        status, body, headers = await get(leader, "/v1/counter/a")
        assert (status, body["value"], headers["Ultra-Role"]) == (200, 5, "leader")
        for path in ("/v1/counter/a", "/v1/counter/a?read=confirm", "/v1/commands/x?key=a"):
            status, body, _ = await get(copy, path)
            assert (status, body["code"], body["retryable"]) == (503, "NOT_LEADER", True)
            assert body["leader_url"] == leader.url
            assert f"replica {leader.number} leads" in body["detail"]
        status, body, _ = await get(copy, "/v1/counter/a?read=follower&min_offset=999999")
        assert (status, body["code"]) == (504, "WAIT_TIMEOUT")
        assert (await get(copy, "/readyz"))[1]["code"] == "NOT_LEADER"
        assert (await get(copy, "/readyz?role=any"))[1]["role"] == "follower"
        assert (await get(copy, "/healthz"))[1]["role"] == "follower"
        assert (await get(leader, "/healthz"))[1]["role"] == "leader"
    finally:
        await trio.stop()


@pytest.mark.timeout(300)
async def test_a_leader_that_cannot_prove_that_it_leads_shows_nothing_old(tmp_path: Path) -> None:
    trio = Trio(tmp_path)
    try:
        await trio.start()
        leader = await trio.leader()
        await trio.in_sync(leader, 3)
        async with Client([one.url for one in trio.copies], deadline_s=WAIT_S) as client:
            await add(client, 3)
            leader.signal(signal.SIGSTOP)
            value = 3
            while True:  # The others elect one, and go on.
                await add(client)
                value += 1
                others = [await get(one, "/readyz") for one in trio.copies if one is not leader]
                if any(status == 200 for status, _, _ in others):
                    break
            leader.signal(signal.SIGCONT)
            for _ in range(20):
                status, body, _ = await get(leader, "/v1/counter/a")
                assert status in {0, 503} or body["value"] >= value, body
                await asyncio.sleep(0.05)
            # Its life has ended; cut off from its copies, the next leader answers nothing either.
            now = await trio.leader()
            for one in trio.copies:
                if one is not now and one.runs:
                    one.signal(signal.SIGSTOP)
            status, body, _ = await get(now, "/v1/counter/a")
            assert (status, body["code"]) == (503, "NOT_LEADER"), body
            assert "prove" in body["detail"]
            status, body, _ = await get(now, "/v1/counter/a?read=follower")
            assert (status, body["value"]) == (200, value)
            for one in trio.copies:
                if one is not now and one.runs:
                    one.signal(signal.SIGCONT)
            assert (await client.get("counter/a")).value["value"] == value
    finally:
        await trio.stop()


@pytest.mark.timeout(300)
async def test_copies_can_be_watched(tmp_path: Path) -> None:
    trio = Trio(tmp_path)
    try:
        await trio.start()
        leader = await trio.leader()
        await trio.in_sync(leader, 3)
        copy = next(one for one in trio.copies if one is not leader)
        async with Client([one.url for one in trio.copies], deadline_s=WAIT_S) as client:
            offset = await add(client, 5)
            status = await trio.status(leader)
            assert (status["role"], status["state"], status["leader"]) == (
                "leader", "serving", leader.number,
            )  # fmt: skip
            assert status["in_sync"] == [0, 1, 2]
            assert status["min_isr"] == 2
            positions = status["positions"]
            assert positions["end"] >= positions["durable_end"] >= positions["committed_end"] > 0
            assert positions["executed_end"] > offset
            others = {one["replica"]: one for one in status["followers"]}
            assert set(others) == {0, 1, 2} - {leader.number}
            assert all(one["in_sync"] and not one["barred"] for one in others.values())
            assert all(one["lag_s"] < LAG_S for one in others.values())
            told = await trio.status(copy)
            assert (told["role"], told["state"]) == ("follower", "following")
            told = await knowing(trio, copy)
            assert (told["leader"], told["leader_url"]) == (leader.number, leader.url)
            assert told["in_sync"] == [0, 1, 2]
            assert told["divergence"] is None
            before = status["epoch"]
            await leader.end(signal.SIGKILL)
            await add(client, 3)
            now = await trio.leader()
            failover = (await trio.status(now))["last_failover"]
            assert (failover["old_epoch"], failover["lossless"]) == (before, True)
            assert failover["new_epoch"] > before
            assert failover["promoted_offset"] > offset
            assert failover["promoted_end"] >= failover["acknowledged_end"] > 0
            assert failover["promoted_offset"] >= failover["acknowledged_offset"] > 0
            assert len(failover["chain"]) == 32
            assert failover["silent_since"] <= failover["elected_at"] <= failover["serving_at"]
            async with (
                aiohttp.ClientSession() as session,
                session.get(f"{now.url}/metrics") as answer,
            ):
                text = await answer.text()
            assert 'ultra_replica_leads{shard="0"} 1.0' in text
            assert f'ultra_follower_in_sync{{replica="{leader.number}",shard="0"}}' in text
    finally:
        await trio.stop()
