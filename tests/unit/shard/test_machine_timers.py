"""Timers in the pure machine: when a tick is formed, and that there is one at a time."""

import msgspec
from tests.unit.execution.test_executor import BoxDomain
from tests.unit.shard.test_machine import SERIALIZER, Rig

from ultraengine.execution.executor import Executor
from ultraengine.execution.registry import Admitted, Registry
from ultraengine.execution.system import TICK, Tick, system_data
from ultraengine.model.errors import EngineError
from ultraengine.model.ids import Epoch, Instant, ShardId
from ultraengine.model.limits import DEFAULT_LIMITS
from ultraengine.shard.effects import Group
from ultraengine.shard.machine import Machine
from ultraengine.testing.memory import START, MemoryDedupe, MemoryHistory

SOON, LATER = Instant(START + 10), Instant(START + 20)


class Timed(Rig):
    """A machine whose domain sets a timer for every number from 1,000 on."""

    def __init__(self) -> None:
        self.registry = Registry([BoxDomain()])
        self.executor = Executor(
            self.registry, ShardId(0), dedupe=MemoryDedupe(), history=MemoryHistory([BoxDomain()])
        )
        self.machine = Machine(
            self.executor,
            SERIALIZER,
            msgspec.structs.replace(DEFAULT_LIMITS, timers_per_tick_max=1),
            epoch=Epoch(1),
            policy="sync",
            group_bytes_max=DEFAULT_LIMITS.group_bytes_max,
        )

    def put(self, id: str, value: int) -> Admitted:
        return self.registry.admit(
            id=id,
            type="box.put",
            key="k",
            data=msgspec.json.encode({"value": value}),
            codec="json",
            tenant="t",
            principal="p",
            scopes=frozenset({"*:write"}),
        )

    def waiting_for(self, *dues: Instant) -> None:
        self.send(*(self.put(f"due-{due}", due) for due in dues))
        self.execute(self.flush())

    def tick(self, now: Instant) -> Group:
        group = self.machine.form(now)
        assert group is not None
        assert [command.type for command in group.commands] == [TICK]
        return group


def test_a_due_timer_forms_a_group_without_a_command_and_not_before_it_is_due() -> None:
    rig = Timed()
    rig.waiting_for(SOON)
    assert rig.machine.form(Instant(SOON - 1)) is None
    group = rig.tick(SOON)
    assert system_data(group.commands[0]) == Tick("box", 1)
    rig.execute(group)
    assert rig.executor.next_due() is None
    assert rig.machine.form(LATER) is None


def test_one_tick_is_formed_at_a_time_and_the_next_after_its_execution() -> None:
    rig = Timed()
    rig.waiting_for(SOON, LATER)
    first = rig.tick(LATER)
    assert not rig.machine.due(LATER)
    rig.send(rig.put("meanwhile", 1))
    beside = rig.machine.form(LATER)
    assert beside is not None
    assert [command.type for command in beside.commands] == ["box.put@1"]
    rig.execute(first)
    rig.execute(beside)
    rig.execute(rig.tick(LATER))
    assert rig.executor.next_due() is None


def test_a_tick_that_was_not_written_is_formed_again_and_answers_nobody() -> None:
    rig = Timed()
    rig.waiting_for(SOON)
    assert rig.machine.undo(rig.tick(SOON), EngineError("full", code="READ_ONLY")) == []
    rig.execute(rig.tick(LATER))
    assert rig.executor.next_due() is None
