"""Every result code, and the boundary on both sides of it."""

from pathlib import Path
from typing import Any

import pytest

from ultraengine.domains.ledger.codes import BY_CODE, RESULT_CODES, codes_markdown
from ultraengine.model.outcome import Status

SIZE_END = 10**38
DOCUMENT = Path(__file__).parents[4] / "docs" / "ledger.md"


def test_the_document_holds_the_table_of_the_code() -> None:
    assert codes_markdown() in DOCUMENT.read_text(encoding="utf-8")


def test_no_code_is_listed_twice() -> None:
    assert len(BY_CODE) == len(RESULT_CODES)


# --- opening -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({}, "exists"),
        ({"min_balance": "-5"}, "exists_with_different_min_balance"),
        ({"min_balance": None}, "exists_with_different_min_balance"),
        ({"max_balance": 11}, "exists_with_different_max_balance"),
        ({"max_balance": None}, "exists_with_different_max_balance"),
        ({"asset": "EUR/2"}, "exists_with_different_asset"),
        ({"asset": "USD/3"}, "exists_with_different_asset"),
        ({"metadata": {"a": "2"}}, "exists_with_different_metadata"),
        ({"metadata": {}}, "exists_with_different_metadata"),
    ],
)
def test_an_account_that_exists_says_how_it_differs(
    bench: Any, change: dict[str, Any], status: str
) -> None:
    item = {"id": "a", "asset": "USD/2", "max_balance": "10", "metadata": {"a": "1"}}
    assert bench.statuses("open_accounts", {"accounts": [item]}) == ["opened"]
    assert bench.statuses("open_accounts", {"accounts": [item | change]}) == [status]


@pytest.mark.parametrize(
    ("limits", "status"),
    [
        ({"min_balance": 1}, "limits_exclude_zero"),
        ({"max_balance": -1}, "limits_exclude_zero"),
        ({"min_balance": 0, "max_balance": 0}, "opened"),
        ({"min_balance": str(1 - SIZE_END), "max_balance": str(SIZE_END - 1)}, "opened"),
    ],
)
def test_an_account_opens_at_zero_within_its_limits(
    bench: Any, limits: dict[str, Any], status: str
) -> None:
    data = {"accounts": [{"id": "a", "asset": "USD/2", **limits}]}
    assert bench.statuses("open_accounts", data) == [status]


def test_a_second_opening_in_one_command_sees_the_first(bench: Any) -> None:
    item = {"id": "a", "asset": "USD/2"}
    data = {"accounts": [item, item, item | {"asset": "EUR/2"}]}
    assert bench.statuses("open_accounts", data) == [
        "opened",
        "exists",
        "exists_with_different_asset",
    ]


# --- transfers -----------------------------------------------------------------------------

FULL = {
    "id": "t",
    "from": "alice",
    "to": "bob",
    "amount": 10,
    "effective_time": "2026-01-01T00:00:00Z",
    "code": "fee",
    "reference": "ref-1",
}


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({}, "exists"),
        ({"amount": "10"}, "exists"),
        ({"effective_time": "2026-01-01T01:00:00+01:00"}, "exists"),
        ({"from": "bank"}, "exists_with_different_from"),
        ({"to": "bank"}, "exists_with_different_to"),
        ({"amount": 11}, "exists_with_different_amount"),
        ({"amount": 0}, "exists_with_different_amount"),
        ({"pending_timeout_s": 0}, "exists_with_different_pending_timeout_s"),
        ({"effective_time": None}, "exists_with_different_effective_time"),
        ({"code": None}, "exists_with_different_code"),
        ({"code": 7}, "exists_with_different_code"),
        ({"reference": "ref-2"}, "exists_with_different_reference"),
    ],
)
@pytest.mark.parametrize("together", [False, True])
def test_a_transfer_that_exists_says_how_it_differs(
    books: Any, change: dict[str, Any], status: str, together: bool
) -> None:
    again = FULL | change
    if together:
        found = books.statuses("create_transfers", {"transfers": [FULL, again]})
        assert found == ["posted", status]
    else:
        assert books.statuses("create_transfers", {"transfers": [FULL]}) == ["posted"]
        assert books.statuses("create_transfers", {"transfers": [again]}) == [status]
    assert books.balance("bob") == 1_010


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({}, "exists"),
        ({"pending_timeout_s": 61}, "exists_with_different_pending_timeout_s"),
        ({"pending_timeout_s": None}, "exists_with_different_pending_timeout_s"),
        ({"amount": 9}, "exists_with_different_amount"),
    ],
)
@pytest.mark.parametrize("resolved", [False, True])
def test_a_hold_that_exists_says_how_it_differs(
    books: Any, change: dict[str, Any], status: str, resolved: bool
) -> None:
    hold = {"id": "h", "from": "alice", "to": "bob", "amount": 10, "pending_timeout_s": 60}
    assert books.statuses("create_transfers", {"transfers": [hold]}) == ["pending"]
    if resolved:
        assert books.one("post_transfers", id="h", amount=4) == "posted"
    assert books.statuses("create_transfers", {"transfers": [hold | change]}) == [status]


@pytest.mark.parametrize(
    ("item", "status"),
    [
        ({"amount": 0}, "amount_not_positive"),
        ({"amount": -1}, "amount_not_positive"),
        ({"amount": str(-(10**30))}, "amount_not_positive"),
        ({"to": "alice"}, "accounts_are_same"),
        ({"from": "nobody"}, "account_not_found"),
        ({"to": "nobody"}, "account_not_found"),
        ({"from": "nobody", "to": "nobody"}, "accounts_are_same"),
        ({"to": "euros"}, "different_assets"),
        ({"to": "closed"}, "account_closed"),
        ({"from": "closed"}, "account_closed"),
        ({"amount": 1_000}, "posted"),
        ({"amount": 1_001}, "exceeds_balance"),
        ({"to": "small", "amount": 100}, "posted"),
        ({"to": "small", "amount": 101}, "exceeds_max_balance"),
    ],
)
@pytest.mark.parametrize("pending", [False, True])
def test_each_rule_of_a_transfer_has_its_code(
    books: Any, item: dict[str, Any], status: str, pending: bool
) -> None:
    books.open("small", max_balance=100)
    books.open("closed")
    books.do("close_accounts", {"accounts": [{"id": "closed"}]})
    books.do("open_accounts", {"accounts": [{"id": "euros", "asset": "EUR/2"}]})
    full = {"id": "t", "from": "alice", "to": "bob", "amount": 1} | item
    if pending:
        full["pending_timeout_s"] = 5
        status = "pending" if status == "posted" else status
    executed = books.do("create_transfers", {"transfers": [full]})
    assert executed.result.transfers[0].status == status
    if status in {"posted", "pending"}:
        assert executed.outcome.status == Status.ACCEPTED
    else:
        assert executed.outcome.status == Status.REJECTED
        assert executed.outcome.failure.code == status
        assert executed.outcome.failure.pointer == "/data/transfers/0"
        assert executed.outcome.failure.detail
    books.verify()


def test_balances_stay_below_ten_to_the_38(bench: Any) -> None:
    bench.open("a", "b", "c", min_balance=None)
    top = SIZE_END - 1
    assert bench.move("t1", "a", "b", str(top)) == "posted"
    assert bench.balance("a") == -top
    assert bench.balance("b") == top
    assert bench.move("t2", "a", "c", 1) == "overflows_balance"
    assert bench.move("t3", "c", "b", 1) == "overflows_balance"
    assert bench.move("t4", "b", "a", str(top)) == "posted"
    assert bench.balance("a") == bench.balance("b") == 0
    bench.verify()


@pytest.mark.parametrize("amount", [2**62 - 1, 2**62, 2**63 - 1, 2**63, 2**64, 10**30])
def test_amounts_around_a_machine_word_are_exact(bench: Any, amount: int) -> None:
    bench.open("a", "b", min_balance=None)
    assert bench.move("t1", "a", "b", str(amount)) == "posted"
    assert bench.move("t2", "a", "b", 7) == "posted"
    assert bench.move("t3", "b", "a", str(amount)) == "posted"
    assert (bench.balance("a"), bench.balance("b")) == (-7, 7)
    assert [entry.balance for entry in bench.get("accounts/{id}/entries", id="b").entries] == [
        "7",
        str(amount + 7),
        str(amount),
    ]
    assert bench.replayed().dump() == bench.dump()


def test_small_steps_over_the_edge_of_a_machine_word_are_exact(bench: Any) -> None:
    bench.open("a", "b", min_balance=None)
    step = 2**61
    for count in range(1, 9):
        assert bench.move(f"t{count}", "a", "b", step) == "posted"
        assert bench.balance("b") == count * step
        assert bench.balance("a") == -count * step
    for count in range(8):
        assert bench.move(f"u{count}", "b", "a", step) == "posted"
    assert bench.balance("b") == 0
    bench.verify()


def test_one_side_alone_may_cross_the_edge_of_a_machine_word(bench: Any) -> None:
    others = [f"o{number}" for number in range(10)]
    bench.open("payer", "payee", *others, min_balance=None)
    step = 2**61
    for count, other in enumerate(others, 1):
        assert bench.move(f"p{other}", "payer", other, step) == "posted"
        assert bench.balance("payer") == -count * step
    for count, other in enumerate(others, 1):
        assert bench.move(f"q{other}", other, "payee", step) == "posted"
        assert bench.balance("payee") == count * step
    bench.verify()


def test_what_is_held_counts_as_spent_and_as_received(books: Any) -> None:
    books.open("small", max_balance=100)
    assert books.move("h", "alice", "small", 60, pending_timeout_s=0) == "pending"
    assert books.move("t1", "alice", "bob", 941) == "exceeds_balance"
    assert books.move("t2", "bob", "small", 41) == "exceeds_max_balance"
    assert books.move("t3", "bob", "small", 40) == "posted"
    assert books.move("t4", "alice", "bob", 940) == "posted"
    assert books.get("accounts/{id}", id="alice").available == "0"
    assert books.move("t5", "small", "bob", 41) == "exceeds_balance"
    assert books.move("t6", "small", "bob", 40) == "posted"
    books.verify()


def test_a_failed_id_stays_free(books: Any) -> None:
    assert books.move("t", "alice", "bob", 5_000) == "exceeds_balance"
    assert books.move("t", "alice", "bob", 5) == "posted"


def test_an_id_is_unique_per_book_alone(bench: Any) -> None:
    for key in ("k", "other"):
        bench.open("a", "b", key=key, min_balance=None)
        assert bench.move("t", "a", "b", 5, key=key) == "posted"


# --- chains --------------------------------------------------------------------------------


def chain(*items: tuple[str, str, str, int, bool]) -> dict[str, Any]:
    return {
        "transfers": [
            {"id": name, "from": source, "to": target, "amount": amount, "linked": linked}
            for name, source, target, amount, linked in items
        ]
    }


def test_a_chain_fails_whole_and_names_the_cause(books: Any) -> None:
    data = chain(
        ("t1", "alice", "bob", 10, False),
        ("t2", "alice", "bob", 10, True),
        ("t3", "alice", "bob", 2_000, True),
        ("t4", "alice", "bob", 10, False),
        ("t5", "alice", "bob", 10, False),
    )
    executed = books.do("create_transfers", data)
    assert [item.status for item in executed.result.transfers] == [
        "posted",
        "linked_event_failed",
        "exceeds_balance",
        "linked_event_failed",
        "posted",
    ]
    assert executed.outcome.failure.code == "exceeds_balance"
    assert executed.outcome.failure.pointer == "/data/transfers/2"
    assert books.balance("bob") == 1_020
    books.verify()


def test_a_chain_sees_its_own_effects(books: Any) -> None:
    data = chain(("t1", "bob", "alice", 1_000, True), ("t2", "alice", "bank", 2_000, False))
    assert books.statuses("create_transfers", data) == ["posted", "posted"]
    assert books.balance("alice") == 0
    books.verify()


def test_a_chain_may_not_use_one_id_twice(books: Any) -> None:
    data = chain(("t", "alice", "bob", 1, True), ("t", "alice", "bob", 1, False))
    assert books.statuses("create_transfers", data) == ["linked_event_failed", "exists"]
    assert books.balance("bob") == 1_000


@pytest.mark.parametrize("length", [1, 3])
def test_a_chain_left_open_fails(books: Any, length: int) -> None:
    data = chain(*((f"t{n}", "alice", "bob", 1, True) for n in range(length)))
    failure = books.rejected("create_transfers", data)
    assert failure.code == "linked_event_chain_open"
    assert failure.pointer == f"/data/transfers/{length - 1}"
    assert books.statuses("create_transfers", data) == ["linked_event_failed"] * (length - 1) + [
        "linked_event_chain_open"
    ]


@pytest.mark.parametrize(
    ("name", "members"),
    [
        ("open_accounts", {"asset": "USD/2"}),
        ("post_transfers", {}),
        ("void_transfers", {}),
        ("reverse_transfers", {"reverses": "fund-bob"}),
        ("close_accounts", {}),
        ("reopen_accounts", {}),
    ],
)
def test_every_command_knows_open_chains(books: Any, name: str, members: dict[str, Any]) -> None:
    items = "accounts" if "accounts" in name else "transfers"
    data = {items: [{"id": "x", "linked": True, **members}]}
    assert books.rejected(name, data).code == "linked_event_chain_open"


def test_chains_of_every_command_are_whole(books: Any) -> None:
    for name in ("h1", "h2", "h3"):
        books.move(name, "alice", "bob", 10, pending_timeout_s=0)
    whole = {"transfers": [{"id": "h1", "linked": True}, {"id": "h2", "amount": 11}]}
    assert books.statuses("post_transfers", whole) == ["linked_event_failed", "exceeds_hold"]
    whole["transfers"][1]["amount"] = 10
    assert books.statuses("post_transfers", whole) == ["posted", "posted"]
    twice = {"transfers": [{"id": "h3", "linked": True}, {"id": "h3"}]}
    assert books.statuses("void_transfers", twice) == ["linked_event_failed", "already_voided"]
    accounts = {
        "accounts": [
            {"id": "c1", "asset": "USD/2", "linked": True},
            {"id": "c2", "asset": "USD/2", "min_balance": 1},
        ]
    }
    assert books.statuses("open_accounts", accounts) == [
        "linked_event_failed",
        "limits_exclude_zero",
    ]
    accounts["accounts"][1]["min_balance"] = 0
    assert books.statuses("open_accounts", accounts) == ["opened", "opened"]
    books.verify()
    assert books.replayed().dump() == books.dump()


# --- whole commands ------------------------------------------------------------------------


def test_a_command_is_accepted_when_anything_was_posted(books: Any) -> None:
    item = {"from": "alice", "to": "bob"}
    bad, good = {"id": "t1", "amount": 5_000, **item}, {"id": "t2", "amount": 5, **item}
    executed = books.do("create_transfers", {"transfers": [bad, good]})
    assert executed.outcome.status == Status.ACCEPTED
    assert executed.outcome.failure.code == "exceeds_balance"
    again = books.do("create_transfers", {"transfers": [good, bad]})
    assert again.outcome.status == Status.REJECTED
    assert again.outcome.failure.code == "exists"
    assert again.outcome.version == executed.outcome.version


def test_if_versions_guards_the_whole_command(books: Any) -> None:
    item = {"id": "t", "from": "alice", "to": "bob", "amount": 1}
    data: dict[str, Any] = {"transfers": [item], "if_versions": {"alice": 1, "bob": 2}}
    failure = books.rejected("create_transfers", data)
    assert failure.code == "VERSION_MISMATCH"
    assert failure.pointer == "/data/if_versions/alice"
    data["if_versions"] = {"alice": 2, "bob": 2, "nobody": 0}
    assert books.statuses("create_transfers", data) == ["posted"]
    failure = books.rejected("create_transfers", {**data, "if_versions": {"nobody": 1}})
    assert failure.code == "VERSION_MISMATCH"


@pytest.mark.parametrize(
    ("name", "data", "statuses"),
    [
        ("open_accounts", {"accounts": [{"id": "n", "asset": "USD/2"}] * 2}, ["opened", "exists"]),
        (
            "create_transfers",
            chain(
                ("t1", "alice", "bob", 600, False),
                ("t2", "alice", "bob", 600, False),
                ("t3", "alice", "bob", 200, True),
                ("t4", "alice", "bob", 200, False),
                ("t1", "alice", "bob", 600, False),
            ),
            ["posted", "exceeds_balance", "posted", "posted", "exists"],
        ),
        ("post_transfers", {"transfers": [{"id": "h"}, {"id": "h"}]}, ["posted", "already_posted"]),
        ("void_transfers", {"transfers": [{"id": "h"}, {"id": "h"}]}, ["voided", "already_voided"]),
        (
            "reverse_transfers",
            {
                "transfers": [
                    {"id": "r", "reverses": "fund-alice"},
                    {"id": "q", "reverses": "fund-alice"},
                ]
            },
            ["reversed", "already_reversed"],
        ),
        ("close_accounts", {"accounts": [{"id": "empty"}] * 2}, ["closed", "already_closed"]),
        ("reopen_accounts", {"accounts": [{"id": "shut"}] * 2}, ["reopened", "already_open"]),
    ],
)
def test_a_dry_run_answers_like_the_real_one_and_changes_nothing(
    books: Any, name: str, data: dict[str, Any], statuses: list[str]
) -> None:
    books.open("empty", "shut")
    books.do("close_accounts", {"accounts": [{"id": "shut"}]})
    books.move("h", "bob", "alice", 10, pending_timeout_s=60)
    before = books.dump()
    assert books.statuses(name, {**data, "dry_run": True}) == statuses
    assert books.dump() == before
    assert bytes(books.log[-1][1].events) == b"\x90"
    assert books.statuses(name, data) == statuses
    assert books.dump() != before
    books.verify()
    assert books.replayed().dump() == books.dump()


def test_a_dry_run_of_a_first_opening_leaves_no_book(bench: Any) -> None:
    data = {"accounts": [{"id": "a", "asset": "USD/2"}], "dry_run": True}
    assert bench.statuses("open_accounts", data) == ["opened"]
    assert bench.slot().books == {}
