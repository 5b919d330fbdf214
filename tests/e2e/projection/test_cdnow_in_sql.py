"""Story: real purchases arrive in SQL, to the cent, whatever happens to the worker.

The tables are compared with sums over the file that share no code with the engine: plain reading
and `decimal.Decimal`.
"""

import threading
from collections import defaultdict
from collections.abc import Callable
from datetime import date
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.e2e.projection.running import ROOT, Program, Story, until

ZERO_ROWS = 80
ROWS = 69_659
CUSTOMERS = 23_570
KILLS = 10
VIEW = "SELECT * FROM ledger_{}"
TABLES = (
    "account", "transfer", "entry", "hold", "daily_balance", "day_close", "day_held",
    "late_account", "asset_booked", "asset_shift", "asset_day", "asset_close",
    "asset_held",
)  # fmt: skip


def sums_of(file: Path) -> tuple[dict[str, int], dict[int, int]]:
    """Cents by customer, and by day since 1970, from the file alone."""
    by_customer: dict[str, int] = defaultdict(int)
    by_day: dict[int, int] = defaultdict(int)
    for line in file.read_text().splitlines()[1:]:
        customer, day, _, dollars = line.split()
        cents = int(Decimal(dollars) * 100)
        by_customer[customer] += cents
        if cents:
            when = date(int(day[:4]), int(day[4:6]), int(day[6:]))
            by_day[when.toordinal() - date(1970, 1, 1).toordinal()] += cents
    return by_customer, by_day


def assert_equal_to_the_file(story: Story, purchases: Path) -> None:
    by_customer, by_day = sums_of(purchases)
    balances = dict(story.read("SELECT account, balance FROM ledger_account WHERE book = 'cdnow'"))
    assert balances.pop("shop") == sum(by_customer.values())
    assert balances == {f"customer-{one}": -cents for one, cents in by_customer.items()}
    assert len(by_customer) == CUSTOMERS
    assert story.count("ledger_transfer") == ROWS - ZERO_ROWS
    assert story.count("ledger_entry") == 2 * (ROWS - ZERO_ROWS)
    assert story.read("SELECT sum(amount) FROM ledger_entry") == [(0,)]
    # The running balance of each account ends at its balance.
    assert story.read(
        "SELECT count(*) FROM ledger_account a WHERE a.version > 1 AND a.balance <>"
        " (SELECT e.balance FROM ledger_entry e WHERE e.tenant = a.tenant AND e.book = a.book"
        " AND e.account = a.account ORDER BY e.version DESC LIMIT 1)"
    ) == [(0,)]
    days = story.read("SELECT day, paid_in FROM ledger_daily_balance WHERE account = 'shop'")
    assert dict(days) == by_day
    totals = story.read("SELECT day, paid_in, paid_out FROM ledger_asset_day")
    assert {day: (paid_in, paid_out) for day, paid_in, paid_out in totals} == {
        day: (cents, cents) for day, cents in by_day.items()
    }


def content(story: Story) -> dict[str, list[Any]]:
    """All rows of all views."""
    return {table: sorted(story.read(VIEW.format(table)), key=repr) for table in TABLES}


def positions(story: Story, build: int) -> int:
    rows = story.read(
        "SELECT sum(log_offset) FROM ultra_projection_position WHERE projection = 'ledger'"
        " AND build = ?", build,
    )  # fmt: skip
    return int(rows[0][0] or 0) if rows else 0


def has_more(story: Story, build: int, before: int) -> bool:
    return positions(story, build) > before


def killed_as_it_goes(story: Story, build: int, kills: int) -> None:
    """Start a worker, wait until it has written something more, kill it at once; again."""
    for _ in range(kills):
        before = positions(story, build)
        worker = story.worker("--limit", "batch_rows_max=1")
        until(partial(has_more, story, build, before), "more is written", worker)
        worker.kill()


def serves(story: Story, build: int, *running: Program) -> None:
    until(
        lambda: any(one["build"] == build and one["state"] == "serving" for one in story.sets()),
        f"build {build} serves", *running,
    )  # fmt: skip


@pytest.mark.slow
def test_the_import_lands_to_the_cent_although_the_worker_is_killed_ten_times(
    story: Callable[..., Story], purchases: Path
) -> None:
    told = story("--no-sql")
    mapping = ROOT / "examples" / "cdnow.toml"
    imported = told.ultra("import", purchases, "--map", mapping, "--url", told.url)
    assert imported.returncode == 0, imported.stderr
    killed_as_it_goes(told, 1, KILLS)
    worker = told.worker()
    serves(told, 1, worker)
    until(lambda: told.sets()[0]["lag_commands"] == 0, "nothing is behind", worker)
    assert_equal_to_the_file(told, purchases)

    # Every write is in the ledger once, each from where the one before ended.
    writes = told.read(
        "SELECT log_end FROM ultra_projection_ledger WHERE build = 1 ORDER BY log_end"
    )
    assert len(writes) == len({end for (end,) in writes}) > KILLS

    # The tables are what the log says: built a second time and compared, table by table.
    proof = told.projection("verify", "--engine", told.url, "-o", "json")
    assert proof.returncode == 0, proof.stderr
    (verdict,) = msgspec.json.decode(proof.stdout)
    assert verdict["same"]
    assert sorted(one["table"] for one in verdict["tables"]) == sorted(TABLES)
    assert told.read("SELECT count(*) FROM sqlite_schema WHERE name LIKE 'check_%'") == [(0,)]

    before = content(told)
    assert told.projection("rebuild", "ledger").returncode == 0
    whole, stop = [], threading.Event()

    def read_on() -> None:
        while not stop.is_set():
            whole.append(told.count("ledger_transfer"))

    reader = threading.Thread(target=read_on)
    reader.start()
    try:
        until(lambda: positions(told, 2) > 0, "the rebuild has begun", worker)
        worker.kill()
        killed_as_it_goes(told, 2, 2)
        worker = told.worker()
        serves(told, 2, worker)
    finally:
        stop.set()
        reader.join()
    # While it was rebuilt every reader saw all of it.
    assert set(whole) == {ROWS - ZERO_ROWS}
    assert content(told) == before
    states = {one["build"]: one["state"] for one in told.sets()}
    assert states == {1: "retired", 2: "serving"}
    assert worker.stop() == 0
