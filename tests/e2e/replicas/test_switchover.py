"""As an operator, I let another copy lead, or stop the leader, and clients notice a short pause.

Under load: no client of ours gets an error, nothing is lost or done twice.  The pause that they saw
and its parts are printed, and nothing is decided by them.
"""

import asyncio
import json
import signal
import sys
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from tests.e2e.replicas.processes import ULTRA, WAIT_S, Copy, Trio

from ultraengine.client import Client, Reply
from ultraengine.client.client import Transport

KEYS = ("a", "b", "c", "d")


class Load:
    """Clients of ours that send one command after the other, and when each was answered."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.replies: list[Reply] = []
        self.at: list[float] = []
        self.ending = False
        self.steps: list[str] = []
        """Of each switchover, for people."""
        self.tasks = [asyncio.create_task(self._go_on(key)) for key in KEYS]

    async def _go_on(self, key: str) -> None:
        while not self.ending:
            reply = await self.client.send("counter.add", key=key, data={"delta": 1})
            self.replies.append(reply)
            self.at.append(time.monotonic())

    async def more(self, count: int) -> None:
        wanted = len(self.replies) + count
        async with asyncio.timeout(WAIT_S):
            while len(self.replies) < wanted:
                for task in self.tasks:
                    if task.done():
                        task.result()
                await asyncio.sleep(0.02)

    async def end(self) -> int:
        """What all counters say."""
        self.ending = True
        await asyncio.gather(*self.tasks)
        values = [(await self.client.get(f"counter/{key}")).value["value"] for key in KEYS]
        return sum(values)

    def tell(self, story: str) -> None:
        """Print the longest time without an answer, and its parts, for people."""
        pauses = [later - earlier for earlier, later in zip(self.at, self.at[1:], strict=False)]
        sys.stdout.write(f"\n{story}: the longest pause that clients saw: {max(pauses):.3f} s\n")
        for steps in self.steps:
            sys.stdout.write(f"  since the intake stopped, s: {steps}\n")


async def promote(leader: Copy, *arguments: str) -> tuple[int, str]:
    """What `ultra promote` ends with, and says."""
    process = await asyncio.create_subprocess_exec(
        ULTRA, "promote", *arguments, "--url", leader.url, "-o", "json",
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    said, _ = await asyncio.wait_for(process.communicate(), WAIT_S)
    return process.returncode or 0, said.decode()


def events(copy: Copy, name: str) -> list[dict[str, Any]]:
    lines = [line for line in copy.log.read_text().splitlines() if f'"{name}"' in line]
    return [json.loads(line) for line in lines]


PARTS = (
    ("swap won", "switchover.done", "before"),
    ("epoch begins", "epoch.begins", "after"),
    ("it is committed", "replica.leads", "after"),
    ("the shard takes over", "replica.takes_over", "after"),
    ("clients are let in", "gateway.listening", "after"),
)


def parts(before: Copy, after: Copy) -> str:
    """Seconds since the intake was stopped at which each step of the last switchover was done."""

    def at(copy: Copy, name: str) -> datetime:
        return datetime.fromisoformat(events(copy, name)[-1]["timestamp"])

    began = at(before, "switchover.begins")
    sides = {"before": before, "after": after}
    told = [
        f"{what} {(at(sides[side], name) - began).total_seconds():.3f}"
        for what, name, side in PARTS
    ]
    return ", ".join(told)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("transport", ["http", "stream"])
async def test_the_copy_that_is_named_leads_and_no_client_gets_an_error(
    tmp_path: Path, transport: Transport
) -> None:
    trio = Trio(tmp_path)
    try:
        await trio.start()
        leader = await trio.leader()
        async with Client(
            [copy.url for copy in trio.copies], transport=transport, deadline_s=WAIT_S
        ) as client:
            load = Load(client)
            await load.more(100)
            for _ in range(3):
                wanted = next(one.number for one in trio.copies if one is not leader)
                await trio.in_sync(leader, 3)
                code, said = await promote(leader, str(wanted))
                assert code == 0, said
                done = json.loads(said)
                assert done["replica"] == wanted
                await load.more(60)
                now = await trio.leader()
                assert now.number == wanted
                before, leader = leader, now
                assert before.ends[-1] == 78
                taken = events(now, "replica.takes_over")[-1]
                assert taken["log_end"] == done["log_end"] + 1, "all of it, and the epoch start"
                load.steps.append(parts(before, now))
            assert await load.end() == len(load.replies)
        assert len({reply.offset for reply in load.replies}) == len(load.replies)
        assert len({reply.epoch for reply in load.replies}) == 4
        load.tell(transport)
    finally:
        await trio.stop()


@pytest.mark.timeout(300)
async def test_a_leader_that_is_stopped_hands_over_first(tmp_path: Path) -> None:
    trio = Trio(tmp_path, {"ULTRA_FAILOVER_S": "20"})
    try:
        await trio.start()
        leader = await trio.leader()
        async with Client([copy.url for copy in trio.copies], deadline_s=WAIT_S) as client:
            load = Load(client)
            await load.more(100)
            await trio.in_sync(leader, 3)
            assert await leader.end(signal.SIGTERM) == 0
            began = time.monotonic()
            again = await trio.leader()
            assert again is not leader
            assert time.monotonic() - began < 20, "nobody has waited for its silence"
            await load.more(60)
            assert await load.end() == len(load.replies)
        assert len(events(leader, "switchover.done")) == 1
        load.steps.append(parts(leader, again))
        load.tell("stop")
    finally:
        await trio.stop()


@pytest.mark.timeout(300)
async def test_a_copy_that_cannot_lead_is_not_promoted_and_the_leader_goes_on(
    tmp_path: Path,
) -> None:
    trio = Trio(tmp_path)
    try:
        await trio.start()
        leader = await trio.leader()
        gone = next(one for one in trio.copies if one is not leader)
        await trio.in_sync(leader, 3)
        await gone.end(signal.SIGKILL)
        await trio.in_sync(leader, 2)
        code, said = await promote(leader, str(gone.number))
        assert code == 5, said
        assert f"replica {gone.number} is not in sync" in said
        code, said = await promote(leader, str(leader.number))
        assert (code, "leads already" in said) == (5, True)
        async with aiohttp.ClientSession() as session:
            assert await trio.send(session, trio.history.new(trio.rng), leader.number) == (
                leader.number
            )
        assert await trio.leader() is leader
    finally:
        await trio.stop()
