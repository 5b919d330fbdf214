"""What handlers are told about their place, and that execution and replay tell them the same."""

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from tests.unit.execution.test_executor import BoxDomain, Part, Stored, admit, decoded, system

from ultraengine.execution.pipeline import EvolveFailed, _array_header
from ultraengine.execution.registry import Registry, handlers_digest
from ultraengine.execution.system import DropConsumer, MoveConsumer, RaiseFloor, Tick
from ultraengine.model.command import identity_hash
from ultraengine.model.domain import CommandSpec
from ultraengine.model.errors import EngineError, InvariantBroken
from ultraengine.model.ids import Epoch, Instant, slot_of
from ultraengine.model.limits import Limits
from ultraengine.testing.memory import START, Bench, MemoryDedupe

Place = tuple[int, int, int, str, str]


class Telling(BoxDomain):
    """Notes where each event evolved, and which offset and time each item was decided at."""

    def __init__(self) -> None:
        self.evolved: list[Place] = []
        self.decided: list[tuple[int, int, str]] = []

    def evolve(self, part: Part, event: Stored, at: Any) -> None:
        super().evolve(part, event, at)
        self.evolved.append((at.offset, at.index, at.time, at.tenant, at.key))

    @property
    def commands(self) -> Sequence[CommandSpec]:
        put, many = super().commands
        inner = many.decide_item
        assert inner is not None

        def decide_item(state: Part, item: Any, context: Any) -> Any:
            self.decided.append((context.offset, context.time, context.key))
            return inner(state, item, context)

        return put, msgspec.structs.replace(many, decide_item=decide_item)


def numbers(count: int) -> list[dict[str, int]]:
    return [{"value": number % 50} for number in range(count)]


@pytest.mark.parametrize("count", [1, 3])
def test_every_item_is_told_its_offset_time_and_key(count: int) -> None:
    domain = Telling()
    bench = Bench(domain)
    bench.run("box.put", {"value": 1}, key="first")
    bench.run("box.put_many", {"items": numbers(count)})
    assert domain.decided == [(1, bench.time, "k")] * count
    assert domain.evolved[1:] == [(1, at, bench.time, "t", "k") for at in range(count)]


def test_a_replay_tells_events_the_same_place_as_the_execution_did() -> None:
    domain = Telling()
    bench = Bench(domain)
    for key in ("a", "b", "c"):
        bench.run("box.put", {"value": START + 10}, key=key)
    linked = [{"value": 1, "linked": True}, {"value": 2}]
    bench.run("box.put_many", {"items": [*linked, {"value": -1}, {"value": 3}]})
    bench.run("box.put_many", {"items": numbers(1)})
    system(bench, Tick("box", 10), Instant(START + 50))
    told, domain.evolved = domain.evolved, []
    assert [place[0] for place in told[-3:]] == [5, 5, 5]
    assert [place[1] for place in told[-3:]] == [0, 1, 2]
    bench.replayed()
    # A linked run evolves on a copy first, at the same places.
    assert domain.evolved == list(dict.fromkeys(told))


@pytest.mark.parametrize("count", [15, 16, 17, 1000])
def test_events_of_any_number_are_one_array(count: int) -> None:
    bench = Bench(BoxDomain())
    outcome = bench.run("box.put_many", {"items": numbers(count)}).outcome
    assert decoded(outcome.events) == [[1, at % 50, at] for at in range(count)]


@pytest.mark.parametrize("count", [0, 15, 16, (1 << 16) - 1, 1 << 16])
def test_the_header_of_an_array_is_that_of_msgpack(count: int) -> None:
    encoded = msgspec.msgpack.encode([None] * count)
    assert _array_header(count) == encoded[: len(encoded) - count]


def test_a_replay_out_of_order_or_back_in_time_is_refused_with_both_places() -> None:
    bench = Bench(BoxDomain())
    bench.run("box.put", {"value": 1})
    command, outcome, time = bench.log[0]
    replay = Bench(BoxDomain()).executor.replay
    later = msgspec.structs.replace(outcome, offset=4)
    with pytest.raises(InvariantBroken, match=r"in order .offset=4, applied_end=0"):
        replay(command, later, time=time, epoch=Epoch(1))
    replay(command, outcome, time=time, epoch=Epoch(1))
    again = msgspec.structs.replace(outcome, offset=1)
    said = f"time never goes back .offset=1, time={time - 1}, before={time}"
    with pytest.raises(InvariantBroken, match=said):
        replay(command, again, time=Instant(time - 1), epoch=Epoch(1))


def test_a_raised_floor_reaches_the_idempotency_memory_in_execution_and_replay() -> None:
    class Floors(MemoryDedupe):
        def __init__(self) -> None:
            super().__init__()
            self.raised: list[int] = []

        def raise_floor(self, offset: int, /) -> None:
            self.raised.append(offset)

    bench, other = Bench(BoxDomain()), Bench(BoxDomain())
    bench.executor.dedupe = executed = Floors()
    other.executor.dedupe = replayed = Floors()
    system(bench, RaiseFloor(7), START)
    command, outcome, time = bench.log[0]
    other.executor.replay(command, outcome, time=time, epoch=Epoch(2))
    assert executed.raised == replayed.raised == [7]


def test_slots_of_consumers_move_on_and_go_alike_in_execution_and_replay() -> None:
    bench, other = Bench(BoxDomain()), Bench(BoxDomain())
    steps = (
        (MoveConsumer("a", 5), {"a": 5}, (0, 1)),
        (MoveConsumer("a", 4), {"a": 5}, (0, 2)),
        (MoveConsumer("b", 0), {"a": 5, "b": 0}, (0, 3)),
        (DropConsumer("c", "never was"), {"a": 5, "b": 0}, (0, 3)),
        (MoveConsumer("a", 9), {"a": 9, "b": 0}, (4, 5)),
        (DropConsumer("a", "gone"), {"b": 0}, (4, 5)),
        (MoveConsumer("a", 1), {"a": 1, "b": 0}, (6, 7)),
    )
    for data, slots, moves_only in steps:
        system(bench, data, START)
        command, outcome, time = bench.log[-1]
        other.executor.replay(command, outcome, time=time, epoch=Epoch(2))
        for executor in (bench.executor, other.executor):
            assert executor.consumers == slots
            assert executor.moves_only == moves_only


def test_a_timer_that_is_due_and_expires_nothing_halts_with_the_offset() -> None:
    class Stuck(BoxDomain):
        def expire(self, state: Any, now: Instant, count_max: int) -> Sequence[Any]:
            del state, now, count_max
            return ()

    bench = Bench(Stuck())
    bench.run("box.put", {"value": START + 10})
    with pytest.raises(EvolveFailed, match="a due timer expires") as caught:
        system(bench, Tick("box", 10), Instant(START + 50))
    assert caught.value.facts["offset"] == 1


def test_as_many_items_as_the_limit_allows_are_admitted() -> None:
    registry = Registry((BoxDomain(),), limits=Limits(items_per_command_max=3))
    data = msgspec.json.encode({"items": numbers(3)})
    assert len(admit(registry, type="box.put_many", data=data).payload.items) == 3
    data = msgspec.json.encode({"items": numbers(4)})
    with pytest.raises(EngineError, match=r"^4 items are more") as caught:
        admit(registry, type="box.put_many", data=data)
    assert caught.value.pointer == "/data"


def test_what_a_client_says_of_its_command_is_logged_with_it() -> None:
    registry = Registry((BoxDomain(),))
    command = admit(
        registry, issued_at=5, correlation_id="c", traceparent="00-a", expected_version=4
    ).command
    assert (command.issued_at, command.correlation_id, command.traceparent) == (5, "c", "00-a")
    assert command.expected_version == 4


def test_refusals_at_admission_say_what_is_wrong() -> None:
    registry = Registry((BoxDomain(),))
    with pytest.raises(EngineError, match=r"a key is 1-128 characters of A-Z a-z 0-9 \. _ : -"):
        admit(registry, key="white space")
    with pytest.raises(EngineError, match="truncated"):
        admit(registry, data=b'{"value":')


def test_domains_and_handlers_that_meet_are_named_at_start() -> None:
    with pytest.raises(InvariantBroken, match=r"names=.'box', 'box'."):
        Registry((BoxDomain(), BoxDomain()))

    class Twice(BoxDomain):
        @property
        def commands(self) -> Sequence[CommandSpec]:
            put, _ = super().commands
            return (msgspec.structs.replace(put, tenants=frozenset({"v"})),) * 2

    said = "one handler per tenant .type='box.put@1', tenant='v'"
    with pytest.raises(InvariantBroken, match=said):
        Registry((Twice(),))


def test_a_replay_remembers_each_id_at_its_slot_and_offset_as_the_execution_did() -> None:
    bench = Bench(BoxDomain())
    for key in ("a", "b", "a"):
        bench.run("box.put", {"value": 1}, key=key)
    bench.run("box.put", {"value": 1, "how": "reject"}, key="b")
    remembered, replayed = bench.dedupe, bench.replayed().dedupe
    for offset, (command, _, _) in enumerate(bench.log):
        slot = slot_of(command.tenant, command.key)
        identity = identity_hash(command.tenant, command.id)
        assert remembered.find(slot, identity) == (offset,)
        assert replayed.find(slot, identity) == (offset,)


def test_a_restored_command_is_the_admitted_one() -> None:
    registry = Registry((BoxDomain(),))
    one = admit(registry)
    again = registry.restore(one.command)
    assert (again.command, again.payload, again.handler) == (one.command, one.payload, one.handler)
    assert (again.slot, again.identity) == (one.slot, one.identity)
    assert one.slot == slot_of("t", "k")
    assert one.identity == identity_hash("t", "i")
    assert registry.handlers_digest == handlers_digest({"box": 3})


def test_a_handler_for_some_tenants_alone_is_restored_for_them() -> None:
    class Special(BoxDomain):
        @property
        def commands(self) -> Sequence[CommandSpec]:
            put, many = super().commands
            return msgspec.structs.replace(put, tenants=frozenset({"t"})), many

    registry = Registry((Special(),))
    command = admit(registry).command
    assert registry.restore(command).handler is not None
    other = msgspec.structs.replace(command, tenant="u")
    with pytest.raises(EngineError, match="no handler"):
        registry.restore(other)


def test_a_slot_is_told_before_it_changes_and_an_unused_key_has_version_zero() -> None:
    bench = Bench(BoxDomain())
    told: list[int] = []
    bench.executor.before_mutation = told.append
    bench.run("box.put", {"value": START + 10})
    system(bench, Tick("box", 10), Instant(START + 50))
    assert told == [slot_of("t", "k")] * 2
    # Another key of the same slot was never used.
    slot = slot_of("t", "k")
    other = next(f"k{n}" for n in range(10**6) if slot_of("t", f"k{n}") == slot)
    assert bench.executor.version("t", other) == 0


def test_a_tick_of_one_domain_leaves_the_timers_of_others() -> None:
    class Crate(BoxDomain):
        name = "crate"

    bench = Bench(BoxDomain(), Crate())
    bench.run("crate.put", {"value": START + 10})
    bench.run("box.put", {"value": START + 20})
    system(bench, Tick("box", 10), Instant(START + 50))
    assert bench.executor.next_due() == (START + 10, "crate")
    system(bench, Tick("crate", 10), Instant(START + 60))
    assert bench.executor.next_due() is None


def test_events_that_no_longer_fit_name_the_offset() -> None:
    bench = Bench(BoxDomain())
    bench.run("box.put", {"value": 1})
    command, outcome, time = bench.log[0]
    wrong = msgspec.structs.replace(
        outcome, events=msgspec.Raw(msgspec.msgpack.encode([[1, 5, 9]]))
    )
    with pytest.raises(EvolveFailed, match="a recorded event evolves") as caught:
        Bench(BoxDomain()).executor.replay(command, wrong, time=time, epoch=Epoch(1))
    assert caught.value.facts["offset"] == 0


def test_handlers_that_contradict_the_protocol_are_named() -> None:
    class Twice(BoxDomain):
        @property
        def commands(self) -> Sequence[CommandSpec]:
            put, _ = super().commands
            return put, put

    class Wordless(BoxDomain):
        @property
        def commands(self) -> Sequence[CommandSpec]:
            put, _ = super().commands
            return (msgspec.structs.replace(put, name="Put It"),)

    with pytest.raises(InvariantBroken, match=r"has one handler .type='box\.put@1'"):
        Registry((Twice(),))
    with pytest.raises(InvariantBroken, match=r"domain\.verb_noun@version .type='box\.Put It@1'"):
        Registry((Wordless(),))
