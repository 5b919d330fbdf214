"""Damage, stale decisions and disagreement: what must be noticed, and by whom."""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from ultraengine.domains.ledger.check import check_history
from ultraengine.domains.ledger.commands import Transfer, Voiding
from ultraengine.domains.ledger.events import Transferred
from ultraengine.domains.ledger.evolve import evolve
from ultraengine.domains.ledger.holds import decide_voiding
from ultraengine.domains.ledger.overlay import overlay
from ultraengine.domains.ledger.transfers import decide_transfer
from ultraengine.model.errors import InvariantBroken


def damage(record: Any, **changes: Any) -> Any:
    return msgspec.structs.replace(record, **changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"source_balance": 1},
        {"target_balance": 1},
        {"source_version": 9},
        {"target_version": 9},
        {"source_previous": 1},
        {"target_previous": 1},
        {"source": "nobody"},
        {"target": "nobody"},
        {"amount": 7},
    ],
)
def test_a_transfer_that_reaches_other_values_stops_the_shard(
    books: Any, changes: dict[str, Any]
) -> None:
    books.move("t", "alice", "bob", 10)
    twin = books.replayed()
    books.move("u", "alice", "bob", 10)
    offset = books.executor.applied_end - 1
    (event,) = books.history.read("ledger", offset)
    state = twin.executor.slot_state("ledger", "t", "k")
    book = state.books["t", "k"]
    place = At(offset)
    with pytest.raises(InvariantBroken, match="reach the values"):
        twin.registry.domains[0].evolve(book, damage(event, **changes), place)
    twin.registry.domains[0].evolve(book, event, place)
    assert list(twin.registry.domains[0].dump(state)) == list(
        books.registry.domains[0].dump(books.slot())
    )


class At:
    """An event's place."""

    def __init__(self, offset: int, index: int = 0) -> None:
        self.offset, self.index, self.time, self.tenant, self.key = offset, index, 0, "t", "k"


def test_other_events_that_reach_other_values_stop_the_shard(books: Any) -> None:
    books.move("h", "alice", "bob", 10, pending_timeout_s=0)
    domain, book = books.registry.domains[0], books.slot().books["t", "k"]
    offset = books.executor.applied_end
    (held,) = books.history.read("ledger", offset - 1)
    (opened, _) = books.history.read("ledger", 1)
    with pytest.raises(InvariantBroken, match="opens once"):
        domain.evolve(book, damage(opened, number=3), At(offset))
    with pytest.raises(InvariantBroken, match="numbered in order"):
        domain.evolve(book, opened, At(offset))
    with pytest.raises(InvariantBroken, match="reaches the values"):
        domain.evolve(book, held, At(offset))
    with pytest.raises(InvariantBroken, match="account exists"):
        domain.evolve(book, damage(held, source=damage(held.source, account="x")), At(offset))
    books.one("void_transfers", id="h")
    (voided,) = books.history.read("ledger", offset)
    with pytest.raises(InvariantBroken, match="resolves at most once"):
        domain.evolve(book, voided, At(offset + 1))
    books.move("i", "alice", "bob", 10, pending_timeout_s=0)
    with pytest.raises(InvariantBroken, match="resolves at most once"):
        domain.evolve(book, damage(voided, id="i"), At(offset + 2))


def test_the_doctor_names_what_memory_says_otherwise(books: Any) -> None:
    books.move("h", "alice", "bob", 10, pending_timeout_s=5)
    domain, slot = books.registry.domains[0], books.slot()
    book = slot.books["t", "k"]
    alice, bob = book.accounts["alice"], book.accounts["bob"]
    assert domain.check(slot) == []

    def broken(change: Callable[[], None], undo: Callable[[], None]) -> str:
        change()
        sentences = " / ".join(domain.check(slot))
        undo()
        assert domain.check(slot) == []
        return sentences

    def change(thing: Any, name: str, value: Any) -> str:
        before = getattr(thing, name)
        return broken(lambda: setattr(thing, name, value), lambda: setattr(thing, name, before))

    assert "USD/2: debits 2000, credits 2001" in change(alice, "balance", 1_001)
    assert "may fall to -10, below 0" in change(alice, "balance", 0)
    assert "may rise to 1010, above 1000" in change(bob, "max_balance", 1_000)
    assert "held on the paying side 9" in change(alice, "pending_out", 9)
    assert "counts 9 out and 0 in as held; its holds say 10" in change(alice, "pending_out", 9)
    assert "holds less than nothing" in change(alice, "pending_out", -1)
    assert "closed and not empty" in change(alice, "closed", True)
    assert "not numbered without gaps" in change(alice, "number", 7)
    hold = book.holds["h"]
    assert "listed as open with amount 0" in change(hold, "amount", 0)
    sentence = change(hold, "open", False)
    assert "0 timers run for 1 holds" in sentence
    assert "first timer is a resolved hold's" in sentence


def test_the_doctor_names_what_history_says_otherwise(books: Any) -> None:
    books.move("t", "alice", "bob", 10)
    books.move("u", "alice", "bob", 10)
    slot, history = books.slot(), books.history_view()
    book = slot.books["t", "k"]
    alice = book.accounts["alice"]

    def found() -> str:
        return " / ".join(check_history(slot, history))

    assert found() == ""
    alice.balance += 1
    assert "last change reached (980, 0, 0, 4), memory has (981, 0, 0, 4)" in found()
    alice.balance -= 1
    alice.closed = True
    assert "closed is True, the last change is a Transferred" in found()
    alice.closed = False
    offset = books.executor.applied_end - 2
    (event,) = books.history.read("ledger", offset)

    def rewrite(**changes: Any) -> None:
        changed = [msgspec.structs.replace(event, **changes)]
        books.history.append(offset, "ledger", msgspec.msgpack.encode(changed))

    rewrite(source_balance=991)
    assert "version 3 moved the balance by -9, its event says -10" in found()
    rewrite(source_version=5)
    assert "numbered without gaps" in found()
    rewrite(source="bank")
    assert "leads to an event of its account" in found()
    rewrite(book=1)
    assert "leads to an event of its account" in found()
    rewrite()
    assert found() == ""
    assert list(check_history(slot, history, changes_max=1)) == []
    book.highest = "s"
    assert "transfer u is above s, the highest known" in found()
    book.highest = "u"
    alice.head += 5
    assert "linked event is in the history" in found()


def test_an_index_that_leads_nowhere_stops_the_shard(books: Any) -> None:
    book = books.slot().books["t", "k"]
    executed = books.executor.applied_end
    book.add(book.hash_of("a"), ((executed - 1) << 16 | 9) << 1)
    failing = books.run(
        "ledger.create_transfers",
        {"transfers": [{"id": "a", "from": "alice", "to": "bob", "amount": 1}]},
    )
    assert isinstance(failing.error, InvariantBroken)
    assert books.balance("alice") == 1_000


def rewrite(bench: Any, offset: int, *events: Any) -> None:
    """Make the history say something else about a command."""
    bench.history.append(offset, "ledger", msgspec.msgpack.encode(events))


@pytest.mark.parametrize("offset", [0, 3])
def test_a_chain_that_leads_into_another_account_is_noticed(books: Any, offset: int) -> None:
    books.do("close_accounts", {"accounts": [{"id": "nobody"}]})
    (bank,) = books.history.read("ledger", 0)
    (funded,) = books.history.read("ledger", 2)
    assert funded.source_previous == 0
    if offset:
        held = books.executor.applied_end
        books.move("h", "alice", "bob", 1, pending_timeout_s=0)
        (hold,) = books.history.read("ledger", held)
        other = damage(hold.source, account="x")
        rewrite(books, 0, damage(hold, source=other, target=damage(other, account="y")))
    else:
        rewrite(books, 0, damage(bank, id="somebody"))
    found = list(check_history(books.slot(), books.history_view()))
    assert [sentence.partition(":")[0] for sentence in found] == ["book t/k, account bank"]
    assert "leads to an event of its account" in found[0]


def test_a_late_chain_that_leads_to_what_was_not_late_is_noticed(books: Any) -> None:
    books.move("t", "bank", "alice", 1, effective_time="2001-01-01")
    offset = books.executor.applied_end - 1
    assert books.balance("alice", at_effective_time="2001-01-01") == 1
    (late,) = books.history.read("ledger", offset)
    rewrite(books, offset, damage(late, target=damage(late.target, late=None)))
    with pytest.raises(InvariantBroken, match="late postings are linked"):
        books.balance("alice", at_effective_time="2001-01-01")


def test_a_posted_hold_without_its_hold_is_noticed(books: Any) -> None:
    opened = books.executor.applied_end
    books.move("h", "alice", "bob", 10, pending_timeout_s=0)
    books.one("post_transfers", id="h")
    (hold,) = books.history.read("ledger", opened)
    (funded,) = books.history.read("ledger", 2)
    rewrite(books, opened, funded)
    with pytest.raises(InvariantBroken, match="posted hold was opened"):
        books.get("accounts/{id}/entries", id="alice", limit=1)
    rewrite(books, opened, hold)
    assert books.get("accounts/{id}/entries", id="alice", limit=1).entries[0].kind == "hold"


def failing(bench: Any, name: str, **item: Any) -> str:
    """What a command over one transfer raised inside; it must change nothing."""
    before = list(bench.registry.domains[0].dump(bench.slot()))
    verdict = bench.run(f"ledger.{name}", {"transfers": [item]})
    assert isinstance(verdict.error, InvariantBroken)
    assert list(bench.registry.domains[0].dump(bench.slot())) == before
    return str(verdict.error)


def test_an_index_and_a_history_that_disagree_are_noticed(books: Any) -> None:
    opened = books.executor.applied_end
    books.move("h", "alice", "bob", 10, pending_timeout_s=0)
    books.one("void_transfers", id="h")
    (hold,) = books.history.read("ledger", opened)
    (voided,) = books.history.read("ledger", opened + 1)
    rewrite(books, opened, voided)
    assert "indexed event created a transfer" in failing(books, "void_transfers", id="h")
    rewrite(books, opened, hold)
    rewrite(books, opened + 1, damage(voided, id="g"))
    assert "hold is open or resolved" in failing(books, "void_transfers", id="h")


def test_accounts_that_memory_has_lost_are_noticed(books: Any) -> None:
    books.move("t", "alice", "bob", 10)
    books.move("h", "alice", "bob", 10, pending_timeout_s=0)
    book = books.slot().books["t", "k"]
    alice = book.accounts.pop("alice")
    item = {"id": "r", "reverses": "t"}
    assert "accounts of a transfer exist" in failing(books, "reverse_transfers", **item)
    assert "accounts of a hold exist" in failing(books, "void_transfers", id="h")
    book.accounts["alice"] = alice
    assert books.one("void_transfers", id="h") == "voided"


def test_a_hold_that_was_posted_and_reversed_stays_posted(books: Any) -> None:
    books.move("h", "alice", "bob", 10, pending_timeout_s=9)
    books.one("post_transfers", id="h", amount=4)
    books.one("reverse_transfers", id="r", reverses="h")
    assert books.one("post_transfers", id="h", amount=4) == "already_posted"
    assert books.one("reverse_transfers", id="r2", reverses="h") == "already_reversed"
    view = books.get("transfers/{id}", id="h")
    assert (view.status, view.posted_amount, view.reversed_by) == ("reversed", "4", "r")


def test_what_was_decided_before_another_event_is_compared_again(books: Any) -> None:
    book = books.slot().books["t", "k"]
    place: Any = At(books.executor.applied_end)
    place.history, place.time = books.history_view(), books.time
    item = Transfer(id="t", source="alice", target="bob", amount=5)
    first = decide_transfer(book, item, place)
    assert isinstance(first, Transferred)
    evolve(book, first, place)
    with pytest.raises(InvariantBroken, match="reach the values"):
        evolve(book, first, At(place.offset, 1))  # type: ignore[arg-type]
    second = decide_transfer(book, Transfer(id="u", source="alice", target="bob", amount=5), place)
    hold = Transfer(id="v", source="alice", target="bob", amount=5, pending_timeout_s=1)
    held = decide_transfer(book, hold, place)
    evolve(book, held, At(place.offset, 1))  # type: ignore[arg-type]
    with pytest.raises(InvariantBroken, match="reach the values"):
        evolve(book, second, At(place.offset, 2))  # type: ignore[arg-type]


def test_chains_may_use_the_holds_and_accounts_that_they_make(books: Any) -> None:
    dry = {
        "transfers": [
            {"id": "h", "from": "alice", "to": "bob", "amount": 5, "pending_timeout_s": 1, **tied}
            for tied in ({"linked": True}, {})
        ]
    }
    assert books.statuses("create_transfers", dry) == ["linked_event_failed", "exists"]
    accounts = {"accounts": [{"id": n, "asset": "USD/2", "linked": n != "q"} for n in "pq"]}
    assert books.statuses("open_accounts", accounts) == ["opened", "opened"]
    shut = {"accounts": [{"id": "p", "linked": True}, {"id": "p"}]}
    assert books.statuses("close_accounts", shut) == ["linked_event_failed", "already_closed"]
    books.verify()


def test_a_view_of_a_book_can_make_and_resolve_a_hold_without_it(books: Any) -> None:
    before = books.dump()
    book = books.slot().books["t", "k"]
    view = overlay(book)
    place: Any = At(books.executor.applied_end)
    place.history = books.history_view()
    item = Transfer(id="h", source="alice", target="bob", amount=5, pending_timeout_s=1)
    evolve(view, decide_transfer(view, item, place), place)  # type: ignore[arg-type]
    assert view.hold("h") is not None
    assert book.hold("h") is None
    evolve(view, decide_voiding(view, Voiding(id="h"), place), place)  # type: ignore[arg-type]
    assert view.hold("h") is None
    assert books.dump() == before
    assert books.one("void_transfers", id="h") == "transfer_not_found"


@pytest.mark.parametrize("dry_run", [False, True])
def test_ids_inside_and_after_a_chain_are_compared_exactly(books: Any, dry_run: bool) -> None:
    books.move("old", "bank", "alice", 7)

    def item(name: str, amount: int, linked: bool = False) -> dict[str, Any]:
        return {"id": name, "from": "bank", "to": "bob", "amount": amount, "linked": linked}

    items = [
        item("x1", 1),
        item("c1", 2, linked=True),
        item("c2", 3),
        item("c1", 2),
        item("c2", 4),
        item("x1", 9),
        item("d1", 5, linked=True),
        item("c2", 3),
        item("e1", 6, linked=True),
        item("old", 7),
        item("x2", 8),
        item("x2", 8),
    ]
    found = books.statuses("create_transfers", {"transfers": items, "dry_run": dry_run})
    assert found == [
        *("posted", "posted", "posted"),
        *("exists", "exists_with_different_amount", "exists_with_different_amount"),
        *("linked_event_failed", "exists"),
        *("linked_event_failed", "exists_with_different_to"),
        *("posted", "exists"),
    ]
    assert books.balance("bob") == (1_000 if dry_run else 1_014)
    books.verify()


def test_the_newest_of_two_entries_comes_first_in_a_view(books: Any) -> None:
    book = books.slot().books["t", "k"]
    view = overlay(book)
    identity = book.hash_of("fund-bob")
    below = book.candidates(identity)
    view.add(identity, below[0] + 10)
    view.add(identity, below[0] + 20)
    assert view.candidates(identity) == (below[0] + 20, below[0] + 10, *below)
    assert book.candidates(identity) == below
