"""Dumps, changes and replays: one content, one sequence of bytes."""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from ultraengine.domains.ledger import image
from ultraengine.domains.ledger.chain import Chain, Reader
from ultraengine.domains.ledger.check import check_history
from ultraengine.domains.ledger.commands import Transfer, Voiding
from ultraengine.domains.ledger.events import Transferred
from ultraengine.domains.ledger.evolve import evolve
from ultraengine.domains.ledger.holds import decide_voiding
from ultraengine.domains.ledger.overlay import overlay
from ultraengine.domains.ledger.transfers import decide_transfer
from ultraengine.model.errors import InvariantBroken
from ultraengine.model.ids import slot_of

SECOND = 1_000_000


def loaded(domain: Any, *parts: list[bytes]) -> Any:
    state = domain.new_state()
    for part in parts:
        for chunk in part:
            domain.load(state, chunk, domain.schema)
    return state


def everything(bench: Any) -> None:
    bench.open("bank", min_balance=None, metadata={"a": "b"})
    bench.open("alice", "bob", max_balance=str(10**30))
    bench.move("big", "bank", "alice", str(10**25))
    bench.move("t", "alice", "bob", 10, effective_time="2001-01-01")
    bench.move("h1", "alice", "bob", 10, pending_timeout_s=5)
    bench.move("h2", "alice", "bob", 10, pending_timeout_s=0)
    bench.move("h3", "alice", "bob", 10, pending_timeout_s=9)
    bench.one("post_transfers", id="h1", amount=3)
    bench.one("reverse_transfers", id="r", reverses="t")
    bench.open("shut")
    bench.do("close_accounts", {"accounts": [{"id": "shut"}]})


def test_a_dump_loads_to_an_equal_state(bench: Any) -> None:
    everything(bench)
    domain, slot = bench.registry.domains[0], bench.slot()
    chunks = list(domain.dump(slot))
    state = loaded(domain, chunks)
    assert list(domain.dump(state)) == chunks
    assert list(domain.changes(state)) == []
    assert domain.due(state) == domain.due(slot)
    assert domain.check(state) == []
    assert domain.expire(state, bench.time + 9 * SECOND, 10) == domain.expire(
        slot, bench.time + 9 * SECOND, 10
    )


def test_changes_on_top_of_a_dump_are_a_dump_now(bench: Any) -> None:
    domain = bench.registry.domains[0]
    everything(bench)
    slot = bench.slot()
    parts = [list(domain.dump(slot))]
    domain.mark(slot)
    assert list(domain.changes(slot)) == []
    bench.move("h4", "alice", "bob", 1, pending_timeout_s=50)
    bench.move("h5", "alice", "bob", 1, pending_timeout_s=50)
    bench.one("void_transfers", id="h4")
    bench.one("post_transfers", id="h2")
    bench.open("new")
    parts.append(list(domain.changes(slot)))
    domain.mark(slot)
    bench.one("void_transfers", id="h5")
    bench.do("reopen_accounts", {"accounts": [{"id": "shut"}]})
    bench.open("x", key="k")
    parts.append(list(domain.changes(slot)))
    assert list(domain.dump(loaded(domain, *parts))) == list(domain.dump(slot))


def test_an_unchanged_account_is_not_among_the_changes(books: Any) -> None:
    domain, slot = books.registry.domains[0], books.slot()
    domain.mark(slot)
    books.move("t", "bank", "alice", 1)
    books.move("u", "bank", "alice", 1)
    (chunk,) = domain.changes(slot)
    assert [row[2] for row in msgspec.msgpack.decode(chunk)[1]] == ["bank", "alice"]


def test_books_of_one_slot_are_kept_apart(make_bench: Callable[[], Any]) -> None:
    wanted = slot_of("t", "k")
    other = next(f"n{n}" for n in range(100_000) if slot_of("t", f"n{n}") == wanted)
    bench = make_bench()
    for key in ("k", other):
        bench.open("a", "b", key=key, min_balance=None)
    assert bench.move("t", "a", "b", 5, key=other) == "posted"
    assert bench.one("reverse_transfers", id="r", reverses="t") == "transfer_not_found"
    assert bench.move("t", "a", "b", 6) == "posted"
    domain, slot = bench.registry.domains[0], bench.slot()
    # Even under one hash, an event belongs to the book that it names.
    first, second = slot.books["t", "k"], slot.books["t", other]
    first.seed = second.seed
    bench.move("early", "a", "b", 7, key=other)
    assert bench.move("early", "a", "b", 8) == "posted"
    assert bench.get("transfers/{id}", id="early").amount == "8"
    assert bench.get("transfers/{id}", key=other, id="early").amount == "7"
    assert bench.get("accounts/{id}", key=other, id="a").balance == "-12"
    for key in (other, "k"):
        bench.move("ahold", "a", "b", 3, key=key, pending_timeout_s=0)
    item = {"transfers": [{"id": "ahold", "amount": 2}]}
    assert bench.statuses("post_transfers", item, key=other) == ["posted"]
    reversal = {"transfers": [{"id": "areversal", "reverses": "early"}]}
    assert bench.statuses("reverse_transfers", reversal, key=other) == ["reversed"]
    assert bench.one("reverse_transfers", id="areversal", reverses="early") == "reversed"
    assert bench.one("void_transfers", id="ahold") == "voided"
    assert bench.one("post_transfers", id="ahold") == "already_voided"
    assert bench.statuses("post_transfers", item, key=other) == ["already_posted"]
    assert bench.get("transfers/{id}", id="ahold").status == "voided"
    bench.verify()
    state = loaded(domain, list(domain.dump(slot)))
    assert sorted(state.books) == sorted([("t", "k"), ("t", other)])


def test_asking_for_a_book_leaves_nothing(bench: Any) -> None:
    domain = bench.registry.domains[0]
    state = domain.new_state()
    assert domain.focus(state, "t", "k") is domain.focus(state, "t", "k")
    assert domain.focus(state, "t", "k") is not domain.focus(state, "t", "j")
    assert list(domain.dump(state)) == []
    assert domain.due(state) is None
    assert domain.expire(state, 10**18, 5) == []


def test_a_snapshot_of_a_later_schema_is_refused(bench: Any) -> None:
    everything(bench)
    domain = bench.registry.domains[0]
    (chunk,) = domain.dump(bench.slot())
    with pytest.raises(InvariantBroken, match="schema"):
        domain.load(domain.new_state(), chunk, image.SCHEMA + 1)


@pytest.mark.parametrize(
    "chunk",
    [
        [[[1, "t", "k", ""]], [], [], [], []],
        [
            [[0, "t", "k", ""]],
            [[0, 1, "a", "USD/2", 0, 0, 0, 0, None, False, None, 1, 0, [], 0, None]],
            [],
            [],
            [],
        ],
    ],
)
def test_chunks_out_of_order_are_refused(bench: Any, chunk: Any) -> None:
    domain = bench.registry.domains[0]
    with pytest.raises(InvariantBroken, match="in order"):
        domain.load(domain.new_state(), msgspec.msgpack.encode(chunk), domain.schema)


def test_many_accounts_make_chunks_of_bounded_size(bench: Any) -> None:
    for first in range(0, 3_000, 1_000):
        accounts = [
            {"id": f"a{n}", "asset": "USD/2", "metadata": {"note": "x" * 500}}
            for n in range(first, first + 1_000)
        ]
        bench.do("open_accounts", {"accounts": accounts})
    domain, slot = bench.registry.domains[0], bench.slot()
    chunks = list(domain.dump(slot))
    assert len(chunks) > 1
    assert max(map(len, chunks)) <= 1 << 20
    assert list(domain.dump(loaded(domain, chunks))) == chunks


@pytest.mark.parametrize("count_max", [1, 7, 500])
def test_holds_expire_in_due_order_within_the_count(bench: Any, count_max: int) -> None:
    bench.open("bank", "shop", "other", min_balance=None)
    timeouts = [(number * 37) % 50 + 1 for number in range(200)]
    items = [
        {
            "id": f"h{number}",
            "from": "bank",
            "to": "shop" if number % 2 else "other",
            "amount": number + 1,
            "pending_timeout_s": timeout,
        }
        for number, timeout in enumerate(timeouts)
    ]
    bench.do("create_transfers", {"transfers": items})
    now = bench.time + 25 * SECOND
    due = sorted((timeout, number) for number, timeout in enumerate(timeouts) if timeout <= 25)
    domain, slot = bench.registry.domains[0], bench.slot()
    before = list(domain.dump(slot))
    events = domain.expire(slot, now, count_max)
    assert [event.id for _, _, event in events] == [f"h{n}" for _, n in due[:count_max]]
    assert list(domain.dump(slot)) == before
    ticks = 0
    while bench.tick(now, count_max):
        ticks += 1
        bench.verify()
    assert ticks == -(-len(due) // count_max)
    assert len(bench.get("holds", limit=1_000).holds) == 200 - len(due)
    assert bench.replayed().dump() == bench.dump()
    assert bench.executor.next_due() is not None


def test_timers_of_resolved_holds_do_not_pile_up(bench: Any) -> None:
    bench.open("bank", "shop", min_balance=None)
    bench.move("first", "bank", "shop", 1, pending_timeout_s=1_000_000)
    for number in range(500):
        bench.move(f"h{number}", "bank", "shop", 1, pending_timeout_s=2_000_000)
        bench.one("void_transfers", id=f"h{number}")
    slot = bench.slot()
    assert len(slot.timers) < 150
    assert len(slot.books["t", "k"].roll) < 150
    assert bench.executor.next_due() is not None
    bench.one("void_transfers", id="first")
    assert slot.timers == []
    assert bench.executor.next_due() is None
    bench.verify()


# --- what must be noticed ------------------------------------------------------------------


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


def test_many_expiries_of_one_account_in_one_tick_are_linked(bench: Any) -> None:
    bench.open("bank", "shop", min_balance=None)
    items = [
        {"id": f"h{n:03}", "from": "bank", "to": "shop", "amount": 1, "pending_timeout_s": 1}
        for n in range(500)
    ]
    bench.do("create_transfers", {"transfers": items})
    made = bench.executor.applied_end - 1
    assert bench.tick(bench.time + SECOND, 500) == 500
    bench.move("t", "bank", "shop", 1)
    head = bench.slot().books["t", "k"].accounts["shop"].head
    chain = Chain(Reader(bench.history_view()), 0, "shop")
    for version in (1_002, 1_001, 1_000, 897, 896, 895, 769, 768, 767, 641, 640, 502, 501, 500, 1):
        steps: list[int] = []

        def asked(step: Any, version: int = version, steps: list[int] = steps) -> bool:
            steps.append(step.link.version)
            return bool(step.link.version <= version)

        found = chain.last(head, asked)
        assert found is not None
        assert found.link.version == version
        assert len(steps) < 2 * 127 + 10
    assert bench.get("accounts/{id}", id="shop", at_offset=made).pending_in == "500"
    assert bench.replayed().dump() == bench.dump()
    bench.verify()


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


def test_expiry_passes_over_holds_resolved_deep_in_the_heap(books: Any) -> None:
    ends = []
    for number in range(7):
        books.move(f"h{number}", "alice", "bob", 1, pending_timeout_s=10 + number)
        ends.append(books.time + (10 + number) * SECOND)
    for number in (1, 3, 5):
        books.one("void_transfers", id=f"h{number}")
    assert len(books.slot().timers) == 7
    events = books.registry.domains[0].expire(books.slot(), ends[-1], 10)
    assert [event.id for _, _, event in events] == ["h0", "h2", "h4", "h6"]
    assert books.tick(ends[-1]) == 4
    books.verify()


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


def test_a_loaded_book_goes_on_by_the_same_rules(make_bench: Callable[[], Any]) -> None:
    bench = make_bench()
    everything(bench)
    bench.open("held", "huge", min_balance=None)
    bench.move("zfund", "bank", "held", 10)
    bench.open("strict")
    bench.move("zhold", "held", "huge", 10, pending_timeout_s=0)
    other = make_bench()
    state = other.executor.state(slot_of("t", "k"), 0)
    for chunk in list(bench.registry.domains[0].dump(bench.slot())):
        other.registry.domains[0].load(state, chunk, image.SCHEMA)
    other.history.payloads.update(bench.history.payloads)
    other.executor.applied_end, other.time = bench.executor.applied_end, bench.time
    items = [
        {"id": "zz1", "from": "bank", "to": "shut", "amount": 1},
        {"id": "zz0", "from": "held", "to": "shut", "amount": 1},
        {"id": "zz2", "from": "strict", "to": "bank", "amount": 1},
        {"id": "zz3", "from": "bank", "to": "alice", "amount": str(10**30)},
        {"id": "zz4", "from": "held", "to": "huge", "amount": 5},
        {"id": "zz5", "from": "bank", "to": "held", "amount": 5},
        {"id": "zz6", "from": "alice", "to": "bank", "amount": 5},
        {"id": "t", "from": "bank", "to": "held", "amount": 5},
    ]
    for each in (bench, other):
        assert each.statuses("create_transfers", {"transfers": items}) == [
            "account_closed",
            "account_closed",
            "exceeds_balance",
            "exceeds_max_balance",
            "posted",
            "posted",
            "posted",
            "exists_with_different_from",
        ]
        each.verify()
    assert other.dump()[slot_of("t", "k"), "ledger"] == bench.dump()[slot_of("t", "k"), "ledger"]


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
