"""A domain's faster ways: what the pipeline asks of them, and what it does with their answers."""

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from tests.unit.execution.test_executor import BoxDomain, Part, Stored, decoded, values

from ultraengine.execution.pipeline import EvolveFailed
from ultraengine.model.domain import CommandSpec
from ultraengine.model.errors import InvariantBroken
from ultraengine.model.ids import Epoch, Instant
from ultraengine.model.outcome import Status
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


class Recorder(BoxDomain):
    """Evolves recorded values below 50 by a lane, `most` events at a time at most; 49 breaks it."""

    def __init__(self, most: int = 1000) -> None:
        self.most = most
        self.asked: list[tuple[int, int, int]] = []

    @property
    def commands(self) -> Sequence[CommandSpec]:
        return tuple(
            msgspec.structs.replace(spec, lane=self.lane, recorded=self.recorded)
            for spec in super().commands
        )

    def lane(self, *_: Any) -> int:
        return 0

    def recorded(
        self, part: Part, outcomes: list[Any], index: int, end: int, at: Any
    ) -> tuple[int, int]:
        self.asked.append((index, end, at.offset))
        done = 0
        for outcome in outcomes[index:end]:
            events = decoded(outcome.events) if outcome.status == Status.ACCEPTED else []
            for evolved, (_, value, _) in enumerate(events):
                if value == 49:
                    raise ArithmeticError
                if value >= 50 or evolved + done == self.most:
                    return done, evolved
                part.values.append(value)
            if not events:
                return done, 0
            done += 1
        return done, 0


def in_groups(bench: Bench, other: Bench) -> Bench:
    """`other`, which has replayed what `bench` has logged, as groups of one stamped time."""
    index = 0
    while index < len(bench.log):
        end = index + 7
        commands, outcomes, times = (list(part) for part in zip(*bench.log[index:end], strict=True))
        other.executor.replay_group(commands, outcomes, time=times[-1], epoch=bench.epoch)
        index = end
    return other


def kept(bench: Bench) -> Any:
    executor = bench.executor
    images = [image for _, image in sorted(executor.slots.items())]
    (domain,) = bench.registry.domains
    return (
        bench.dump(),
        bench.history.payloads,
        bench.dedupe._offsets,
        (executor.applied_end, executor.time, executor.next_due()),
        [(image.due, image.changed, sorted(image.versions_changed)) for image in images],
        [list(domain.changes(image.states[0])) for image in images if image.states[0] is not None],
    )


def script() -> Bench:
    bench = Bench(BoxDomain())
    for number in range(40):
        key = "k" if number % 9 else "other"
        bench.run("box.put", {"value": number if number != 49 else 0}, key=key)
        if number % 5 == 0:
            bench.run("box.put", {"value": 1, "how": "reject"}, key=key)
        if number % 6 == 0:
            bench.run("box.put_many", {"items": items(1, number + 40, 2)}, key=key)
        if number % 11 == 0:
            bench.run("box.put", {"value": 2}, key="poison")
            bench.run("box.put", {"value": 2000 + number}, key=key, tenant="u")
    return bench


@pytest.mark.parametrize("most", [0, 1, 2, 1000])
def test_recorded_commands_end_alike_whatever_a_lane_takes_of_them(most: int) -> None:
    bench = script()
    domain = Recorder(most)
    found = in_groups(bench, Bench(domain))
    assert kept(found) == kept(in_groups(bench, Bench(BoxDomain())))
    assert found.executor.applied_end == len(bench.log)
    assert any(end - index > 1 for index, end, _ in domain.asked)
    assert all(outcome.status == Status.ACCEPTED for outcome in asked_of(domain, bench))


def asked_of(domain: Recorder, bench: Bench) -> list[Any]:
    return [bench.log[offset][1] for _, _, offset in domain.asked]


def test_a_group_of_plain_commands_alone_leaves_the_marks_that_evolve_leaves() -> None:
    bench = Bench(BoxDomain())
    for number in range(5):
        bench.run("box.put", {"value": number})
    domain = Recorder()
    found, plain = Bench(domain), Bench(BoxDomain())
    for other in (found, plain):
        in_groups(bench, other)
    assert domain.asked == [(0, 5, 0)]
    assert kept(found) == kept(plain)
    assert found.executor.time == bench.time


def test_a_domain_without_its_lanes_has_its_own_evolve_called_for_recorded_events() -> None:
    class Without(Recorder):
        evolved = 0

        @property
        def commands(self) -> Sequence[CommandSpec]:
            return tuple(
                msgspec.structs.replace(spec, lane=None, single=None) for spec in super().commands
            )

        def evolve(self, part: Part, event: Stored, at: Any) -> None:
            self.evolved += 1
            super().evolve(part, event, at)

    bench = Bench(BoxDomain())
    for number in range(5):
        bench.run("box.put", {"value": number})
    domain = Without()
    assert kept(in_groups(bench, Bench(domain))) == kept(in_groups(bench, Bench(BoxDomain())))
    assert (domain.asked, domain.evolved) == ([], 5)


@pytest.mark.parametrize(("start", "end"), [(0, 4), (1, 2), (0, 0)])
def test_a_group_with_outcomes_for_other_commands_is_refused_whole(start: int, end: int) -> None:
    bench = Bench(BoxDomain())
    for number in range(3):
        bench.run("box.put", {"value": number})
    commands = [command for command, _, _ in bench.log]
    outcomes = [outcome for _, outcome, _ in bench.log]
    outcomes.append(outcomes[-1])
    for domain in (Recorder(), BoxDomain()):
        other = Bench(domain)
        with pytest.raises(InvariantBroken, match="every command has one outcome"):
            other.executor.replay_group(
                commands, outcomes[start:end], time=bench.time, epoch=Epoch(1)
            )
        assert other.executor.applied_end == 0


@pytest.mark.parametrize("skipped", [3, 8, 13, 10**6])
def test_only_the_commands_around_an_overridden_one_go_without_their_lane(skipped: int) -> None:
    bench = Bench(BoxDomain())
    for number in range(14):
        bench.run("box.put", {"value": number})
    # What stands behind the overridden command has to fit without it.
    outcomes = [outcome for _, outcome, _ in bench.log]
    for offset in range(skipped + 1, 14):
        events = [Stored(offset, offset - 1)]
        outcomes[offset] = msgspec.structs.replace(
            outcomes[offset], events=msgspec.Raw(msgspec.msgpack.encode(events))
        )
    bench.log = [
        (command, outcome, time)
        for (command, _, time), outcome in zip(bench.log, outcomes, strict=True)
    ]
    domain = Recorder()
    found, plain = Bench(domain), Bench(BoxDomain())
    for other in (found, plain):
        other.executor.skipped.add(skipped)
        in_groups(bench, other)
    assert kept(found) == kept(plain)
    assert [offset for _, _, offset in domain.asked] == [
        first for first in (0, 7) if not first <= skipped < first + 7
    ]
    wanted = [number for number in range(14) if number != skipped]
    assert values(found) == wanted


def test_a_recorded_lane_that_raises_halts_with_the_offset_it_was_asked_at() -> None:
    bench = Bench(BoxDomain())
    bench.run("box.put", {"value": 5}, key="other")
    bench.run("box.put", {"value": 49})
    with pytest.raises(EvolveFailed, match="a recorded event evolves") as caught:
        in_groups(bench, Bench(Recorder()))
    assert caught.value.facts["offset"] == 1
    assert isinstance(caught.value.__cause__, ArithmeticError)


def test_groups_out_of_order_are_refused_by_every_way() -> None:
    bench = script()
    command, outcome, time = bench.log[0]
    for domain in (Recorder(), BoxDomain()):
        late = Bench(domain)
        late.executor.time = Instant(time + 1)
        with pytest.raises(InvariantBroken, match="time never goes back"):
            late.executor.replay_group([command], [outcome], time=time, epoch=Epoch(1))
        later = Bench(domain)
        later.executor.epoch = Epoch(2)
        with pytest.raises(InvariantBroken, match="epochs only grow"):
            later.executor.replay_group([command], [outcome], time=time, epoch=Epoch(1))
