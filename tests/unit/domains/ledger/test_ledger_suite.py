"""The ledger passes the contract of domains."""

from typing import Any

from hypothesis import strategies as st

from ultraengine.testing.domain_suite import DomainSuite
from ultraengine.testing.rehearsal import ScriptCommand, command

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


MADE = [move("t1", 0), move("t2", None)]
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
