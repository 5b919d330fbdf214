"""Result codes of holds, reversals and closings, and the boundary on both sides of them."""

from typing import Any

import pytest

SECOND = 1_000_000


# --- holds ---------------------------------------------------------------------------------


def hold(bench: Any, timeout: int = 10, amount: int = 100) -> int:
    """Open a hold "h" and return the instant at which it is over."""
    assert bench.move("h", "alice", "bob", amount, pending_timeout_s=timeout) == "pending"
    return int(bench.time) + timeout * SECOND


def test_a_hold_is_posted_whole_or_in_part_or_released(books: Any) -> None:
    hold(books)
    account = books.get("accounts/{id}", id="alice")
    assert (account.balance, account.pending_out, account.available) == ("1000", "100", "900")
    assert books.get("accounts/{id}", id="bob").pending_in == "100"
    assert books.one("post_transfers", id="h", amount="60") == "posted"
    account = books.get("accounts/{id}", id="alice")
    assert (account.balance, account.pending_out, account.available) == ("940", "0", "940")
    assert books.balance("bob") == 1_060
    books.move("h2", "alice", "bob", 5, pending_timeout_s=9)
    assert books.one("void_transfers", id="h2") == "voided"
    books.move("h3", "alice", "bob", 5, pending_timeout_s=9)
    assert books.one("post_transfers", id="h3") == "posted"
    assert books.balance("bob") == 1_065
    books.verify()


@pytest.mark.parametrize(
    ("amount", "status"),
    [
        (100, "posted"),
        (101, "exceeds_hold"),
        (0, "amount_not_positive"),
        (-5, "amount_not_positive"),
        (1, "posted"),
    ],
)
def test_a_hold_is_posted_up_to_its_amount(books: Any, amount: int, status: str) -> None:
    hold(books)
    assert books.one("post_transfers", id="h", amount=amount) == status


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize(
    ("first", "then", "status"),
    [
        (("post_transfers", 40), ("post_transfers", 40), "already_posted"),
        (("post_transfers", None), ("post_transfers", 100), "already_posted"),
        (
            ("post_transfers", 40),
            ("post_transfers", None),
            "already_posted_with_different_amount",
        ),
        (("post_transfers", 40), ("void_transfers", None), "already_posted"),
        (("void_transfers", None), ("void_transfers", None), "already_voided"),
        (("void_transfers", None), ("post_transfers", None), "already_voided"),
    ],
)
def test_a_hold_resolves_once(
    books: Any, first: tuple[str, Any], then: tuple[str, Any], status: str, together: bool
) -> None:
    hold(books)
    items = [
        {"id": "h"} if amount is None else {"id": "h", "amount": amount}
        for _, amount in (first, then)
    ]
    if together and first[0] == then[0]:
        found = books.statuses(first[0], {"transfers": items})
        assert found[1] == status
    else:
        books.do(first[0], {"transfers": items[:1]})
        assert books.statuses(then[0], {"transfers": items[1:]}) == [status]
    books.verify()


def test_only_holds_can_be_resolved(books: Any) -> None:
    for name in ("post_transfers", "void_transfers"):
        assert books.one(name, id="nothing") == "transfer_not_found"
        assert books.one(name, id="fund-bob") == "transfer_not_pending"


@pytest.mark.parametrize("name", ["post_transfers", "void_transfers"])
@pytest.mark.parametrize("ticked", [False, True])
def test_a_hold_is_over_at_its_very_instant(books: Any, name: str, ticked: bool) -> None:
    end = hold(books)
    if ticked:
        assert books.tick(end - 1) == 0
        assert books.tick(end) == 1
        assert books.get("accounts/{id}", id="alice").pending_out == "0"
    assert books.one(name, id="h", at=end) == "hold_expired"
    assert books.get("transfers/{id}", id="h").status == ("expired" if ticked else "pending")
    books.verify()


@pytest.mark.parametrize("name", ["post_transfers", "void_transfers"])
def test_a_hold_can_be_resolved_until_just_before_its_end(books: Any, name: str) -> None:
    end = hold(books)
    assert books.one(name, id="h", at=end - 1) in {"posted", "voided"}
    assert books.tick(end) == 0


def test_a_hold_without_an_end_never_expires(books: Any) -> None:
    hold(books, timeout=0)
    assert books.executor.next_due() is None
    assert books.tick(books.time + 10**15) == 0
    assert books.one("post_transfers", id="h") == "posted"


# --- reversals -----------------------------------------------------------------------------


def test_a_transfer_is_reversed_once(books: Any) -> None:
    books.move("t", "alice", "bob", 10, code=7)
    assert books.one("reverse_transfers", id="r", reverses="t") == "reversed"
    assert (books.balance("alice"), books.balance("bob")) == (1_000, 1_000)
    assert books.one("reverse_transfers", id="r", reverses="t") == "exists"
    assert books.one("reverse_transfers", id="r2", reverses="t") == "already_reversed"
    assert books.one("reverse_transfers", id="r3", reverses="r") == "transfer_is_reversal"
    assert books.one("reverse_transfers", id="r4", reverses="none") == "transfer_not_found"
    assert books.one("reverse_transfers", id="t", reverses="fund-bob") == "exists_as_transfer"
    assert books.move("r", "alice", "bob", 10) == "exists_as_reversal"
    view = books.get("transfers/{id}", id="t")
    assert (view.status, view.reversed_by, view.posted_amount) == ("reversed", "r", "10")
    view = books.get("transfers/{id}", id="r")
    assert (view.status, view.reverses, view.source, view.target) == ("posted", "t", "bob", "alice")
    books.verify()


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"reverses": "fund-bob"}, "exists_with_different_reverses"),
        ({"effective_time": "2026-02-01T00:00:00Z"}, "exists_with_different_effective_time"),
        ({"code": 8}, "exists_with_different_code"),
        ({"reference": "x"}, "exists_with_different_reference"),
    ],
)
def test_a_reversal_that_exists_says_how_it_differs(
    books: Any, change: dict[str, Any], status: str
) -> None:
    books.move("t", "alice", "bob", 10)
    item = {"id": "r", "reverses": "t"}
    books.do("reverse_transfers", {"transfers": [item]})
    assert books.one("reverse_transfers", **(item | change)) == status


def test_a_reversal_in_the_same_command_is_once_too(books: Any) -> None:
    books.move("t", "alice", "bob", 10)
    data = {"transfers": [{"id": "r1", "reverses": "t"}, {"id": "r2", "reverses": "t"}]}
    assert books.statuses("reverse_transfers", data) == ["reversed", "already_reversed"]


def test_a_reversal_keeps_every_rule(books: Any) -> None:
    books.open("small", max_balance=10)
    books.move("t", "alice", "bob", 10)
    books.move("away", "bob", "bank", 1_010)
    assert books.one("reverse_transfers", id="r", reverses="t") == "exceeds_balance"
    books.do("close_accounts", {"accounts": [{"id": "bob"}]})
    assert books.one("reverse_transfers", id="r", reverses="t") == "account_closed"
    books.move("s1", "alice", "small", 10)
    books.move("s2", "small", "alice", 10)
    books.move("s3", "alice", "small", 1)
    assert books.one("reverse_transfers", id="r", reverses="s2") == "exceeds_max_balance"


@pytest.mark.parametrize("resolve", ["", "void_transfers", "post_transfers", "tick"])
def test_a_hold_is_reversed_only_once_it_is_posted(books: Any, resolve: str) -> None:
    end = hold(books)
    if resolve == "tick":
        books.tick(end)
    elif resolve:
        books.one(resolve, id="h", **({"amount": 30} if resolve == "post_transfers" else {}))
    status = books.one("reverse_transfers", id="r", reverses="h")
    assert status == ("reversed" if resolve == "post_transfers" else "transfer_not_posted")
    assert books.balance("alice") == 1_000
    books.verify()


# --- closing -------------------------------------------------------------------------------


def test_an_account_closes_when_it_is_empty(books: Any) -> None:
    def close(name: str = "alice") -> str:
        status: str = books.statuses("close_accounts", {"accounts": [{"id": name}]})[0]
        return status

    def reopen(name: str = "alice") -> str:
        status: str = books.statuses("reopen_accounts", {"accounts": [{"id": name}]})[0]
        return status

    assert close("nobody") == reopen("nobody") == "account_not_found"
    assert close() == "balance_not_zero"
    assert reopen() == "already_open"
    books.move("h", "alice", "bob", 1, pending_timeout_s=0)
    books.move("all", "alice", "bank", 999)
    books.one("post_transfers", id="h")
    books.move("h2", "bank", "alice", 1, pending_timeout_s=0)
    assert close() == "holds_open"
    books.one("void_transfers", id="h2")
    assert close() == "closed"
    assert close() == "already_closed"
    assert books.get("accounts/{id}", id="alice").closed
    assert books.move("t", "bank", "alice", 1) == "account_closed"
    assert reopen() == "reopened"
    assert books.move("t", "bank", "alice", 1) == "posted"
    assert not books.get("accounts/{id}", id="alice").closed
    books.verify()
    assert books.replayed().dump() == books.dump()
