"""Reads, now and as of any point, against sums over what was done."""

from random import Random
from typing import Any

import msgspec
import pytest

from ultraengine.domains.ledger import chain, read_accounts, read_entries
from ultraengine.domains.ledger.chain import Chain, Reader
from ultraengine.model.errors import EngineError, InvariantBroken, Malformed
from ultraengine.model.ids import Instant
from ultraengine.model.instant import format_instant

SECOND = 1_000_000
DAY = 86_400 * SECOND


def text(instant: int) -> str:
    return format_instant(Instant(instant))


class Told:
    """What was told to the ledger about one account, in order."""

    def __init__(self) -> None:
        self.rows: list[tuple[int, int, int, int]] = []
        """(offset, logged time, effective time, amount)."""

    def balance(self, *, offset: int = 10**9, time: int = 10**18, effective: int = 10**18) -> int:
        return sum(
            row[3]
            for row in self.rows
            if row[0] <= offset and row[1] <= time and row[2] <= effective
        )


def live(bench: Any, count: int, *, lateness: float, seed: int = 5) -> Told:
    """`count` transfers between bank and shop, in commands of up to 3, some of them late.

    Each account also deals with an own one, so that their lives differ.
    """
    rng = Random(seed)
    bench.open("bank", "shop", "banker", "keeper", min_balance=None)
    told = Told()
    done = 0
    while done < count:
        items = []
        rows = []
        offset, time = bench.executor.applied_end, bench.time + 1
        for _ in range(min(rng.randint(1, 3), count - done)):
            inward = rng.random() < 0.7
            item: dict[str, Any] = {
                "id": f"t{done}",
                "from": "bank" if inward else "shop",
                "to": "shop" if inward else "bank",
                "amount": rng.randint(1, 100),
            }
            effective = time
            if rng.random() < lateness:
                effective = time - rng.randint(0, 40)
                item["effective_time"] = text(effective)
            rows.append((offset, time, effective, item["amount"] if inward else -item["amount"]))
            items.append(item)
            done += 1
        assert set(bench.statuses("create_transfers", {"transfers": items})) == {"posted"}
        assert bench.time == time
        told.rows += rows
        if rng.random() < 0.2:
            moment = text(bench.time + rng.randint(-30, 30))
            bench.move(f"bank{done}", "bank", "banker", 1, effective_time=moment)
    return told


@pytest.mark.parametrize("lateness", [0.0, 0.1, 1.0])
def test_balances_as_of_any_point_are_sums_up_to_it(bench: Any, lateness: float) -> None:
    told = live(bench, 300, lateness=lateness)
    for offset, time, effective, _ in told.rows[::7]:
        assert bench.balance("shop", at_offset=offset) == told.balance(offset=offset)
        assert bench.balance("shop", at_time=text(time)) == told.balance(time=time)
        for moment in (effective - 1, effective, effective + 1):
            assert bench.balance("shop", at_effective_time=text(moment)) == told.balance(
                effective=moment
            )
    assert bench.balance("shop") == told.balance()
    assert bench.balance("shop", at_effective_time="0001-01-01") == 0
    bench.verify()


@pytest.mark.parametrize("lateness", [0.0, 0.3])
def test_lives_of_different_length_and_lateness_do_not_mix(bench: Any, lateness: float) -> None:
    rng = Random(11)
    names = ["a", "b", "c"]
    bench.open(*names, min_balance=None)
    told = {name: Told() for name in names}
    for number in range(900):
        source, target = rng.sample(names, 2) if number % 3 else ("a", "b")
        amount, time = rng.randint(1, 9), bench.time + 1
        effective = time - (rng.randint(0, 50) if rng.random() < lateness else 0)
        offset = bench.executor.applied_end
        told[source].rows.append((offset, time, effective, -amount))
        told[target].rows.append((offset, time, effective, amount))
        bench.move(f"t{number:03}", source, target, amount, effective_time=text(effective))
    for name in names:
        for offset, time, effective, _ in told[name].rows[::40]:
            assert bench.balance(name, at_offset=offset) == told[name].balance(offset=offset)
            assert bench.balance(name, at_time=text(time)) == told[name].balance(time=time)
            wanted = told[name].balance(effective=effective)
            assert bench.balance(name, at_effective_time=text(effective)) == wanted
    bench.verify()


@pytest.mark.parametrize("late", ["from", "to"])
def test_a_posting_may_be_late_for_one_side_alone(bench: Any, late: str) -> None:
    bench.open("a", "b", "c", min_balance=None)
    other = {"from": "c", "to": "c", late: "a"}
    assert bench.move("t1", other["from"], other["to"], 1, effective_time=1_000) == "posted"
    sides = {"from": "b", "to": "b", late: "a"}
    assert bench.move("t2", sides["from"], sides["to"], 5, effective_time=500) == "posted"
    sign = -1 if late == "from" else 1
    for moment, a, b in ((499, 0, 0), (500, 5, 5), (999, 5, 5), (1_000, 6, 5)):
        then = text(moment)
        assert bench.balance("a", at_effective_time=then) == sign * a
        assert bench.balance("b", at_effective_time=then) == -sign * b


@pytest.mark.parametrize("account_id", ["bank", "shop"])
def test_a_long_history_is_searched_in_few_steps(bench: Any, account_id: str) -> None:
    bench.open("bank", "shop", "other", min_balance=None)
    bench.move("first", "bank", "other", 1)
    count = 130 * 128
    for first in range(0, count, 832):
        items = [
            {"id": f"t{n:06}", "from": "bank", "to": "shop", "amount": 1}
            for n in range(first, first + 832)
        ]
        bench.do("create_transfers", {"transfers": items})
    head = bench.slot().books["t", "k"].accounts[account_id].head
    for wanted in (1, 2, 127, 128, 129, 16_383, 16_384, 16_385, count, count + 1):
        steps = 0

        def asked(step: Any, wanted: int = wanted) -> bool:
            nonlocal steps
            steps += 1
            return bool(step.link.version <= wanted)

        found = Chain(Reader(bench.history_view()), 0, account_id).last(head, asked)
        assert found is not None
        assert found.link.version == wanted
        assert steps <= 2 * 254 + 130
    bench.verify()


def test_an_account_is_seen_as_it_was(books: Any) -> None:
    opened = books.time
    books.move("h", "alice", "bob", 100, pending_timeout_s=5)
    held = books.executor.applied_end - 1
    books.one("post_transfers", id="h", amount=40)
    books.move("all", "alice", "bank", 960)
    books.do("close_accounts", {"accounts": [{"id": "alice"}]})
    closed = books.executor.applied_end - 1
    books.do("reopen_accounts", {"accounts": [{"id": "alice"}]})
    then = books.get("accounts/{id}", id="alice", at_offset=held)
    assert (then.balance, then.pending_out, then.available) == ("1000", "100", "900")
    assert (then.closed, then.version) == (False, 3)
    assert books.get("accounts/{id}", id="bob", at_offset=held).pending_in == "100"
    then = books.get("accounts/{id}", id="alice", at_offset=closed)
    assert (then.balance, then.closed, then.version) == ("0", True, 6)
    now = books.get("accounts/{id}", id="alice")
    assert (now.closed, now.version) == (False, 7)
    spec = books.reads["{key}/accounts/{id}"]
    assert spec.etag(now) == "7"
    effective = books.get("accounts/{id}", id="alice", at_effective_time=text(opened))
    assert (effective.balance, effective.pending_out, effective.available) == ("1000", None, None)
    with pytest.raises(EngineError, match="did not exist") as caught:
        books.get("accounts/{id}", id="alice", at_offset=0)
    assert caught.value.code == "NOT_FOUND"
    with pytest.raises(EngineError, match="did not exist"):
        books.get("accounts/{id}", id="alice", at_time="2001-01-01")
    assert books.get("accounts/{id}", id="bank").available is None


@pytest.mark.parametrize(
    ("path", "params", "code"),
    [
        ("accounts/{id}", {"id": "x"}, "NOT_FOUND"),
        ("accounts/{id}/entries", {"id": "x"}, "NOT_FOUND"),
        ("accounts/{id}/statement", {"id": "x"}, "NOT_FOUND"),
        ("transfers/{id}", {"id": "x"}, "NOT_FOUND"),
        ("accounts/{id}", {"id": "alice", "at_time": "x"}, "MALFORMED"),
        ("accounts/{id}", {"id": "alice", "at_time": "2026-01-01", "at_offset": 1}, "MALFORMED"),
        ("trial-balance", {"at_effective_time": "x"}, "MALFORMED"),
        ("accounts/{id}/entries", {"id": "alice", "at_effective_time": "2026-01-01"}, "MALFORMED"),
        ("accounts/{id}/statement", {"id": "alice", "from": "x"}, "MALFORMED"),
        (
            "accounts/{id}/statement",
            {"id": "alice", "from": "2026-01-02", "to": "2026-01-01"},
            "MALFORMED",
        ),
    ],
)
def test_reads_of_nothing_say_so(books: Any, path: str, params: dict[str, Any], code: str) -> None:
    with pytest.raises(EngineError) as caught:
        books.get(path, **params)
    assert caught.value.code == code


@pytest.mark.parametrize("path", ["accounts", "holds", "trial-balance", "transfers/{id}"])
def test_an_unknown_book_is_not_found_and_not_made(books: Any, path: str) -> None:
    params = {"id": "x"} if "{id}" in path else {}
    with pytest.raises(EngineError) as caught:
        books.get(path, key="unknown", **params)
    assert caught.value.code == "NOT_FOUND"
    assert ("t", "unknown") not in books.slot("unknown").books


def test_accounts_are_paged_in_the_order_of_their_opening(bench: Any) -> None:
    names = [f"a{n}" for n in (3, 1, 2, 5, 4)]
    bench.open(*names)
    seen = []
    cursor: dict[str, Any] = {}
    for size in (2, 2, 1):
        page = bench.get("accounts", limit=2, **cursor)
        assert len(page.accounts) == size
        seen += [account.id for account in page.accounts]
        cursor = {"cursor": page.next_cursor}
    assert seen == names
    assert page.next_cursor is None
    assert bench.get("accounts", cursor=99).accounts == []


@pytest.mark.parametrize("limit", [1, 7, 1_000])
def test_entries_page_back_to_the_opening(bench: Any, limit: int) -> None:
    told = live(bench, 150, lateness=0.2)
    bench.move("h1", "bank", "shop", 5, pending_timeout_s=0, code=9, reference="ref")
    bench.move("h2", "bank", "shop", 5, pending_timeout_s=0)
    bench.one("void_transfers", id="h2")
    bench.one("post_transfers", id="h1", amount=3)
    bench.one("reverse_transfers", id="r", reverses="h1")
    entries: list[Any] = []
    cursor: dict[str, Any] = {}
    while True:
        page = bench.get("accounts/{id}/entries", id="shop", limit=limit, **cursor)
        entries += page.entries
        if page.next_cursor is None:
            break
        assert len(page.entries) == limit
        cursor = {"cursor": page.next_cursor}
    entries.reverse()
    amounts = [row[3] for row in told.rows] + [3, -3]
    assert [int(entry.amount) for entry in entries] == amounts
    running = 0
    for entry in entries:
        running += int(entry.amount)
        assert int(entry.balance) == running
        assert entry.counterparty == "bank"
    hold, reversal = entries[-2:]
    assert (hold.kind, hold.transfer, hold.code, hold.reference) == ("hold", "h1", 9, "ref")
    assert (reversal.kind, reversal.reverses, reversal.transfer) == ("reversal", "h1", "r")
    offset = told.rows[40][0]
    then = bench.get("accounts/{id}/entries", id="shop", at_offset=offset, limit=1_000)
    assert len(then.entries) == sum(row[0] <= offset for row in told.rows)
    assert bench.get("accounts/{id}/entries", id="shop", at_offset=0).entries == []
    assert bench.get("accounts/{id}/entries", id="shop", cursor=0).entries == []


@pytest.mark.parametrize("by", ["effective", "recorded"])
@pytest.mark.parametrize("lateness", [0.0, 0.3])
def test_statements_open_and_close_with_the_sums_around_them(
    bench: Any, by: str, lateness: float
) -> None:
    told = live(bench, 200, lateness=lateness)
    column = 2 if by == "effective" else 1
    moments = sorted(row[column] for row in told.rows)
    for low, high in ((0, -1), (10, 100), (50, 51), (120, 120), (-1, -1)):
        start, end = moments[low], moments[high] + 1
        view = bench.get(
            "accounts/{id}/statement", id="shop", by=by, **{"from": text(start), "to": text(end)}
        )
        inside = [row for row in told.rows if start <= row[column] < end]
        inside.sort(key=lambda row: row[column])
        assert int(view.opening_balance) == sum(r[3] for r in told.rows if r[column] < start)
        assert [int(entry.amount) for entry in view.entries] == [row[3] for row in inside]
        running = int(view.opening_balance)
        for entry in view.entries:
            running += int(entry.amount)
            assert int(entry.balance) == running
        assert int(view.closing_balance) == running
        assert (view.start, view.end) == (text(start), text(end))
    whole = bench.get("accounts/{id}/statement", id="shop", by=by)
    assert (whole.opening_balance, len(whole.entries)) == ("0", 200)
    assert int(whole.closing_balance) == bench.balance("shop")
    early = bench.get("accounts/{id}/statement", id="shop", by=by, to="2001-01-01")
    assert (early.opening_balance, early.entries, early.closing_balance) == ("0", [], "0")


@pytest.mark.parametrize("by", ["effective", "recorded"])
def test_a_statement_that_is_too_long_is_refused(
    bench: Any, by: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(read_entries, "STATEMENT_ENTRIES_MAX", 50)
    live(bench, 50, lateness=0.0)
    assert len(bench.get("accounts/{id}/statement", id="shop", by=by).entries) == 50
    bench.move("one-more", "bank", "shop", 1)
    with pytest.raises(EngineError) as caught:
        bench.get("accounts/{id}/statement", id="shop", by=by)
    assert caught.value.code == "TOO_LARGE"


def test_a_statement_of_late_postings_that_is_too_long_is_refused(
    bench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(read_entries, "STATEMENT_ENTRIES_MAX", 5)
    bench.open("bank", "shop", min_balance=None)
    for number in range(8):
        moment = text(bench.time - number * DAY)
        bench.move(f"t{number}", "bank", "shop", 1, effective_time=moment)
    with pytest.raises(EngineError) as caught:
        bench.get("accounts/{id}/statement", id="shop")
    assert caught.value.code == "TOO_LARGE"


def test_reads_by_business_time_follow_late_postings_up_to_a_bound(
    bench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.open("bank", "shop", min_balance=None)
    for number in range(8):
        moment = text(bench.time - number * DAY)
        bench.move(f"t{number}", "bank", "shop", 1, effective_time=moment)
    monkeypatch.setattr(chain, "LATE_STEPS_MAX", 7)
    assert bench.balance("shop", at_effective_time="2001-01-01") == 0
    monkeypatch.setattr(chain, "LATE_STEPS_MAX", 6)
    with pytest.raises(EngineError) as caught:
        bench.balance("shop", at_effective_time="2001-01-01")
    assert caught.value.code == "TOO_LARGE"


def test_a_transfer_tells_what_became_of_it(books: Any) -> None:
    early = text(books.time - DAY)
    books.move("t", "alice", "bob", 10, effective_time=early, code=3, reference="r")
    view = books.get("transfers/{id}", id="t")
    assert (view.status, view.amount, view.posted_amount) == ("posted", "10", "10")
    assert (view.effective_time, view.code, view.reference) == (early, 3, "r")
    assert (view.source, view.target, view.pending_timeout_s) == ("alice", "bob", None)
    assert view.offset == books.executor.applied_end - 1
    assert view.time == text(books.time)
    books.move("h", "alice", "bob", 10, pending_timeout_s=5, effective_time=early)
    end = books.time + 5 * SECOND
    view = books.get("transfers/{id}", id="h")
    assert (view.status, view.posted_amount, view.expires_at) == ("pending", "0", text(end))
    later = text(books.time - 1)
    books.one("post_transfers", id="h", amount=4, effective_time=later)
    view = books.get("transfers/{id}", id="h")
    assert (view.status, view.amount, view.posted_amount) == ("posted", "10", "4")
    assert (view.effective_time, view.resolved_time) == (later, text(books.time))
    assert books.get("accounts/{id}/entries", id="bob").entries[0].effective_time == later


def test_a_posted_hold_takes_its_own_business_time_unless_told(books: Any) -> None:
    early = text(books.time - DAY)
    books.move("h", "alice", "bob", 10, pending_timeout_s=5, effective_time=early)
    books.one("post_transfers", id="h")
    assert books.get("accounts/{id}/entries", id="bob").entries[0].effective_time == early
    assert books.balance("bob", at_effective_time=early) == 10
    assert books.balance("bob", at_offset=books.executor.applied_end - 1) == 1_010


def test_holds_are_paged_by_age_while_others_resolve(books: Any) -> None:
    for number in range(200):
        books.move(f"h{number}", "alice", "bob", 1, pending_timeout_s=number % 3)
    assert len(books.get("holds", limit=1_000).holds) == 200
    first = books.get("holds", limit=10)
    assert [hold.id for hold in first.holds] == [f"h{number}" for number in range(10)]
    assert first.holds[0].expires_at is None
    for number in range(170):
        books.one("void_transfers", id=f"h{number}", at=books.time)
    page = books.get("holds", limit=25, cursor=first.next_cursor)
    assert [hold.id for hold in page.holds] == [f"h{number}" for number in range(170, 195)]
    page = books.get("holds", limit=25, cursor=page.next_cursor)
    assert [hold.id for hold in page.holds] == [f"h{number}" for number in range(195, 200)]
    assert page.next_cursor is None
    books.verify()


def test_a_trial_balance_balances_at_every_point(books: Any) -> None:
    data = {"accounts": [{"id": n, "asset": "EUR/2", "min_balance": None} for n in ("e1", "e2")]}
    before = books.executor.applied_end - 1
    books.do("open_accounts", data)
    early = text(books.time - DAY)
    books.move("e", "e1", "e2", 5, effective_time=early)
    books.move("h", "alice", "bob", 50, pending_timeout_s=5)
    now = books.get("trial-balance")
    assert now.balanced
    euro, dollar = now.assets
    assert (euro.asset, euro.accounts, euro.debits, euro.credits) == ("EUR/2", 2, "5", "5")
    assert (dollar.debits, dollar.credits) == ("2000", "2000")
    assert (dollar.pending_debits, dollar.pending_credits) == ("50", "50")
    then = books.get("trial-balance", at_offset=before)
    assert [total.asset for total in then.assets] == ["USD/2"]
    assert then.assets[0].pending_debits == "0"
    business = books.get("trial-balance", at_effective_time=early)
    assert business.balanced
    assert [total.credits for total in business.assets] == ["5", "0"]
    assert business.assets[0].pending_debits is None
    at_end = books.get("trial-balance", at_time=text(books.time))
    assert at_end.assets == now.assets


def test_a_look_back_over_too_many_accounts_is_refused(
    books: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(read_accounts, "AS_OF_ACCOUNTS_MAX", 2)
    with pytest.raises(EngineError) as caught:
        books.get("trial-balance", at_offset=1)
    assert caught.value.code == "TOO_LARGE"
    assert books.get("trial-balance").balanced


def test_a_hash_that_another_id_shares_proves_nothing(books: Any) -> None:
    book = books.slot().books["t", "k"]
    taken = books.slot().index.last >> 1
    book.add(book.hash_of("never-used"), (taken + 1) << 1)
    offset = books.executor.applied_end
    with pytest.raises(InvariantBroken, match="in the history"):
        books.get("transfers/{id}", id="never-used")
    index = (taken + 1) & 0xFFFF
    assert (taken + 1) >> 16 == offset - 1
    stored = books.history.read("ledger", offset - 1)
    books.history.append(offset - 1, "ledger", msgspec.msgpack.encode([*stored, *stored]))
    assert index == len(stored)
    with pytest.raises(EngineError) as caught:
        books.get("transfers/{id}", id="never-used")
    assert caught.value.code == "NOT_FOUND"
    assert books.move("never-used", "alice", "bob", 1) == "posted"
    assert books.get("transfers/{id}", id="never-used").amount == "1"


def test_a_cursor_that_is_no_number_is_refused(books: Any) -> None:
    with pytest.raises(msgspec.ValidationError):
        books.get("accounts", cursor="x")
    with pytest.raises(msgspec.ValidationError):
        books.get("accounts", limit=1_001)
    with pytest.raises(Malformed):
        books.get("accounts/{id}", id="alice", at_time="2026-01-01", at_effective_time="2026-01-01")
