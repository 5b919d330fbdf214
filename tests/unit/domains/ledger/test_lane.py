"""The compiled ways of `create_transfers` say and do what the plain functions do.

That whole scripts end the same is the contract suite's; here are the edges that it rarely meets.
"""

from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ultraengine.domains.ledger import Ledger
from ultraengine.domains.ledger.commands import (
    CreateTransfers,
    PostTransfers,
    Transfer,
    prepare_transfers,
)
from ultraengine.domains.ledger.events import Transferred
from ultraengine.domains.ledger.lane import LANE, Lane
from ultraengine.domains.ledger.replies import fold_transfers
from ultraengine.model.domain import Rejection
from ultraengine.model.errors import Malformed
from ultraengine.testing.memory import Bench

pytestmark = pytest.mark.skipif(LANE is None, reason="the lane was not compiled")

NAMES = st.sampled_from(
    ["a", "Z9._:-", "x" * 128, "x" * 129, "", "ä", "a b", "a/b", "a\0", "\ud800"]
)
AMOUNTS = st.sampled_from(
    [0, 1, -1, 2**62 - 1, 2**62, 2**63 - 1, 2**63, -(2**63), 10**38, "12", "1.5", True]
)
ITEMS = st.builds(
    Transfer,
    id=NAMES,
    source=NAMES,
    target=NAMES,
    amount=AMOUNTS,
    linked=st.booleans(),
    effective_time=st.sampled_from([None, 5, "2026-01-01T00:00:00Z", "no time"]),
)
COMMANDS = st.builds(
    CreateTransfers,
    transfers=st.lists(ITEMS, min_size=1, max_size=3),
    if_versions=st.sampled_from([None, {"b": 1, "a": 2}, {"a b": 1}]),
)


@pytest.fixture
def lane() -> Lane:
    """The lane, which is there."""
    assert LANE is not None
    return LANE


def encoded_or_refused(prepare: Any, data: CreateTransfers) -> bytes | tuple[str, str]:
    copy = msgspec.structs.replace(
        data, transfers=[msgspec.structs.replace(item) for item in data.transfers]
    )
    try:
        return msgspec.msgpack.encode(prepare(copy))
    except Malformed as error:
        return error.detail, error.pointer


@given(data=COMMANDS)
def test_preparing_ends_as_the_plain_function_ends(data: CreateTransfers) -> None:
    assert LANE is not None
    assert encoded_or_refused(LANE.prepare, data) == encoded_or_refused(prepare_transfers, data)


def opened() -> tuple[Any, Any]:
    """A book with two accounts, and the place of a command behind those that opened them."""
    bench = Bench(Ledger())
    accounts = [{"id": name, "asset": "USD/2", "min_balance": None} for name in "ab"]
    bench.run("ledger.open_accounts", {"accounts": accounts})
    state = bench.executor.slot_state("ledger", "t", "k")
    book = bench.registry.domains[0].focus(state, "t", "k")
    return book, SimpleNamespace(offset=bench.executor.applied_end, time=bench.time, index=0)


def transfer(**members: Any) -> Transfer:
    return Transfer(**{"id": "t", "source": "a", "target": "b", "amount": 5, **members})


def test_a_single_transfer_is_answered_and_recorded_in_the_bytes_of_the_encoder(lane: Lane) -> None:
    for name in ("t", "u" * 31, "v" * 32, "w" * 128):
        book, at = opened()
        head = book.accounts["a"].head
        done = lane.single(book, CreateTransfers(transfers=[transfer(id=name)]), at)
        assert done is not None
        result, raw, events = done
        assert result == fold_transfers([transfer(id=name)], [_posted(name, at, head)])[1]
        assert raw == msgspec.msgpack.encode(result)
        assert events == msgspec.msgpack.encode([_posted(name, at, head)])
        assert (book.offset, book.highest, list(book.recent)) == (at.offset, name, [])
        assert book.base == book.accounts["a"].head == book.accounts["b"].head
        assert [book.accounts[one].balance for one in "ab"] == [-5, 5]


def _posted(id: str, at: Any, head: int) -> Transferred:
    return Transferred(0, id, "a", "b", 5, -5, 5, 2, 2, head, head + 1, at.time, None, None, None)


@pytest.mark.parametrize(
    "data",
    [
        CreateTransfers(transfers=[transfer()], if_versions={"a": 7}),
        CreateTransfers(transfers=[transfer()], dry_run=True),
        CreateTransfers(transfers=[transfer(linked=True)]),
        CreateTransfers(transfers=[transfer(), transfer(id="u")]),
        CreateTransfers(transfers=[transfer(amount=0)]),
        CreateTransfers(transfers=[transfer(source="nobody")]),
        CreateTransfers(transfers=[transfer(pending_timeout_s=1)]),
        PostTransfers(transfers=[]),
    ],
    ids=["versions", "dry run", "linked", "two", "nothing", "no account", "hold", "posting"],
)
def test_what_others_have_a_say_in_is_left_alone_and_changes_nothing(lane: Lane, data: Any) -> None:
    book, at = opened()
    before = book.offset, book.base, list(book.recent)
    assert lane.single(book, data, at) is None
    assert (book.offset, book.base, list(book.recent)) == before
    assert (book.accounts["a"].version, book.highest) == (1, "")


def test_a_refused_item_among_done_ones_is_folded_by_the_plain_function(lane: Lane) -> None:
    items = [transfer(), transfer(id="u")]
    refused = Rejection("accounts_are_same", "both sides are a")
    done: list[Any] = []
    book, at = opened()
    assert lane.run(book, items[:1], 0, at, bytearray(), done) == 1
    accepted, results, first = lane.fold(items, [*done, refused])
    assert (accepted, [item.status for item in results.transfers]) == (
        True,
        ["posted", "accounts_are_same"],
    )
    assert first is not None
    assert first.pointer == "/data/transfers/1"
    assert lane.fold(items, done * 2) == (
        True,
        fold_transfers(items, done * 2)[1],
        None,
    )


def test_a_position_beyond_a_word_stops_the_lane_before_it_changes_anything(lane: Lane) -> None:
    book, at = opened()
    at.offset = 2**61
    with pytest.raises(OverflowError):
        lane.single(book, CreateTransfers(transfers=[transfer()]), at)
    assert book.accounts["a"].version == 1
