"""How fast SQLite takes the ledger's rows, beside a bare ``executemany`` of the same rows.

    python benchmarks/sqlite_rows.py [--transfers 100000] [--rounds 3]

Both get batches that are ready; both have the same keys and indexes, WAL, FULL and cache.  The
bare one has no types, no checks, no folds (a merge replaces) and no positions.  They take turns,
round by round; ratios are of the same round.
"""

import argparse
import random
import sqlite3
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from ultraengine.domains.ledger.events import AccountOpened, Transferred
from ultraengine.domains.ledger.tables import TABLES
from ultraengine.model.command import Command
from ultraengine.model.ids import Epoch, Instant, Offset, ShardId
from ultraengine.model.outcome import EMPTY_ARRAY, NIL, Outcome, Status
from ultraengine.projection.fold import Batch
from ultraengine.projection.sqlite.store.driver import CACHE_KIB, CHECKPOINT_PAGES, Store
from ultraengine.projection.target import START, Checkpoint, Moved
from ultraengine.testing.projected import Place

ACCOUNTS = 10_000
PER_BATCH = 10_000
TIME = 1_767_225_600_000_000


def batches(transfers: int) -> tuple[list[Batch], float]:
    """The opening of all accounts, then batches of transfers; and seconds spent projecting."""
    chance = random.Random(1)
    command = Command("c", "ledger.create_transfers@1", "book", NIL, "tenant", "till")
    outcome = Outcome(0, Status.ACCEPTED, 1, NIL, EMPTY_ARRAY)
    at = Place(0, 1, command, outcome, Instant(TIME))
    opening = Batch(TABLES.tables)
    for number in range(ACCOUNTS):
        opened = AccountOpened(0, number, f"account-{number}", "USD/2", None, None, {}, TIME)
        TABLES.project(opened, at, opening)
    made, spent = [opening], 0.0
    balances, versions = [0] * ACCOUNTS, [1] * ACCOUNTS
    for first in range(0, transfers, PER_BATCH):
        events = []
        for number in range(first, min(first + PER_BATCH, transfers)):
            source, target = chance.sample(range(ACCOUNTS), 2)
            amount = chance.randrange(1, 5_000)
            for account, paid in ((source, -amount), (target, amount)):
                balances[account] += paid
                versions[account] += 1
            events.append(
                Transferred(
                    0, f"{TIME + number}-{chance.randrange(10**9):09d}", f"account-{source}",
                    f"account-{target}", amount, balances[source], balances[target],
                    versions[source], versions[target], 0, 0, TIME + number, None, None, None,
                )
            )  # fmt: skip
        batch, start = Batch(TABLES.tables), time.process_time()
        for offset, event in enumerate(events, first):
            at.offset = Offset(offset)
            TABLES.project(event, at, batch)
        spent += time.process_time() - start
        made.append(batch)
    return made, spent


def ours(path: Path, made: list[Batch]) -> tuple[float, float]:
    """Seconds of wall clock and CPU for all but the opening."""
    store = Store(str(path))
    store.prepare()
    of = store.create(TABLES, 1, Instant(0))
    before, start = START, (0.0, 0.0)
    for number, batch in enumerate(made):
        if number == 1:
            start = time.perf_counter(), time.process_time()
        after = Checkpoint(Offset(before.offset + 1), Epoch(1))
        store.write(of, TABLES, batch, [Moved(ShardId(0), before, after)])
        before = after
    found = time.perf_counter() - start[0], time.process_time() - start[1]
    store.db.close()
    return found


def bare(path: Path, made: list[Batch]) -> tuple[float, float]:
    """Likewise."""
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = FULL")
    db.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
    db.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
    for table in TABLES.tables:
        db.execute(
            f"CREATE TABLE {table.name} ({', '.join(table.names)},"
            f" PRIMARY KEY ({', '.join(table.key)}))"
        )
        for index in table.indexes:
            columns = ", ".join(index.columns)
            db.execute(f"CREATE INDEX {table.name}_{index.name} ON {table.name} ({columns})")
    start = 0.0, 0.0
    for number, batch in enumerate(made):
        if number == 1:
            start = time.perf_counter(), time.process_time()
        db.execute("BEGIN")
        for table in TABLES.tables:
            put = (
                f"INSERT OR REPLACE INTO {table.name} VALUES ({', '.join('?' * len(table.names))})"
            )
            if table.name in batch.appended:
                db.executemany(put, batch.appended[table.name])
                continue
            current: Any = batch.current[table.name]
            db.executemany(put, current.put.values())
            rows = [(*change.values(), *key) for key, change in current.changed.items()]
            if rows:
                shape = next(iter(current.changed.values()))
                changes = ", ".join(f"{table.names[position]} = ?" for position in shape)
                where = " AND ".join(f"{name} = ?" for name in table.key)
                db.executemany(f"UPDATE {table.name} SET {changes} WHERE {where}", rows)
        db.execute("COMMIT")
    found = time.perf_counter() - start[0], time.process_time() - start[1]
    db.close()
    return found


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--transfers", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    made, spent = batches(options.transfers)
    rows = sum(batch.row_count for batch in made[1:])
    print(f"projecting: {spent / options.transfers * 1e6:.1f} µs of CPU per transfer")
    print(f"{rows / options.transfers:.1f} rows per transfer in batches of {PER_BATCH}")
    ratios = []
    for number in range(options.rounds):
        with tempfile.TemporaryDirectory() as directory:
            wall, cpu = ours(Path(directory) / "ours.db", made)
            bare_wall, bare_cpu = bare(Path(directory) / "bare.db", made)
        ratios.append((bare_wall / wall, bare_cpu / cpu))
        print(
            f"round {number}: {rows / wall:,.0f} rows/s,"
            f" {options.transfers / wall:,.0f} transfers/s;"
            f" bare {rows / bare_wall:,.0f} rows/s; ratio {ratios[-1][0]:.2f},"
            f" of CPU {ratios[-1][1]:.2f}"
        )
    walls, cpus = zip(*ratios, strict=True)
    print(f"median ratio {statistics.median(walls):.2f}, of CPU {statistics.median(cpus):.2f}")


if __name__ == "__main__":
    main()
