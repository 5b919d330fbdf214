"""The load generator: one process of its own, requests encoded before the clock starts.

    python benchmarks/load.py --port 8080 --shape commands --items 1000 --clients 4 ...

Shapes: ``commands`` (one HTTP request = one command of --items transfers), ``batch`` (one
request = --items commands of one transfer) and ``stream`` (a WebSocket; one message = an
array of --items commands of one transfer, or one command when --items is 1).

Closed loop (default): every client sends its next request when the answer is there; gives
throughput.  ``--rate``: requests leave on a fixed schedule, whether or not earlier ones were
answered, and latency counts from the scheduled moment, so that waiting is not hidden
(coordinated omission).  Prints one JSON object.
"""

import argparse
import asyncio
import json
import random
import resource
import time
from collections.abc import Sequence

import aiohttp
import msgspec

ENCODE = msgspec.msgpack.encode
BOOK = "bench"


def transfer(rng: random.Random, accounts: int, name: str) -> dict[str, object]:
    """A transfer between two different accounts."""
    source = rng.randrange(accounts)
    target = (source + 1 + rng.randrange(accounts - 1)) % accounts
    amount = rng.randrange(1, 1_000)
    return {"id": name, "from": f"a{source}", "to": f"a{target}", "amount": amount}


def command(name: str, transfers: Sequence[object]) -> dict[str, object]:
    """One ledger command."""
    data = {"transfers": transfers}
    return {"id": name, "type": "ledger.create_transfers", "key": BOOK, "data": data}


def payloads(options: argparse.Namespace) -> list[bytes]:
    """All request bodies, encoded."""
    rng = random.Random(options.seed)
    bodies = []
    for number in range(options.requests):
        name = f"{options.run}-{number:08d}"
        if options.shape == "commands":
            items = [
                transfer(rng, options.accounts, f"{name}-{n:04d}") for n in range(options.items)
            ]
            body: object = command(name, items)
        else:
            commands = [
                command(f"{name}-{n:04d}", [transfer(rng, options.accounts, f"{name}-{n:04d}")])
                for n in range(options.items)
            ]
            body = commands[0] if options.items == 1 else commands
        bodies.append(ENCODE(body))
    return bodies


class Http:
    """One keep-alive connection; the least that HTTP/1.1 needs, so that the load stays cheap."""

    def __init__(self, options: argparse.Namespace) -> None:
        path = "/v1/commands:batch" if options.shape == "batch" else "/v1/commands"
        if options.shape == "batch" and options.items == 1:
            path = "/v1/commands"
        self.head = (
            f"POST {path} HTTP/1.1\r\nHost: localhost:{options.port}\r\n"
            "Content-Type: application/msgpack\r\nAccept: application/msgpack\r\n"
        )
        self.port = options.port

    async def open(self) -> None:
        """Connect."""
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port)

    async def ask(self, body: bytes) -> bool:
        """Send one request and wait for its answer; whether it was a 200."""
        self.writer.write(f"{self.head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        head = await self.reader.readuntil(b"\r\n\r\n")
        at = head.lower().index(b"content-length:") + 15
        length = int(head[at : head.index(b"\r", at)])
        await self.reader.readexactly(length)
        return head[9:12] == b"200"

    async def close(self) -> None:
        """Disconnect."""
        self.writer.close()


class Stream:
    """One WebSocket; every message waits for as many replies as it holds commands."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.url = f"http://127.0.0.1:{options.port}/v1/stream"
        self.items = options.items

    async def open(self) -> None:
        """Connect and take the hello."""
        self.session = aiohttp.ClientSession()
        self.socket = await self.session.ws_connect(self.url, protocols=["ultra.v1.msgpack"])
        await self.socket.receive()

    async def ask(self, body: bytes) -> bool:
        """Send one message and wait for all its replies; whether all were accepted."""
        await self.socket.send_bytes(body)
        missing, fine = self.items, True
        while missing:
            replies = msgspec.msgpack.decode(await self.socket.receive_bytes())
            for reply in replies if isinstance(replies, list) else [replies]:
                if "op" not in reply:
                    missing -= 1
                    fine = fine and reply["outcome"] == "accepted"
        return fine

    async def close(self) -> None:
        """Disconnect."""
        await self.session.close()


async def prepare(options: argparse.Namespace) -> None:
    """Open the accounts, in commands of 1,000."""
    connection = Http(argparse.Namespace(port=options.port, shape="commands", items=1))
    await connection.open()
    for start in range(0, options.accounts, 1_000):
        end = min(start + 1_000, options.accounts)
        accounts = [
            {"id": f"a{n}", "asset": "USD/2", "min_balance": None} for n in range(start, end)
        ]
        body = {"type": "ledger.open_accounts", "key": BOOK, "id": f"open-{start}",
                "data": {"accounts": accounts}}  # fmt: skip
        if not await connection.ask(ENCODE(body)):
            raise SystemExit(f"accounts from a{start} on could not be opened")
    await connection.close()


async def closed_loop(options: argparse.Namespace, bodies: list[bytes]) -> dict[str, object]:
    """Throughput: each client keeps exactly one request under way."""
    kind = Stream if options.shape == "stream" else Http
    clients = [kind(options) for _ in range(options.clients)]
    for client in clients:
        await client.open()
    waiting = iter(bodies)
    latencies: list[float] = []
    failed = 0

    async def work(client: Http | Stream) -> None:
        nonlocal failed
        for body in waiting:
            started = time.perf_counter()
            fine = await client.ask(body)
            latencies.append(time.perf_counter() - started)
            failed += not fine

    started = time.perf_counter()
    await asyncio.gather(*(work(client) for client in clients))
    seconds = time.perf_counter() - started
    for client in clients:
        await client.close()
    return summary(options, latencies, seconds, failed)


async def open_loop(options: argparse.Namespace, bodies: list[bytes]) -> dict[str, object]:
    """Latency: requests leave at their scheduled moments over a pool of connections."""
    kind = Stream if options.shape == "stream" else Http
    free: asyncio.Queue[Http | Stream] = asyncio.Queue()
    for _ in range(options.clients):
        client = kind(options)
        await client.open()
        free.put_nowait(client)
    latencies: list[float] = []
    failed = 0
    started = time.perf_counter()

    async def one(due: float, body: bytes) -> None:
        nonlocal failed
        client = await free.get()
        fine = await client.ask(body)
        latencies.append(time.perf_counter() - due)
        failed += not fine
        free.put_nowait(client)

    tasks = []
    for number, body in enumerate(bodies):
        due = started + number / options.rate
        delay = due - time.perf_counter()
        if delay > 0:
            await asyncio.sleep(delay)
        tasks.append(asyncio.create_task(one(due, body)))
    await asyncio.gather(*tasks)
    seconds = time.perf_counter() - started
    while not free.empty():
        await free.get_nowait().close()
    return summary(options, latencies, seconds, failed)


def summary(
    options: argparse.Namespace, latencies: list[float], seconds: float, failed: int
) -> dict[str, object]:
    """What is printed: rates in transfers per second, latencies in milliseconds per request."""
    latencies.sort()

    def at(share: float) -> float:
        return round(latencies[min(int(share * len(latencies)), len(latencies) - 1)] * 1e3, 3)

    usage = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "transfers_per_s": round(options.requests * options.items / seconds),
        "requests": options.requests,
        "items": options.items,
        "clients": options.clients,
        "rate": options.rate,
        "p50_ms": at(0.5),
        "p99_ms": at(0.99),
        "max_ms": at(1.0),
        "failed": failed,
        "seconds": round(seconds, 3),
        "load_cpu_s": round(usage.ru_utime + usage.ru_stime, 3),
    }


def main() -> None:
    """Parse, prepare, run, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--shape", choices=("commands", "batch", "stream"), default="commands")
    parser.add_argument("--items", type=int, default=1)
    parser.add_argument("--clients", type=int, default=1)
    parser.add_argument("--requests", type=int, default=100)
    parser.add_argument("--accounts", type=int, default=10_000)
    parser.add_argument(
        "--rate", type=float, default=0.0, help="requests per second; 0 = closed loop"
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--run", default="run", help="prefix that makes ids unique")
    parser.add_argument("--prepare", action="store_true", help="open the accounts first")
    options = parser.parse_args()

    async def run() -> dict[str, object]:
        if options.prepare:
            await prepare(options)
        bodies = payloads(options)
        return await (open_loop if options.rate else closed_loop)(options, bodies)

    print(json.dumps(asyncio.run(run())))


if __name__ == "__main__":
    main()
