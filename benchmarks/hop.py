"""What a front costs: processor time per command, with it and without it, in alternating rounds.

    python benchmarks/hop.py [--rounds 5] [--seconds 2]

Two engines run side by side: one process, and a front before two shards (every key in one of
them, so that one shard does the same work in both).  The same requests go to each in turn, made
beforehand, on connections that are kept.  Processor time is that of the engine's processes, from
``/proc/PID/stat``, which a busy machine does not change as it changes latency.
"""

import argparse
import asyncio
import json
import os
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

from ultraengine.router.shard_map import ShardMap

TICK_S = 1 / os.sysconf("SC_CLK_TCK")
BOOK = next(f"b{n}" for n in range(100) if ShardMap.even(2).shard_of("default", f"b{n}") == 0)
LENGTH = re.compile(rb"\r\nContent-Length: ([0-9]+)\r\n")


class Shape(NamedTuple):
    """One way to send: connections, and commands in each request."""

    name: str
    connections: int
    batch: int


SHAPES = (
    Shape("single, 64 connections", 64, 1),
    Shape("batch of 16, 16 connections", 16, 16),
    Shape("batch of 100, 4 connections", 4, 100),
    Shape("batch of 1,000, 2 connections", 2, 1_000),
)


class Engine:
    """One `ultra dev` and its processes."""

    def __init__(self, *more: str) -> None:
        command = [sys.executable, "-m", "ultraengine.cli.main", "dev", "--ephemeral",
                   "--port", "0", *more]  # fmt: skip
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        assert self.process.stdout is not None
        line = next(one for one in self.process.stdout if b"address    " in one)
        self.port = int(line.rsplit(b":", 1)[1])
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        self.pids = [self.process.pid, *map(int, children.split())]

    def cpu_s(self) -> dict[int, float]:
        """Processor seconds of each process so far."""
        found = {}
        for pid in self.pids:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
            found[pid] = (int(fields[11]) + int(fields[12])) * TICK_S
        return found


def request(path: str, body: Any) -> bytes:
    content = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content


class Sender:
    """Makes requests whose ids are never the same."""

    def __init__(self) -> None:
        self.made = 0

    def transfers(self, shape: Shape) -> bytes:
        commands = []
        for _ in range(shape.batch):
            self.made += 1
            transfer = {"id": f"t{self.made}", "from": "a", "to": "b", "amount": "1"}
            commands.append(
                {"id": f"c{self.made}", "type": "ledger.create_transfers", "key": BOOK,
                 "data": {"transfers": [transfer]}}
            )  # fmt: skip
        if shape.batch == 1:
            return request("/v1/commands", commands[0])
        return request("/v1/commands:batch", commands)


async def answer(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    found = LENGTH.search(head)
    assert head.startswith(b"HTTP/1.1 200"), head
    assert found, head
    return await reader.readexactly(int(found[1]))


async def load(engine: Engine, shape: Shape, sender: Sender, seconds: float) -> int:
    """Send for so long; commands answered."""
    done = 0
    end = time.monotonic() + seconds

    async def connection() -> None:
        nonlocal done
        reader, writer = await asyncio.open_connection("127.0.0.1", engine.port)
        while time.monotonic() < end:
            writer.write(sender.transfers(shape))
            body = await answer(reader)
            assert body.count(b'"outcome":"accepted"') == shape.batch, body[:300]
            done += shape.batch
        writer.close()

    await asyncio.gather(*(connection() for _ in range(shape.connections)))
    return done


async def open_book(engine: Engine) -> None:
    accounts = [{"id": "a", "asset": "USD/2", "min_balance": None}, {"id": "b", "asset": "USD/2"}]
    command = {"id": "open", "type": "ledger.open_accounts", "key": BOOK,
               "data": {"accounts": accounts}}  # fmt: skip
    reader, writer = await asyncio.open_connection("127.0.0.1", engine.port)
    writer.write(request("/v1/commands", command))
    await answer(reader)
    writer.close()


async def measure(engines: dict[str, Engine], rounds: int, seconds: float) -> None:
    senders = {name: Sender() for name in engines}
    for engine in engines.values():
        await open_book(engine)
    print("| shape | without a front | the shard behind one | the front itself | all, ratio |")
    print("|---|--:|--:|--:|--:|")
    for shape in SHAPES:
        alone: list[float] = []
        behind: list[float] = []
        front: list[float] = []
        for turn in range(rounds + 1):
            for name, engine in engines.items():
                before = engine.cpu_s()
                count = await load(engine, shape, senders[name], seconds)
                after = engine.cpu_s()
                spent = [(after[pid] - before[pid]) * 1e6 / count for pid in engine.pids]
                if turn == 0:
                    continue  # Warming up.
                if name == "direct":
                    alone.append(spent[0])
                else:
                    front.append(spent[0])
                    behind.append(sum(spent[1:]))
        ratios = [(f + b) / a for f, b, a in zip(front, behind, alone, strict=True)]
        cells = [f"{statistics.median(one):.1f}" for one in (alone, behind, front)]
        print(f"| {shape.name} | {' | '.join(cells)} | {statistics.median(ratios):.2f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0)
    options = parser.parse_args()
    engines: dict[str, Engine] = {}
    try:
        engines["direct"] = Engine()
        engines["routed"] = Engine("--shards", "2")
        print("Processor time per command, in microseconds (medians).\n")
        asyncio.run(measure(engines, options.rounds, options.seconds))
    finally:
        for engine in engines.values():
            engine.process.terminate()
            engine.process.wait()


if __name__ == "__main__":
    main()
