"""Rare ways through the executor and the pipeline: several domains, raising parts, replays."""

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from tests.unit.execution.test_executor import BoxDomain, Part, Put, Stored, decoded, system

from ultraengine.execution.pipeline import EvolveFailed
from ultraengine.execution.registry import SLOTS_CACHED_MAX, Registry
from ultraengine.execution.system import Tick
from ultraengine.model.domain import Accepted, CommandSpec
from ultraengine.model.errors import InvariantBroken
from ultraengine.model.ids import Epoch, Instant
from ultraengine.model.outcome import Status
from ultraengine.testing.memory import START, Bench


class Crate(BoxDomain):
    """A second domain, which most slots know nothing of."""

    name = "crate"


def specs(domain: BoxDomain) -> tuple[CommandSpec, CommandSpec]:
    put, many = BoxDomain.commands.fget(domain)  # type: ignore[attr-defined]
    return put, many


def test_chance_that_is_drawn_twice_in_a_command_goes_on_and_does_not_begin_again() -> None:
    class Drawing(BoxDomain):
        @property
        def commands(self) -> Sequence[CommandSpec]:
            def decide(state: Part, _data: Put, context: Any) -> Accepted:
                drawn = [context.random.randrange(10**9) for _ in range(2)]
                return Accepted([Stored(drawn, len(state.values))])

            put, _ = specs(self)
            return (msgspec.structs.replace(put, decide=decide, dry_run=None),)

        def evolve(self, part: Part, event: Stored, at: Any) -> None:
            part.values.extend(event.value)

    (event,) = decoded(Bench(Drawing()).run("box.put", {"value": 1}).outcome.events)
    one, other = event[1]
    assert one != other


def test_timers_and_checks_go_by_the_domains_that_a_slot_has_a_state_of() -> None:
    bench = Bench(Crate(), BoxDomain())
    bench.run("box.put", {"value": START + 10}, key="a")
    bench.run("box.put", {"value": 13}, key="a")
    bench.executor.reschedule()
    assert bench.executor.next_due() == (START + 10, "box")
    (sentence,) = bench.executor.check()
    assert sentence.startswith("box, slot ")


def test_an_expiry_that_does_not_evolve_halts_with_the_offset() -> None:
    class Lasting(BoxDomain):
        def evolve(self, part: Part, event: Stored, at: Any) -> None:
            if event.value == -2:
                raise ArithmeticError
            super().evolve(part, event, at)

    bench = Bench(Lasting())
    bench.run("box.put", {"value": START + 10})
    with pytest.raises(EvolveFailed, match="evolve may not fail") as caught:
        system(bench, Tick("box", 10), Instant(START + 50))
    assert caught.value.facts["offset"] == 1
    assert isinstance(caught.value.__cause__, ArithmeticError)


def test_a_replayed_frame_of_an_older_epoch_is_refused() -> None:
    bench = Bench(BoxDomain())
    bench.run("box.put", {"value": 1})
    ((command, outcome, time),) = bench.log
    other = Bench(BoxDomain()).executor
    other.epoch = Epoch(2)
    with pytest.raises(InvariantBroken, match="epochs only grow") as caught:
        other.replay(command, outcome, time=time, epoch=Epoch(1))
    assert (caught.value.facts["epoch"], caught.value.facts["before"]) == (1, 2)


def test_an_accepted_command_of_a_domain_that_is_gone_halts_a_replay_with_its_type() -> None:
    bench = Bench(BoxDomain())
    bench.run("box.put", {"value": 1})
    ((command, outcome, time),) = bench.log
    with pytest.raises(EvolveFailed, match="no domain for a recorded command") as caught:
        Bench(Crate()).executor.replay(command, outcome, time=time, epoch=Epoch(1))
    assert (caught.value.facts["offset"], caught.value.facts["type"]) == (0, "box.put@1")


def test_a_domains_way_for_one_item_that_raises_halts_with_the_offset() -> None:
    class Single(BoxDomain):
        @property
        def commands(self) -> Sequence[CommandSpec]:
            def single(_state: Part, _data: Any, _at: Any) -> Any:
                raise ArithmeticError

            put, many = specs(self)
            return put, msgspec.structs.replace(many, single=single)

    bench = Bench(Single())
    bench.run("box.put", {"value": 1})
    with pytest.raises(EvolveFailed, match="evolve may not fail") as caught:
        bench.run("box.put_many", {"items": [{"value": 1}]})
    assert caught.value.facts["offset"] == 1


def test_a_guard_that_raises_is_a_recorded_internal_and_changes_nothing() -> None:
    class Guarded(BoxDomain):
        @property
        def commands(self) -> Sequence[CommandSpec]:
            def guard(_state: Part, _data: Any, _context: Any) -> None:
                raise ZeroDivisionError

            put, many = specs(self)
            return put, msgspec.structs.replace(many, guard=guard)

    bench = Bench(Guarded())
    executed = bench.run("box.put_many", {"items": [{"value": 1}]})
    assert executed.outcome.status == Status.INTERNAL
    assert isinstance(executed.error, ZeroDivisionError)
    assert (executed.outcome.version, decoded(executed.outcome.events)) == (0, [])


class Stubborn(BoxDomain):
    """Evolves 5 only on a copy: an overlay that is kinder than the state itself."""

    def evolve(self, part: Part, event: Stored, at: Any) -> None:
        if event.value == 5 and part.values is part.box.values[part.key]:
            raise ArithmeticError
        super().evolve(part, event, at)


@pytest.mark.parametrize("linked", [False, True])
def test_an_item_among_others_that_does_not_evolve_halts_with_the_offset(linked: bool) -> None:
    bench = Bench(Stubborn())
    bench.run("box.put", {"value": 1})
    with pytest.raises(EvolveFailed, match="evolve may not fail") as caught:
        bench.run("box.put_many", {"items": [{"value": 5, "linked": linked}, {"value": 6}]})
    assert caught.value.facts["offset"] == 1
    assert isinstance(caught.value.__cause__, ArithmeticError)


def test_remembered_slots_of_keys_are_bounded() -> None:
    registry = Registry([BoxDomain()])
    for number in range(SLOTS_CACHED_MAX):
        registry._slot("t", f"k{number}")
    first = registry._slots["t", "k0"]
    assert len(registry._slots) == SLOTS_CACHED_MAX
    registry._slot("t", "one-more")
    assert len(registry._slots) == 1
    assert registry._slot("t", "k0") == first
