"""Dumps, changes and replays: one content, one sequence of bytes."""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from ultraengine.domains.ledger import image
from ultraengine.domains.ledger.chain import Chain, Reader
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
