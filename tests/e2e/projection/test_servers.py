"""Stories: what was booked arrives in the servers' databases, equal to sums made elsewhere.

The sums share no code with the engine: those of the purchases are made from the file, those of the
generated transfers while these are made.
"""

import random
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.projection.databases import Server, day_number, postgres
from tests.e2e.projection.running import ROOT, Story
from tests.e2e.projection.test_cdnow_in_sql import CUSTOMERS, ROWS, ZERO_ROWS, sums_of
from tests.servers.postgres import PostgresServer

UNEVEN = (
    "SELECT count(*) FROM ledger_account a WHERE a.version > 1 AND a.balance <>"
    " (SELECT e.balance FROM ledger_entry e WHERE e.tenant = a.tenant AND e.book = a.book"
    " AND e.account = a.account AND e.version = a.version)"
)
"""Accounts whose last running balance is not their balance, or is not there."""
GENERATED = 200_000
PER_COMMAND = 1_000
ACCOUNTS = 1_000


def followed(told: Story, target: str) -> None:
    """Start a worker, wait until it has written all of it, and stop it."""
    told.target = target
    worker = told.worker()
    told.serves(worker)
    assert worker.stop() == 0


@pytest.mark.slow
def test_the_import_lands_to_the_cent_in_databases_of_servers(
    story: Callable[..., Story], purchases: Path, server: Server
) -> None:
    told = story("--no-sql")
    mapping = ROOT / "examples" / "cdnow.toml"
    imported = told.ultra("import", purchases, "--map", mapping, "--url", told.url)
    assert imported.returncode == 0, imported.stderr
    followed(told, server.target)

    by_customer, by_day = sums_of(purchases)
    found: list[Any] = server.read("SELECT account, balance FROM ledger_account")
    balances = dict(found)
    assert balances.pop("shop") == sum(by_customer.values())
    assert balances == {f"customer-{one}": -cents for one, cents in by_customer.items()}
    assert len(balances) == CUSTOMERS
    booked = ROWS - ZERO_ROWS
    assert server.read("SELECT count(*), sum(amount) FROM ledger_transfer") == [
        (booked, sum(by_customer.values()))
    ]
    assert server.read("SELECT count(*), sum(amount) FROM ledger_entry") == [(2 * booked, 0)]
    assert server.read(UNEVEN) == [(0,)]
    days = server.read("SELECT day, paid_in FROM ledger_daily_balance WHERE account = 'shop'")
    assert {day_number(day): cents for day, cents in days} == by_day
    totals = server.read("SELECT day, paid_in, paid_out FROM ledger_asset_day")
    assert {day_number(day): (into, out) for day, into, out in totals} == {
        day: (cents, cents) for day, cents in by_day.items()
    }


@pytest.mark.slow
def test_two_hundred_thousand_transfers_arrive_in_postgresql_with_the_sums_they_were_made_with(
    story: Callable[..., Story], own_postgres: PostgresServer
) -> None:
    told, server = story("--no-sql"), postgres(own_postgres.url())
    names = [f"a{number}" for number in range(ACCOUNTS)]
    told.send(
        {
            "id": "open", "type": "ledger.open_accounts", "key": "many",
            "data": {"accounts": [
                {"id": name, "asset": "USD/2", "min_balance": None} for name in names]},
        }
    )  # fmt: skip
    chance = random.Random(4)
    balances: dict[str, int] = dict.fromkeys(names, 0)
    paid_in: dict[str, int] = defaultdict(int)
    entries: dict[str, int] = defaultdict(int)
    for first in range(0, GENERATED, PER_COMMAND):
        transfers = []
        for number in range(first, first + PER_COMMAND):
            (source, target), amount = chance.sample(names, 2), chance.randrange(1, 10**6)
            balances[source] -= amount
            balances[target] += amount
            paid_in[target] += amount
            entries[source] += 1
            entries[target] += 1
            transfers.append(
                {"id": f"t{number}", "from": source, "to": target, "amount": str(amount)}
            )
        told.send(
            {
                "id": f"move-{first}", "type": "ledger.create_transfers", "key": "many",
                "data": {"transfers": transfers},
            }
        )  # fmt: skip
    followed(told, server.target)

    total = sum(paid_in.values())
    assert server.read("SELECT count(*), sum(amount) FROM ledger_transfer") == [(GENERATED, total)]
    assert server.read("SELECT count(*), sum(amount) FROM ledger_entry") == [(2 * GENERATED, 0)]
    held: list[Any] = server.read("SELECT account, balance FROM ledger_account")
    assert dict(held) == balances
    assert server.read(UNEVEN) == [(0,)]
    by_account = server.read(
        "SELECT account, sum(paid_in), sum(entries) FROM ledger_daily_balance GROUP BY account"
    )
    assert {name: (into, count) for name, into, count in by_account} == {
        name: (paid_in[name], entries[name]) for name in names
    }
    assert server.read("SELECT sum(paid_in), sum(paid_out) FROM ledger_asset_day") == [
        (total, total)
    ]
