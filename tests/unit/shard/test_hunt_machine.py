"""What a shard's order and idempotency must survive."""

from typing import Any

import msgspec
import pytest
from tests.unit.shard.test_machine import Rig, code_of, put, reply_of

from ultraengine.execution.system import EpochStart, RaiseFloor, system_data
from ultraengine.model.errors import EngineError, Unavailable
from ultraengine.model.reply import Reply
from ultraengine.reply.waiters import Ticket
from ultraengine.shard.effects import Pending
from ultraengine.testing.memory import START

FULL = Unavailable("full", code="READ_ONLY")


def test_the_engines_own_commands_of_a_group_that_was_not_written_are_formed_again() -> None:
    rig = Rig()
    rig.machine.log_system(EpochStart(1, {}, "x"))
    rig.machine.log_system(RaiseFloor(7))
    rig.send(rig.admit("a"))
    put(rig.machine.undo(rig.flush(), FULL))
    rig.machine.log_system(RaiseFloor(8))
    datas = [system_data(one.admitted.command) for one in rig.flush().pendings]
    assert datas == [EpochStart(1, {}, "x"), RaiseFloor(7), RaiseFloor(8)]


class Verifying(Rig):
    """A machine whose log is read later than the next commands arrive."""

    def __init__(self) -> None:
        super().__init__()
        self.reading: list[tuple[Pending, Any]] = []

    def arrive(self, delta: int) -> Ticket:
        ticket = Ticket(1, lambda _ticket: None)
        effects = self.machine.accept([self.admit("a", delta)], ticket, 0, None)
        put(effects.answers)
        self.reading += effects.verify
        return ticket

    def read(self, closed: EngineError | None = None) -> None:
        for pending, candidates in self.reading:
            put(self.machine.verified(pending, self.found(candidates), closed))
        self.reading = []


def recorded(rig: Rig) -> Reply:
    """Executes and records the command ``a`` with the delta 5."""
    ticket, _ = rig.send(rig.admit("a", 5))
    rig.execute(rig.flush())
    rig.log = dict(rig.machine.unrecorded)
    rig.machine.recorded(rig.machine.take_unwritten())
    return reply_of(ticket)


def test_a_true_retry_behind_a_false_one_that_is_being_verified_gets_the_first_reply() -> None:
    rig = Verifying()
    first = recorded(rig)
    false, true, false_too = rig.arrive(6), rig.arrive(5), rig.arrive(6)
    rig.read()
    assert code_of(false) == code_of(false_too) == "IDEMPOTENCY_MISMATCH"
    again = reply_of(true)
    assert (again.outcome, again.offset, again.duplicate) == ("accepted", first.offset, True)
    assert rig.machine.form(START) is None
    assert rig.machine.in_flight == {}


def test_of_two_contents_of_a_new_id_with_a_false_hit_the_first_is_executed() -> None:
    rig = Verifying()
    one = rig.admit("a", 6)
    rig.executor.dedupe.add(one.slot, one.identity, 77)
    first, other, joined = rig.arrive(6), rig.arrive(5), rig.arrive(6)
    rig.read()
    assert code_of(other) == "IDEMPOTENCY_MISMATCH"
    assert code_of(rig.arrive(5)) == "IDEMPOTENCY_MISMATCH"
    rig.execute(rig.flush())
    for ticket in (first, joined):
        assert msgspec.to_builtins(reply_of(ticket).result) == {"value": 6}


@pytest.mark.parametrize("how", ["closed", "refused", "given up"])
def test_everybody_behind_a_verification_that_ends_without_an_answer_is_told(how: str) -> None:
    rig = Verifying()
    one = rig.admit("a", 6)
    rig.executor.dedupe.add(one.slot, one.identity, 77)
    tickets = [rig.arrive(6), rig.arrive(5), rig.arrive(6)]
    if how == "closed":
        rig.read(FULL)
    elif how == "refused":
        put(rig.machine.refuse(rig.reading[0][0], FULL))
    else:
        put(rig.machine.give_up("halted"))
    code = "OUTCOME_UNKNOWN" if how == "given up" else "READ_ONLY"
    assert [code_of(ticket) for ticket in tickets] == [code] * 3
    assert rig.machine.in_flight == {}
