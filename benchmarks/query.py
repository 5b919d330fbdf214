"""How long reads over SQL take in `ultra query`, over many entries of many days.

    python benchmarks/query.py [--transfers 5000000] [--days 365] [--accounts 10000]
                               [--asks 40] [--only postgresql|sqlite]

The worker fills each database from generated transfers (`projection.py`), which are spread evenly
over the days; a transfer is two entries.  Then `ultra query` is asked over HTTP, one request at a
time on one connection.  Each request asks for something else (another account, another day), so
that no answer is one that was kept; what has no parameter is asked of a fresh process each time,
which has answered something else before.

Reads that take longer than `AIM_MS` are marked; nothing here is a threshold.
"""

import argparse
import asyncio
import contextlib
import http.client
import os
import random
import shutil
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import projection
import servers

DAY_US = 86_400 * 1_000_000
AIM_MS = 10.0
FRESH_ASKS = 5
"""Fresh processes for what has no parameter."""
BOOK = "/v1/sql/ledger/book-1"

Ask = Callable[[random.Random, argparse.Namespace], str]
Row = tuple[str, str, str]


def _day(chance: random.Random, options: argparse.Namespace) -> datetime:
    first = datetime.fromtimestamp(projection.START / 1e6, UTC)
    return first + timedelta(days=chance.randrange(1, options.days))


def _account(chance: random.Random, options: argparse.Namespace) -> str:
    return f"{BOOK}/accounts/account-{chance.randrange(options.accounts):07d}"


def _turnover(chance: random.Random, options: argparse.Namespace) -> str:
    return f"{BOOK}/turnover?from={_day(chance, options):%Y-%m-%d}"


def _statement(chance: random.Random, options: argparse.Namespace) -> str:
    start = _day(chance, options)
    end = start + timedelta(days=30)
    return f"{_account(chance, options)}/statement?from={start:%FT%TZ}&to={end:%FT%TZ}"


def _moment(name: str) -> Ask:
    def ask(chance: random.Random, options: argparse.Namespace) -> str:
        moment = _day(chance, options) + timedelta(seconds=chance.randrange(86_400))
        return f"{BOOK}/trial-balance?{name}={moment:%FT%TZ}"

    return ask


READS: tuple[tuple[str, Ask | None], ...] = (
    ("turnover from a day to the end", _turnover),
    ("trial balance, now", None),
    ("trial balance at a business time", _moment("at_effective_time")),
    ("trial balance at a logged time", _moment("at_time")),
    ("an account", _account),
    ("its last 100 entries", lambda *of: f"{_account(*of)}/entries?limit=100"),
    ("its statement of 30 days", _statement),
)
"""(name, how to ask), None where there is nothing to choose."""


@contextlib.contextmanager
def answering(target: str, work: Path) -> Iterator[http.client.HTTPConnection]:
    """A fresh `ultra query`, and a connection to it."""
    port = servers.free_port()
    command = [sys.executable, "-m", "ultraengine.cli.main", "query", "--target", target,
               "--port", str(port)]  # fmt: skip
    with servers.running(command, work / "query.log", servers.signal.SIGTERM):
        servers.wait_for_port(port)
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        with contextlib.closing(connection):
            yield connection


def asked(connection: http.client.HTTPConnection, path: str) -> float:
    """Milliseconds until the whole answer was there.  Raises SystemExit unless it is a 200."""
    started = time.perf_counter()
    connection.request("GET", path)
    answer = connection.getresponse()
    body = answer.read()
    waited = (time.perf_counter() - started) * 1e3
    if answer.status != 200:
        raise SystemExit(f"{path}: {answer.status} {body[:500]!r}")
    return waited


def times_of(target: str, work: Path, options: argparse.Namespace) -> dict[str, list[float]]:
    """Milliseconds of each read."""
    chance, found = random.Random(11), dict[str, list[float]]()
    with answering(target, work) as connection:
        asked(connection, f"{BOOK}/accounts?limit=1")
        for name, ask in READS:
            if ask is not None:
                found[name] = [asked(connection, ask(chance, options)) for _ in range(options.asks)]
    for name, ask in READS:
        if ask is None:
            found[name] = []
            for _ in range(FRESH_ASKS):
                with answering(target, work) as connection:
                    asked(connection, _turnover(chance, options))
                    found[name].append(asked(connection, f"{BOOK}/trial-balance"))
    return found


def table(times: dict[str, dict[str, list[float]]]) -> list[str]:
    """The report's lines."""
    lines = ["| read | database | p50 ms | worst ms | at most 10 ms |", "|---|---|--:|--:|---|"]
    for name, _ in READS:
        for database, found in times.items():
            median, worst = statistics.median(found[name]), max(found[name])
            holds = "yes" if median <= AIM_MS else "**no**"
            lines.append(f"| {name} | {database} | {median:.1f} | {worst:.1f} | {holds} |")
    return lines


def measured(work: Path, options: argparse.Namespace) -> dict[str, dict[str, list[float]]]:
    """Fill and ask one database after the other."""
    spacing = options.days * DAY_US // options.transfers
    spool = projection.generate(
        work / "spool", options.transfers, options.accounts, spacing_us=spacing
    )
    times = {}
    if options.only != "sqlite":
        with servers.postgres(work / "query-postgres") as (port, _):
            url = f"postgresql://bench@127.0.0.1:{port}"
            asyncio.run(projection.answering(url))
            target = asyncio.run(projection.fresh(url, "reads"))
            asyncio.run(projection.project(target, spool, options.batch_rows, until_served=True))
            print("query: PostgreSQL is filled", flush=True)
            times["PostgreSQL"] = times_of(target, work, options)
    if options.only != "postgresql":
        target = f"sqlite:///{work / 'reads.sqlite'}"
        asyncio.run(projection.project(target, spool, options.batch_rows, until_served=True))
        print("query: SQLite is filled", flush=True)
        times["SQLite"] = times_of(target, work, options)
    return times


def parsed(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--transfers", type=int, default=200_000)
    parser.add_argument("--days", type=int, default=365)
    parser.add_argument("--accounts", type=int, default=10_000)
    parser.add_argument("--asks", type=int, default=40)
    parser.add_argument("--batch-rows", type=int, default=100_000)
    parser.add_argument("--only", choices=("", "postgresql", "sqlite"), default="")
    return parser.parse_args(arguments)


def section(work: Path, *, quick: bool) -> list[str]:
    """For `make bench`: the report's lines."""
    options = parsed(["--transfers", str(100_000 if quick else 500_000)])
    place = work / "query"
    place.mkdir()
    place.chmod(0o755)
    times = measured(place, options)
    shutil.rmtree(place)
    return [f"{2 * options.transfers:,} entries of {options.days} days:", "", *table(times)]


def main() -> None:
    """Parse the command line, measure, print."""
    options = parsed(sys.argv[1:])
    work = Path("/var/tmp") / f"ultra-query-{os.getpid()}"
    work.mkdir()
    work.chmod(0o755)
    try:
        times = measured(work, options)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    print("\n".join(table(times)))


if __name__ == "__main__":
    main()
