"""The ledger passes the contract of domains."""

import json
from typing import Any

import msgspec
from hypothesis import strategies as st

from ultraengine.domains.ledger.columns import DAY_US
from ultraengine.model.instant import format_instant
from ultraengine.testing.domain_suite import DomainSuite
from ultraengine.testing.projection_tables import MemoryTables
from ultraengine.testing.projections import ProjectionContract
from ultraengine.testing.rehearsal import Rehearsal, ScriptCommand, command

KEYS = st.sampled_from(["a", "b"])
ACCOUNTS = st.sampled_from(["x", "y", "z"])
IDS = st.sampled_from(["t1", "t2", "t3", "t4"])
AMOUNTS = st.integers(-1, 60) | st.sampled_from([2**62, str(10**38 - 1)])
TIMES = st.sampled_from(["2026-01-01T00:00:00Z", "2001-01-01", 5])
COMMON = {"dry_run": st.sampled_from([False, False, False, True])}


def over(
    name: str, items: str, item: st.SearchStrategy[dict[str, Any]]
) -> st.SearchStrategy[ScriptCommand]:
    data = st.fixed_dictionaries(
        {items: st.lists(item, min_size=1, max_size=5)},
        optional={**COMMON, "if_versions": st.dictionaries(ACCOUNTS, st.integers(0, 3))},
    )
    return st.builds(command, st.just(f"ledger.{name}"), data, key=KEYS)


LINKED = {"linked": st.booleans()}
OPENING = st.fixed_dictionaries(
    {"id": ACCOUNTS, "asset": st.sampled_from(["USD/2", "USD/2", "USD/2", "EUR/2"])},
    optional={
        "min_balance": st.sampled_from([None, None, "-100", 0, 1]),
        "max_balance": st.sampled_from([None, 100, "-1"]),
        "metadata": st.dictionaries(st.sampled_from("ab"), st.text(max_size=3), max_size=2),
        **LINKED,
    },
)
TRANSFER = st.fixed_dictionaries(
    {"id": IDS, "from": ACCOUNTS, "to": ACCOUNTS, "amount": AMOUNTS},
    optional={
        "pending_timeout_s": st.integers(0, 3),
        "effective_time": TIMES,
        "code": st.sampled_from([1, "c"]),
        "reference": st.just("r"),
        **LINKED,
    },
)
POSTING = st.fixed_dictionaries(
    {"id": IDS}, optional={"amount": AMOUNTS, "effective_time": TIMES, **LINKED}
)
VOIDING = st.fixed_dictionaries({"id": IDS}, optional=LINKED)
REVERSAL = st.fixed_dictionaries(
    {"id": st.sampled_from(["t1", "r1", "r2"]), "reverses": IDS},
    optional={"effective_time": TIMES, **LINKED},
)
CLOSING = st.fixed_dictionaries({"id": ACCOUNTS}, optional=LINKED)


def just(name: str, items: str, item: st.SearchStrategy[dict[str, Any]]) -> Any:
    data = st.builds(lambda one: {items: [one]}, item)
    return st.builds(command, st.just(f"ledger.{name}"), data, key=KEYS)


def move(id: str, timeout: int | None) -> dict[str, Any]:
    return {"id": id, "from": "x", "to": "y", "amount": 5, "pending_timeout_s": timeout}


MADE = [
    move("t1", 0),
    move("t2", None),
    # Late, and of an account that is below 0.
    {**move("t0", None), "effective_time": "2001-01-01"},
]
ONE = st.fixed_dictionaries({"id": IDS})
LONELY = st.just({"id": "z"})
OPEN = {"accounts": [{"id": name, "asset": "USD/2", "min_balance": None} for name in "xyz"]}


class TestLedgerDomain(DomainSuite):
    domain = "ultraengine.domains.ledger:DOMAIN"
    allow = ("ultraengine.execution.packed",)
    commands = st.one_of(
        just("create_transfers", "transfers", st.builds(move, IDS, st.none())),
        just("create_transfers", "transfers", st.builds(move, IDS, st.sampled_from([0, 1, 5_000]))),
        just("post_transfers", "transfers", ONE),
        just("void_transfers", "transfers", ONE),
        just("void_transfers", "transfers", st.just({"id": "t1"})),
        just("reverse_transfers", "transfers", st.just({"id": "r1", "reverses": "t2"})),
        just("close_accounts", "accounts", LONELY),
        just("reopen_accounts", "accounts", LONELY),
        over("open_accounts", "accounts", OPENING),
        over("create_transfers", "transfers", TRANSFER),
        over("create_transfers", "transfers", TRANSFER),
        over("post_transfers", "transfers", POSTING),
        over("void_transfers", "transfers", VOIDING),
        over("reverse_transfers", "transfers", REVERSAL),
        over("close_accounts", "accounts", CLOSING),
        over("reopen_accounts", "accounts", CLOSING),
    )

    def scripts(self) -> st.SearchStrategy[list[ScriptCommand]]:
        """Most books have accounts, and some of them a life already."""
        first = [command("ledger.open_accounts", OPEN, key=key) for key in "ab"]
        lively = [
            *first,
            *(command("ledger.create_transfers", {"transfers": MADE}, key=key) for key in "ab"),
            *(
                command("ledger.close_accounts", {"accounts": [{"id": "z"}]}, key=key)
                for key in "ab"
            ),
        ]
        begin = st.sampled_from([[], first, lively, lively])
        return st.builds(lambda start, rest: [*start, *rest], begin, super().scripts())


def read(rehearsal: Rehearsal, path: str, key: str, **params: Any) -> Any:
    """One of the ledger's own reads."""
    spec = next(
        spec for spec in rehearsal.registry.domains[0].queries if spec.path == f"{{key}}/{path}"
    )
    typed = msgspec.convert(params, spec.params)
    state = rehearsal.executor.slot_state("ledger", "t", key)
    captured = spec.capture(state, "t", key, typed)
    history = rehearsal.history.view("ledger", lambda: rehearsal.executor.applied_end)
    return captured if spec.render is None else spec.render(captured, typed, history)


def of_book(tables: MemoryTables, table: str, key: str) -> list[dict[str, Any]]:
    names = tables.tables[table].names
    rows = (dict(zip(names, row, strict=True)) for row in tables.rows(table))
    return [row for row in rows if row["book"] == key]


def maybe(number: int | None) -> str | None:
    return None if number is None else str(number)


class TestLedgerTables(ProjectionContract):
    domain = TestLedgerDomain.domain
    commands = TestLedgerDomain.commands

    def scripts(self) -> st.SearchStrategy[list[ScriptCommand]]:
        return TestLedgerDomain().scripts()

    def verify(self, rehearsal: Rehearsal, tables: MemoryTables) -> None:
        """Balances, holds, entries, transfers and trial balances are those of the reads."""
        for key in "ab":
            accounts = of_book(tables, "account", key)
            if not accounts:
                continue
            self.verify_accounts(rehearsal, key, accounts)
            for account in accounts:
                self.verify_entries(rehearsal, key, account, tables)
            self.verify_transfers(rehearsal, key, tables)
            self.verify_totals(rehearsal, key, accounts, tables)

    def verify_accounts(
        self, rehearsal: Rehearsal, key: str, accounts: list[dict[str, Any]]
    ) -> None:
        views = read(rehearsal, "accounts", key).accounts
        found = {
            row["account"]: (
                row["asset"],
                str(row["balance"]),
                str(row["pending_in"]),
                str(row["pending_out"]),
                maybe(row["min_balance"]),
                maybe(row["max_balance"]),
                row["closed"],
                json.loads(row["metadata"]),
                row["version"],
            )
            for row in accounts
        }
        assert found == {
            view.id: (
                view.asset,
                view.balance,
                view.pending_in,
                view.pending_out,
                view.min_balance,
                view.max_balance,
                view.closed,
                view.metadata,
                view.version,
            )
            for view in views
        }

    def verify_entries(
        self, rehearsal: Rehearsal, key: str, account: dict[str, Any], tables: MemoryTables
    ) -> None:
        view = read(rehearsal, "accounts/{id}/entries", key, id=account["account"], limit=1_000)
        rows = [
            row for row in of_book(tables, "entry", key) if row["account"] == account["account"]
        ]
        assert [
            (
                row["transfer"],
                row["version"],
                str(row["amount"]),
                row["counterparty"],
                str(row["balance"]),
                format_instant(row["booked_at"]),
                format_instant(row["effective_at"]),
                row["log_offset"],
            )
            for row in reversed(rows)
        ] == [
            (
                entry.transfer,
                entry.version,
                entry.amount,
                entry.counterparty,
                entry.balance,
                entry.time,
                entry.effective_time,
                entry.offset,
            )
            for entry in view.entries
        ]
        days: dict[int, list[int]] = {}
        for row in rows:
            day = days.setdefault(row["effective_at"] // DAY_US, [0, 0, 0])
            day[row["amount"] < 0] += abs(row["amount"])
            day[2] += 1
        assert days == {
            row["day"]: [row["paid_in"], row["paid_out"], row["entries"]]
            for row in of_book(tables, "daily_balance", key)
            if row["account"] == account["account"]
        }

    def verify_transfers(self, rehearsal: Rehearsal, key: str, tables: MemoryTables) -> None:
        holds = {row["transfer"]: row for row in of_book(tables, "hold", key)}
        rows = of_book(tables, "transfer", key)
        assert holds.keys() == {row["transfer"] for row in rows if row["status"] == "pending"}
        reversed_by = {row["reverses"]: row["transfer"] for row in rows}
        for row in rows:
            view = read(rehearsal, "transfers/{id}", key, id=row["transfer"])
            code = None if view.code is None else str(view.code)
            assert (
                row["source"], row["target"], str(row["amount"]), row["code"], row["reference"],
                row["reverses"], reversed_by.get(row["transfer"]), row["hold_timeout_s"],
            ) == (
                view.source, view.target, view.amount, code, view.reference,
                view.reverses, view.reversed_by, view.pending_timeout_s,
            )  # fmt: skip
            status = "posted" if view.status == "reversed" else view.status
            if row["status"] == "pending":
                hold = holds[row["transfer"]]
                ends = [
                    None if time is None else format_instant(time)
                    for time in (hold["expires_at"], hold["resolved_at"])
                ]
                assert (hold["status"], str(hold["posted_amount"]), *ends) == (
                    status,
                    view.posted_amount,
                    view.expires_at,
                    view.resolved_time,
                )
            else:
                assert status == "posted"
                assert row["status"] == ("posted" if view.reverses is None else "reversal")
        pending = [hold for hold in holds.values() if hold["status"] == "pending"]
        open_holds = read(rehearsal, "holds", key, limit=1_000).holds
        assert sorted(hold["transfer"] for hold in pending) == sorted(
            view.id for view in open_holds
        )

    def verify_totals(
        self, rehearsal: Rehearsal, key: str, accounts: list[dict[str, Any]], tables: MemoryTables
    ) -> None:
        totals = {
            view.asset: (view.accounts, int(view.credits), int(view.debits))
            for view in read(rehearsal, "trial-balance", key).assets
        }
        found: dict[str, list[int]] = {}
        for row in accounts:
            total = found.setdefault(row["asset"], [0, 0, 0])
            total[0] += 1
            total[1] += max(row["balance"], 0)
            total[2] += max(-row["balance"], 0)
        assert {asset: tuple(total) for asset, total in found.items()} == totals
