"""A domain's faster ways: what the pipeline asks of them, and what it does with their answers."""

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from tests.unit.execution.test_executor import BoxDomain, Part, Stored, decoded, values

from ultraengine.execution.pipeline import EvolveFailed
from ultraengine.model.domain import CommandSpec
from ultraengine.testing.memory import Bench


class Lane(BoxDomain):
    """Takes items below 50 itself, two at a time at most; 49 breaks it."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, int]] = []

    @property
    def commands(self) -> Sequence[CommandSpec]:
        put, many = super().commands
        return put, msgspec.structs.replace(many, lane=self.lane)

    def lane(
        self,
        part: Part,
        items: Sequence[Any],
        index: int,
        at: Any,
        buffer: bytearray,
        verdicts: list[Any],
    ) -> int:
        self.asked.append((index, at.index))
        done = 0
        for item in items[index : index + 2]:
            if item.value == 49:
                raise ArithmeticError
            if not 0 <= item.value < 50 or item.linked:
                break
            event = Stored(item.value, len(part.values))
            part.values.append(item.value)
            buffer += msgspec.msgpack.encode(event)
            verdicts.append(event)
            done += 1
        return done


def items(*numbers: int, linked: Sequence[int] = ()) -> list[dict[str, Any]]:
    return [{"value": number, "linked": number in linked} for number in numbers]


def test_a_lane_is_asked_again_behind_every_item_that_it_leaves() -> None:
    domain = Lane()
    bench = Bench(domain)
    done = bench.run("box.put_many", {"items": items(1, 2, 3, 100, -1, 4)})
    assert done.result == ["ok", "ok", "ok", "ok", "negative", "ok"]
    assert decoded(done.outcome.events) == [[1, 1, 0], [1, 2, 1], [1, 3, 2], [1, 100, 3], [1, 4, 4]]
    assert values(bench) == [1, 2, 3, 100, 4]
    # (item, index of its event): item 2 was left to be decided; a rejected item has no event.
    assert domain.asked == [(0, 0), (3, 3), (4, 4), (5, 4)]
    assert bench.replayed().dump() == bench.dump()


@pytest.mark.parametrize(("number", "status"), [(7, "ok"), (70, "ok"), (-1, "negative")])
def test_a_command_of_one_item_takes_the_lane_or_leaves_it(number: int, status: str) -> None:
    domain = Lane()
    bench = Bench(domain)
    bench.run("box.put", {"value": 5})
    done = bench.run("box.put_many", {"items": items(number)})
    assert done.result == [status]
    assert domain.asked == [(0, 0)]
    assert decoded(done.outcome.events) == ([] if number < 0 else [[1, number, 1]])
    assert done.error is None
    assert bench.replayed().dump() == bench.dump()


def test_linked_items_and_dry_runs_go_round_the_lane() -> None:
    domain = Lane()
    bench = Bench(domain)
    bench.run("box.put_many", {"items": items(1, 2, 3), "dry_run": True})
    bench.run("box.put_many", {"items": items(1), "dry_run": True})
    assert domain.asked == []
    done = bench.run("box.put_many", {"items": items(8, 9, 10, linked=(8, 9))})
    assert done.result == ["ok", "ok", "ok"]
    assert domain.asked == [(0, 0)]
    assert values(bench) == [8, 9, 10]


@pytest.mark.parametrize("numbers", [(49,), (1, 49)])
def test_a_lane_that_raises_halts_the_shard_like_an_evolve_that_raises(
    numbers: tuple[int, ...],
) -> None:
    bench = Bench(Lane())
    bench.run("box.put", {"value": 5})
    with pytest.raises(EvolveFailed, match="evolve may not fail") as caught:
        bench.run("box.put_many", {"items": items(*numbers)})
    assert caught.value.facts["offset"] == 1
    assert isinstance(caught.value.__cause__, ArithmeticError)


def test_an_evolve_that_raises_on_a_single_item_halts_with_the_offset() -> None:
    class Broken(BoxDomain):
        def evolve(self, part: Part, event: Stored, at: Any) -> None:
            raise ArithmeticError

    with pytest.raises(EvolveFailed, match="evolve may not fail") as caught:
        Bench(Broken()).run("box.put_many", {"items": items(1)})
    assert caught.value.facts["offset"] == 0
