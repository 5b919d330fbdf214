"""The load generator: one process of its own, requests encoded before the clock starts.

    python benchmarks/load.py --port 8080 --shape commands --items 1000 --clients 4 ...

Shapes: ``commands`` (one HTTP request = one command of --items transfers), ``batch`` (one
request = --items commands of one transfer) and ``stream`` (a WebSocket; one message = an
array of --items commands of one transfer, or one command when --items is 1).

Closed loop (default): every client sends its next request when the answer is there; gives
throughput.  ``--rate``: requests leave on a fixed schedule, whether or not earlier ones were
answered, and latency counts from the scheduled moment, so that waiting is not hidden
(coordinated omission).  Prints one JSON object.

One thread waits for all sockets; a request costs it a send, a receive and a few searches in
bytes, and ``load_cpu_s`` says how much that was.  Every answer is counted as accepted or not;
a sample is decoded after the clock has stopped, to see that each transfer was posted.

Ids are UUIDv7, ascending, as clients make them (RFC 9562 §5.7).
"""

import argparse
import gc
import itertools
import json
import random
import resource
import select
import time
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence

import msgspec
from wires import Connection, Http, WebSocket, Wire, verify

ENCODE = msgspec.msgpack.encode
BOOK = "bench"
SAMPLES = 64
"""Answers that are decoded afterwards."""
SPIN_S = 0.002
"""Before a scheduled moment that is nearer, the generator does not sleep: the kernel's timers
are coarser than what is measured."""


def names(run: str) -> Callable[[], str]:
    """Makes ascending UUIDv7s: time, then a counter; what `run` is keeps runs apart."""
    milliseconds, salt = time.time_ns() // 1_000_000, zlib.crc32(run.encode()) & 0x3FFF | 0x8000
    numbers = itertools.count()

    def name() -> str:
        number = next(numbers)
        at, low = milliseconds + (number >> 8), number & 0xFF
        return f"{at >> 16:08x}-{at & 0xFFFF:04x}-7{low:03x}-{salt:04x}-{number:012x}"

    return name


def transfer(rng: random.Random, accounts: int, name: str) -> dict[str, object]:
    """A transfer between two different accounts."""
    source = rng.randrange(accounts)
    target = (source + 1 + rng.randrange(accounts - 1)) % accounts
    amount = rng.randrange(1, 1_000)
    return {"id": name, "from": f"a{source}", "to": f"a{target}", "amount": amount}


def command(book: str, name: str, transfers: Sequence[object]) -> dict[str, object]:
    """One ledger command."""
    data = {"transfers": transfers}
    return {"id": name, "type": "ledger.create_transfers", "key": book, "data": data}


def payloads(options: argparse.Namespace) -> list[bytes]:
    """All request bodies, encoded."""
    rng, name, book = random.Random(options.seed), names(options.run), options.book
    bodies = []
    for _ in range(options.requests):
        if options.shape == "commands":
            own = name()
            items = [transfer(rng, options.accounts, name()) for _ in range(options.items)]
            body: object = command(book, own, items)
        else:
            commands = [
                command(book, name(), [transfer(rng, options.accounts, name())])
                for _ in range(options.items)
            ]
            body = commands[0] if options.items == 1 else commands
        bodies.append(ENCODE(body))
    return bodies


def wire_of(options: argparse.Namespace) -> Wire:
    """What a shape is spoken in."""
    if options.shape == "stream":
        return WebSocket(options.port)
    many = options.shape == "batch" and options.items > 1
    return Http(options.port, "/v1/commands:batch" if many else "/v1/commands")


def prepare(port: int, accounts: int, book: str = BOOK) -> None:
    """Open the accounts of a book, in commands of 1,000."""
    wire = Http(port, "/v1/commands")
    connection = Connection(port, wire)
    for start in range(0, accounts, 1_000):
        opened = [{"id": f"a{n}", "asset": "USD/2", "min_balance": None}
                  for n in range(start, min(start + 1_000, accounts))]  # fmt: skip
        body = {"type": "ledger.open_accounts", "key": book, "id": f"open-{book}-{start}",
                "data": {"accounts": opened}}  # fmt: skip
        answer, accepted = connection.ask(wire.request(ENCODE(body)), 1)
        if accepted != 1:
            raise SystemExit(f"accounts from a{start} on could not be opened: {answer[-500:]!r}")
    connection.socket.close()


class Run:
    """One run: what is sent, what came back."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.wire = wire_of(options)
        self.commands = 1 if options.shape == "commands" else options.items
        """Commands per request."""
        self.requests = [self.wire.request(body) for body in payloads(options)]
        self.connections = [Connection(options.port, self.wire) for _ in range(options.clients)]
        self.latencies: list[float] = []
        self.failed = 0
        self._samples: list[bytes] = []
        self._every = max(1, len(self.requests) // SAMPLES)

    def answered(self, answer: bytes, accepted: int, waited: float) -> None:
        """Count one answer."""
        if len(self.latencies) % self._every == 0:
            self._samples.append(answer)
        self.latencies.append(waited)
        self.failed += accepted != self.commands

    def go(self) -> dict[str, object]:
        """Run, then look at the samples; what is printed."""
        gc.collect()
        gc.freeze()  # The generator's own collections would show as latency.
        gc.disable()
        before, started = _cpu_s(), time.perf_counter()
        if self.options.rate:
            self._scheduled(started)
        elif len(self.connections) == 1:
            self._alone()
        else:
            self._closed()
        seconds, spent = time.perf_counter() - started, _cpu_s() - before
        gc.enable()
        for connection in self.connections:
            connection.socket.close()
        failed = self.failed + verify(self.wire, self._samples, self.commands, self.options.items)
        return summary(self.options, self.latencies, seconds, spent, failed)

    def _alone(self) -> None:
        """One client: the socket blocks, so nothing but the engine is waited for."""
        connection, commands, clock = self.connections[0], self.commands, time.perf_counter
        for request in self.requests:
            started = clock()
            answer, accepted = connection.ask(request, commands)
            self.answered(answer, accepted, clock() - started)

    def _closed(self) -> None:
        """Each client keeps exactly one request under way."""
        poll, clock, waiting = select.epoll(), time.perf_counter, iter(self.requests)
        by_number = self._registered(poll)
        busy = 0
        for connection, request in zip(self.connections, waiting, strict=False):
            connection.since = clock()
            connection.send(request, poll)
            busy += 1
        while busy:
            for connection, (answer, accepted) in self._ready(poll, by_number, -1):
                now = clock()
                self.answered(answer, accepted, now - connection.since)
                following = next(waiting, None)
                if following is None:
                    busy -= 1
                else:
                    connection.since = now
                    connection.send(following, poll)

    def _scheduled(self, started: float) -> None:
        """Requests leave at their moments; who finds no free connection waits, and it counts."""
        poll, clock, rate = select.epoll(), time.perf_counter, self.options.rate
        by_number = self._registered(poll)
        free, late, sent, answered = deque(self.connections), deque[int](), 0, 0
        count = len(self.requests)
        while answered < count:
            now = clock()
            while sent < count and started + sent / rate <= now:
                late.append(sent)
                sent += 1
            while late and free:
                number, connection = late.popleft(), free.popleft()
                connection.since = started + number / rate
                connection.send(self.requests[number], poll)
            left = started + sent / rate - clock() if sent < count else -1.0
            timeout = left - SPIN_S / 2 if left > SPIN_S else (0 if sent < count else -1)
            for connection, (answer, accepted) in self._ready(poll, by_number, timeout):
                self.answered(answer, accepted, clock() - connection.since)
                free.append(connection)
                answered += 1

    def _registered(self, poll: select.epoll) -> dict[int, Connection]:
        for connection in self.connections:
            connection.socket.settimeout(0)
            poll.register(connection.socket, select.EPOLLIN)
        return {connection.socket.fileno(): connection for connection in self.connections}

    def _ready(
        self, poll: select.epoll, by_number: dict[int, Connection], timeout: float
    ) -> Iterator[tuple[Connection, tuple[bytes, int]]]:
        """The answers that are complete now, after a wait of at most `timeout` seconds."""
        for number, events in poll.poll(timeout):
            connection = by_number[number]
            if events & select.EPOLLOUT:
                connection.send_more(poll)
            if events & ~select.EPOLLOUT:
                found = connection.receive(self.commands)
                if found is not None:
                    yield connection, found


def _cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def summary(
    options: argparse.Namespace,
    latencies: list[float],
    seconds: float,
    spent: float,
    failed: int,
) -> dict[str, object]:
    """What is printed: rates in transfers per second, latencies in milliseconds per request."""
    latencies.sort()

    def at(share: float) -> float:
        return round(latencies[min(int(share * len(latencies)), len(latencies) - 1)] * 1e3, 4)

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
        "load_cpu_s": round(spent, 3),
    }


def main() -> None:
    """Parse, prepare, run, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--shape", choices=("commands", "batch", "stream"), default="commands")
    parser.add_argument("--items", type=int, default=1)
    parser.add_argument("--clients", type=int, default=1)
    parser.add_argument("--requests", type=int, default=100, help="0 only prepares")
    parser.add_argument("--accounts", type=int, default=10_000)
    parser.add_argument(
        "--rate", type=float, default=0.0, help="requests per second; 0 = closed loop"
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--book", default=BOOK, help="partition key of all commands")
    parser.add_argument("--run", default="run", help="keeps the ids of runs apart")
    parser.add_argument("--prepare", action="store_true", help="open the accounts first")
    options = parser.parse_args()
    if options.prepare:
        prepare(options.port, options.accounts, options.book)
    if options.requests:
        print(json.dumps(Run(options).go()))


if __name__ == "__main__":
    main()
