"""The lane of recorded transfers: what it takes ends as `evolve` ends, and what it leaves is whole.

That whole scripts end the same is the contract suite's; here are bytes and values that no
script has.
"""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, Final

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ultraengine.domains.ledger import Ledger
from ultraengine.domains.ledger.events import INDEX_BITS, Transferred
from ultraengine.domains.ledger.lane import LANE
from ultraengine.execution.pipeline import EvolveFailed
from ultraengine.model.outcome import Outcome, Status
from ultraengine.testing.memory import Bench
from ultraengine.testing.scripts import SETTINGS

pytestmark = pytest.mark.skipif(LANE is None, reason="the lane was not compiled")

BIG: Final = 2**62
OUTSIDE: Final = (BIG, -BIG, 2**63, 2**64 - 1, -(2**63), 2**40, 300, -1, 0, 1, 127, 128, 65_536)


def script(items: tuple[int, ...] = (1, 1, 3, 1)) -> Bench:
    """Accounts, and commands of so many transfers between them."""
    bench = Bench(Ledger())
    accounts = [{"id": name, "asset": "USD/2", "min_balance": None} for name in "abc"]
    bench.run("ledger.open_accounts", {"accounts": accounts})
    for number, count in enumerate(items):
        transfers = [
            {
                "id": f"t-{number}-{n}",
                "from": "abc"[n % 3],
                "to": "abc"[(n + 1) % 3],
                "amount": str(70_000 * n + 5),
                "code": (None, "fee", 7)[n % 3],
                "reference": ("x" * 40, None)[n % 2],
            }
            for n in range(count)
        ]
        bench.run("ledger.create_transfers", {"transfers": transfers})
    return bench


def ended(bench: Bench, outcomes: list[Outcome], *, lanes: bool) -> Any:
    """State, history and ids after replaying; the offset at which it failed."""
    domain: Any = Ledger()
    if not lanes:
        domain = SimpleNamespace(
            **{name: getattr(domain, name) for name in dir(domain) if not name.startswith("__")}
        )
        domain.commands = [msgspec.structs.replace(spec, recorded=None) for spec in domain.commands]
    other = Bench(domain)
    try:
        other.executor.replay_group(
            [command for command, _, _ in bench.log], outcomes, time=bench.time, epoch=bench.epoch
        )
    except EvolveFailed as failed:
        return failed.facts["offset"]
    executor = other.executor
    images = [image for _, image in sorted(executor.slots.items())]
    return (
        other.dump(),
        other.history.payloads,
        other.dedupe._offsets,
        (executor.applied_end, executor.time, executor.next_due()),
        [(image.due, image.changed, sorted(image.versions_changed)) for image in images],
        [list(domain.changes(image.states[0])) for image in images],
    )


def altered(bench: Bench, offset: int, events: bytes) -> list[Outcome]:
    outcomes = [outcome for _, outcome, _ in bench.log]
    outcomes[offset] = msgspec.structs.replace(outcomes[offset], events=msgspec.Raw(events))
    return outcomes


def agree(bench: Bench, outcomes: list[Outcome]) -> Any:
    found = ended(bench, outcomes, lanes=True)
    assert found == ended(bench, outcomes, lanes=False)
    return found


def focused(bench: Bench) -> Any:
    state = bench.executor.slot_state("ledger", "t", "k")
    return bench.registry.domains[0].focus(state, "t", "k")


def taken(bench: Bench, outcomes: list[Outcome], index: int) -> tuple[tuple[int, int], Any]:
    """What the lane takes of outcomes from an index on, and the book, which had those before."""
    assert LANE is not None
    other = Bench(Ledger())
    for command, outcome, time in bench.log[:index]:
        other.executor.replay(command, outcome, time=time, epoch=bench.epoch)
    book = focused(other)
    at: Any = SimpleNamespace(offset=index, time=bench.time)
    return LANE.recorded(book, outcomes, index, len(outcomes), at), book


def test_ordinary_transfers_are_taken_whole_wherever_they_stand_in_a_command() -> None:
    bench = script()
    outcomes = [outcome for _, outcome, _ in bench.log]
    took, book = taken(bench, outcomes, 1)
    assert took == (4, 0)
    last = focused(bench)
    for name in "abc":
        for field in ("balance", "version", "head", "effective_max"):
            assert getattr(book.accounts[name], field) == getattr(last.accounts[name], field)
    assert (book.highest, book.offset, book.base) == (last.highest, 4, 4 << INDEX_BITS)
    assert isinstance(agree(bench, outcomes), tuple)


@pytest.mark.parametrize("most", [0, 1, 2])
def test_a_command_is_taken_up_to_the_first_event_that_does_not_fit(most: int) -> None:
    bench = script()
    events = msgspec.msgpack.decode(bench.log[3][1].events, type=list[Transferred])
    events[most] = msgspec.structs.replace(events[most], source_balance=12345)
    outcomes = altered(bench, 3, msgspec.msgpack.encode(events))
    assert taken(bench, outcomes, 1)[0] == (2, most)
    assert agree(bench, outcomes) == 3


def test_what_is_rejected_or_elsewhere_is_left() -> None:
    bench = script()
    outcomes = [outcome for _, outcome, _ in bench.log]
    for changes in ({"status": Status.REJECTED}, {"offset": 7}, {"events": msgspec.Raw(b"\x90")}):
        others = list(outcomes)
        others[2] = msgspec.structs.replace(outcomes[2], **changes)
        assert taken(bench, others, 1)[0] == (1, 0)
    strange: list[Any] = [*outcomes[:2], "no outcome", *outcomes[3:]]
    assert taken(bench, strange, 1)[0] == (1, 0)


@SETTINGS
@given(
    number=st.integers(0, 14),
    value=st.sampled_from([*OUTSIDE, None, "a", "b", "é", "x" * 300, "", 1.5, [], "t-0-0"]),
    command=st.integers(1, 4),
)
def test_a_field_with_another_value_ends_as_evolve_ends(
    number: int, value: object, command: int
) -> None:
    bench = script()
    events = msgspec.msgpack.decode(bench.log[command][1].events)
    events[-1][1 + number] = value
    agree(bench, altered(bench, command, msgspec.msgpack.encode(events)))


@SETTINGS
@given(data=st.data(), command=st.integers(1, 4))
def test_damaged_bytes_end_as_evolve_ends(data: st.DataObject, command: int) -> None:
    bench = script()
    whole = bytearray(bytes(bench.log[command][1].events))
    change: Callable[[], None] = data.draw(
        st.sampled_from(
            [
                lambda: whole.__setitem__(
                    data.draw(st.integers(0, len(whole) - 1)), data.draw(st.integers(0, 255))
                ),
                lambda: whole.__delitem__(slice(data.draw(st.integers(0, len(whole))), None)),
                lambda: whole.extend(data.draw(st.binary(min_size=1, max_size=9))),
            ]
        )
    )
    change()
    agree(bench, altered(bench, command, bytes(whole)))


def test_integers_in_any_form_and_long_arrays_are_read() -> None:
    bench = script((1, 20))
    events = msgspec.msgpack.decode(bench.log[1][1].events)
    head = bytes.fromhex("dd00000001dc001001")
    fields = b"".join(
        b"\xd3" + value.to_bytes(8, "big", signed=True)
        if isinstance(value, int)
        else msgspec.msgpack.encode(value)
        for value in events[0][1:]
    )
    outcomes = altered(bench, 1, head + fields)
    assert taken(bench, outcomes, 1)[0] == (2, 0)
    assert isinstance(agree(bench, outcomes), tuple)


def test_a_run_beyond_its_list_or_a_word_is_an_error_and_changes_nothing() -> None:
    assert LANE is not None
    bench = script()
    outcomes = [outcome for _, outcome, _ in bench.log]
    _, book = taken(bench, [], 1)
    for index, end, offset in ((1, 99, 1), (-1, 2, 1), (1, 2, 2**61), (1, 2, -5)):
        at: Any = SimpleNamespace(offset=offset, time=0)
        with pytest.raises(OverflowError):
            LANE.recorded(book, outcomes, index, end, at)
    nowhere: Any = SimpleNamespace(offset=1, time=0)
    with pytest.raises(TypeError):
        LANE.recorded(book, tuple(outcomes), 1, 2, nowhere)  # type: ignore[arg-type]
    assert book.accounts["a"].version == 1
