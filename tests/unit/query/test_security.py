"""What must not get through: SQL in values and names, foreign cursors and tenants, wrong types.

SQLite tells every statement it runs, values in their places, so "nothing was run" is checked and
not believed.
"""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.unit.domains.ledger.conftest import LedgerBench
from tests.unit.query.serving import Served, serve, write_keys
from tests.unit.query.world import FileTables, small

NASTY = (
    "x' OR '1'='1",
    'x" OR "1"="1',
    "'; DROP TABLE ledger_account__v3_b1; --",
    "') UNION SELECT * FROM ultra_projection_set --",
    "%",
    "_",
    "\\",
    "?1",
    "$1",
    "{table:account}",
    "{:book}",
    "k\u2019 OR 1=1",
    "\U0001f4a5",
)
TEXT_FILTERS = ("transfer", "transfer.prefix", "source", "target.in", "code", "reference.prefix")


class Keyed:
    """Two tenants with a key each, over one database."""

    def __init__(self, served: Served, keys: list[str]) -> None:
        self.served = served
        self.keys = keys

    async def sql(self, tenant: int, path: str, query: Any = None) -> Any:
        """A read with the key of one of them."""
        bearer = f"Bearer {self.keys[tenant]}"
        return await self.served.sql(path, query, Authorization=bearer)

    def ran(self) -> list[str]:
        """What the database has run since the last call."""
        taken, self.served.statements[:] = list(self.served.statements), []
        return taken


@pytest.fixture
async def keyed(tmp_path: Path, bench: LedgerBench, tables: FileTables) -> AsyncIterator[Keyed]:
    small(bench, "acme", "other")
    await tables.follow(bench)
    keys = write_keys(tmp_path / "keys.toml", ("acme", ["ledger:read"]), ("other", ["ledger:read"]))
    served = await serve(tables.path, keys=tmp_path / "keys.toml")
    yield Keyed(served, keys)
    await served.end()


def is_harmless(text: str) -> bool:
    """Whether a statement reads and nothing else."""
    return text.startswith(("SELECT ", "BEGIN", "ROLLBACK", "PRAGMA query_only", "PRAGMA cache"))


async def content(tables: FileTables) -> Any:
    """Checksums of everything."""
    from ultraengine.domains.ledger.tables import TABLES  # noqa: PLC0415

    return await tables.target.checksums(tables.set, TABLES.tables)


@pytest.mark.parametrize("text", NASTY)
async def test_sql_in_a_value_is_text(keyed: Keyed, tables: FileTables, text: str) -> None:
    before = await content(tables)
    for name in TEXT_FILTERS:
        got = await keyed.sql(0, "k/transfers", {name: text})
        assert got.status == 200, got.body
        assert got.body == {"items": [], "next_cursor": None}
    for path in ("k/accounts/{}", "{}/accounts/alice", "k/accounts/{}/statement"):
        got = await keyed.sql(0, path.format(json.dumps(text)[1:-1].replace("/", "")))
        assert got.code == "NOT_FOUND"
    ran = keyed.ran()
    assert len([one for one in ran if "ledger_transfer__" in one]) == len(TEXT_FILTERS)
    assert all(map(is_harmless, ran))
    assert await content(tables) == before


@pytest.mark.parametrize(
    "name",
    [
        "tenant", "tenant.eq", "TENANT", "amount.gte; DROP TABLE x", "amount.", ".gte",
        "amount.gte.lt", "amount.between", "amount.prefix", "1=1", "transfer OR 1",
        "transfer.like", "metadata", "event", "amount'--", "", "order.by", "Ultra-Offset",
    ],
)  # fmt: skip
async def test_a_filter_that_is_none_is_refused_and_nothing_is_run(keyed: Keyed, name: str) -> None:
    got = await keyed.sql(0, "k/transfers", {name: "other"})
    assert (got.status, got.code) == (400, "UNKNOWN_FILTER")
    assert keyed.ran() == []


@pytest.mark.parametrize(
    ("path", "query", "pointer"),
    [
        ("k/transfers", {"amount.gte": "1.5"}, "/query/amount.gte"),
        ("k/transfers", {"amount": "1e3"}, "/query/amount"),
        ("k/transfers", {"amount": "1" * 39}, "/query/amount"),
        ("k/transfers", {"amount": "0x10"}, "/query/amount"),
        ("k/transfers", {"amount": "\u0661"}, "/query/amount"),
        ("k/transfers", {"booked_at.gte": "yesterday"}, "/query/booked_at.gte"),
        ("k/transfers", {"booked_at.gte": "2026-02-30"}, "/query/booked_at.gte"),
        ("k/transfers", {"booked_at.gte": "2026-01-01T00:00:00"}, "/query/booked_at.gte"),
        ("k/transfers", {"booked_at.gte": "0001-01-01T00:00:00+23:59"}, "/query/booked_at.gte"),
        ("k/transfers", {"code": "x" * 129}, "/query/code"),
        ("k/transfers", {"code": "a\0b"}, "/query/code"),
        ("k/transfers", {"code.in": ",".join("x" * 101)}, "/query/code.in"),
        ("k/transfers", {"order": "amount"}, "/query/order"),
        ("k/transfers", {"limit": "0"}, "/query/limit"),
        ("k/transfers", {"limit": "-1"}, "/query/limit"),
        ("k/transfers", {"limit": "1001"}, "/query/limit"),
        ("k/transfers", {"limit": "9" * 40}, "/query/limit"),
        ("k/transfers", {"limit": "\u0665"}, "/query/limit"),
        ("k/transfers", {"limit": "all"}, "/query/limit"),
        ("k/transfers", [("code", "a"), ("code", "b")], "/query/code"),
        ("k/transfers", {"min_offset": "-1"}, "/query/min_offset"),
        ("k/transfers", {"min_offset": str(2**63)}, "/query/min_offset"),
        ("k/transfers", {"shard": "0"}, "/query/shard"),
        ("k/transfers", {"min_offset": "0", "shard": "4096"}, "/query/shard"),
        ("k/accounts", {"closed": "yes"}, "/query/closed"),
        ("k/accounts/alice/days", {"day.gte": "2026-1-1"}, "/query/day.gte"),
        ("k/accounts/alice/entries", {"version.gt": str(2**63)}, "/query/version.gt"),
        ("k/accounts/alice/statement", {"by": "magic"}, "/query/by"),
        ("k/accounts/alice/statement", {"from": "2026-02-01", "to": "2026-01-01"}, "/query/to"),
        (
            "k/trial-balance",
            {"at_time": "2026-02-01", "at_effective_time": "2026-02-01"},
            "/query/at_effective_time",
        ),
        (f"{'k' * 129}/accounts", {}, "/path/book"),
    ],
)
async def test_a_wrong_value_is_refused_with_its_place_and_nothing_is_run(
    keyed: Keyed, path: str, query: Any, pointer: str
) -> None:
    got = await keyed.sql(0, path, query)
    assert (got.status, got.code, got.body["pointer"]) == (400, "MALFORMED", pointer)
    assert keyed.ran() == []


@pytest.mark.parametrize("header", ["0", "0=", "=1", "0=1;1=2", "9999=1", "0=" + "9" * 19, "a=b"])
async def test_a_wrong_offset_header_is_refused(keyed: Keyed, header: str) -> None:
    got = await keyed.served.sql(
        "k/accounts", Authorization=f"Bearer {keyed.keys[0]}", Ultra_Offset=header
    )
    assert (got.code, got.body["pointer"]) == ("MALFORMED", "/header/ultra-offset")
    assert keyed.ran() == []


async def test_a_cursor_fits_its_own_list_and_tenant_alone(keyed: Keyed) -> None:
    query = {"limit": "2", "code": "c0"}
    first = await keyed.sql(0, "k/transfers", query)
    cursor = first.body["next_cursor"]
    assert (await keyed.sql(0, "k/transfers", {**query, "cursor": cursor})).status == 200
    assert (
        await keyed.sql(0, "k/transfers", {**query, "limit": "7", "cursor": cursor})
    ).status == 200
    keyed.ran()
    tried = {
        "another tenant": (1, "k/transfers", {**query, "cursor": cursor}),
        "another book": (0, "k2/transfers", {**query, "cursor": cursor}),
        "another filter": (0, "k/transfers", {**query, "code": "c1", "cursor": cursor}),
        "no filter": (0, "k/transfers", {"limit": "2", "cursor": cursor}),
        "one more filter": (0, "k/transfers", {**query, "source": "bank", "cursor": cursor}),
        "another order": (0, "k/transfers", {**query, "order": "oldest", "cursor": cursor}),
        "another list": (0, "k/accounts", {"cursor": cursor}),
        "nothing": (0, "k/transfers", {**query, "cursor": ""}),
        "one's own": (0, "k/transfers", {**query, "cursor": "AAAAAAAAAAAAAAAAAAAAAJA"}),
        "SQL": (0, "k/transfers", {**query, "cursor": "' OR 1=1 --"}),
        "no text": (0, "k/transfers", {**query, "cursor": "\u20ac"}),
        "too long": (0, "k/transfers", {**query, "cursor": "A" * 3_000}),
    }
    for place in range(0, len(cursor), 5):
        changed = "B" if cursor[place] == "A" else "A"
        changed = cursor[:place] + changed + cursor[place + 1 :]
        tried[f"changed at {place}"] = (0, "k/transfers", {**query, "cursor": changed})
    answers = set()
    for why, (tenant, path, asked) in tried.items():
        got = await keyed.sql(tenant, path, asked)
        assert (got.status, got.code) == (400, "BAD_CURSOR"), why
        answers.add(json.dumps(got.body))
    assert len(answers) == 1, "whatever is wrong with a cursor, the answer is the same"
    assert keyed.ran() == []


PATHS = (
    "k/accounts", "k/accounts/alice", "k/accounts/alice/terms", "k/accounts/alice/entries",
    "k/accounts/alice/statement", "k/accounts/alice/statement?by=recorded", "k/accounts/alice/days",
    "k/transfers", "k/transfers/t0", "k/holds", "k/trial-balance",
    "k/trial-balance?at_time=2027-01-01", "k/trial-balance?at_effective_time=2027-01-01",
    "k/turnover",
)  # fmt: skip


@pytest.mark.parametrize("path", PATHS)
async def test_a_tenant_reads_its_own_rows_and_every_statement_names_it(
    keyed: Keyed, path: str
) -> None:
    path, _, query = path.partition("?")
    asked = dict([query.split("=")]) if query else {}
    own = await keyed.sql(0, path, asked)
    ran = keyed.ran()
    foreign = await keyed.sql(1, path, asked)
    assert (own.status, foreign.status) == (200, 200)
    if path != "k/holds":
        assert own.body != foreign.body
        assert "acme" not in json.dumps(foreign.body)
    tables_read = [one for one in ran if "ledger_" in one]
    assert tables_read
    for text in tables_read:
        assert text.count('FROM "ledger_') == text.count("\"tenant\" = 'acme'")
        assert "other" not in text


async def test_what_only_another_tenant_has_is_not_there(keyed: Keyed, bench: LedgerBench,
                                                         tables: FileTables) -> None:  # fmt: skip
    bench.run("ledger.open_accounts", {"accounts": [{"id": "own", "asset": "EUR/2"}]},
              tenant="acme", key="b2")  # fmt: skip
    await tables.follow(bench)
    assert (await keyed.sql(0, "b2/accounts/own")).status == 200
    # Also right after it was kept in the caches of the other tenant.
    for path in ("b2/accounts/own", "b2/accounts/own/terms", "b2/trial-balance"):
        assert (await keyed.sql(0, path)).status == 200
        assert (await keyed.sql(1, path)).code == "NOT_FOUND"
    assert (await keyed.sql(1, "b2/accounts")).body["items"] == []


async def test_a_problem_tells_nothing_of_the_database(keyed: Keyed, tables: FileTables) -> None:
    texts = []
    for path, query in (
        ("k/accounts/none", {}),
        ("k/transfers", {"x": "1"}),
        ("k/transfers", {"amount": "x"}),
        ("k/transfers", {"cursor": "x"}),
    ):
        texts.append(json.dumps((await keyed.sql(0, path, query)).body))
    tables.execute("ALTER TABLE ledger_account__v3_b1 RENAME TO gone")
    broken = await keyed.sql(0, "k/accounts")
    assert (broken.status, broken.code) == (500, "INTERNAL")
    texts.append(json.dumps(broken.body))
    for text in texts:
        for word in ("SELECT", "__v1", "sqlite", str(tables.path), "ledger_account"):
            assert word not in text
