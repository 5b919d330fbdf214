"""Eager outcomes: nobody is told what could be decided again."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.unit.shard import test_machine as machines
from tests.unit.shard.test_hunt_full_disk import refuse_outcomes, until
from tests.unit.shard.test_machine import code_of, put, reply_of
from tests.unit.shard.test_shard import Rig

from ultraengine.domains.counter import DOMAIN
from ultraengine.model.errors import EngineError


class Newer(type(DOMAIN)):  # type: ignore[misc]
    """The counter of the next release."""

    version = DOMAIN.version + 1


def record(rig: machines.Rig) -> None:
    """The outcomes that wait are durable now."""
    put(rig.machine.recorded(rig.machine.take_unwritten()))


def test_an_answer_leaves_when_its_outcome_is_durable_and_not_before() -> None:
    rig = machines.Rig(eager=True)
    ticket, _ = rig.send(rig.admit("a", 5), rig.admit("b", 1))
    rig.execute(rig.flush())
    assert rig.executor.applied_end == 2
    assert (ticket.missing, rig.machine.recorded_end) == (2, 0)
    assert rig.machine.is_in_flight("t", "k", "a")
    record(rig)
    assert [reply_of(ticket, index).offset for index in (0, 1)] == [0, 1]
    assert reply_of(ticket).duplicate is False
    assert rig.machine.in_flight == {}
    assert rig.machine.recorded_end == 2


def test_a_retry_of_what_is_executed_and_not_recorded_waits_with_the_first_attempt() -> None:
    rig = machines.Rig(eager=True)
    first, _ = rig.send(rig.admit("a", 5))
    rig.execute(rig.flush())
    again, _ = rig.send(rig.admit("a", 5))
    assert (first.missing, again.missing) == (1, 1)
    record(rig)
    assert (reply_of(first).duplicate, reply_of(again).duplicate) == (False, True)
    assert reply_of(first).offset == reply_of(again).offset == 0


def test_of_two_groups_the_recorded_one_alone_is_answered() -> None:
    rig = machines.Rig(eager=True)
    first, _ = rig.send(rig.admit("a"))
    rig.execute(rig.flush())
    drafts = rig.machine.take_unwritten()
    second, _ = rig.send(rig.admit("b"))
    rig.execute(rig.flush())
    put(rig.machine.recorded(drafts))
    assert (first.missing, second.missing, rig.machine.recorded_end) == (0, 1, 1)
    record(rig)
    assert second.missing == 0


def test_who_waits_for_an_outcome_when_the_shard_ends_is_told_that_nothing_is_known() -> None:
    rig = machines.Rig(eager=True)
    ticket, _ = rig.send(rig.admit("a"))
    rig.execute(rig.flush())
    put(rig.machine.give_up("the log failed"))
    assert code_of(ticket) == "OUTCOME_UNKNOWN"


@pytest.mark.parametrize("delta", [5, 6])
def test_a_retry_of_what_recovery_has_decided_again_waits_until_that_is_durable(delta: int) -> None:
    rig = machines.Rig(eager=True)
    rig.send(rig.admit("a", 5))
    rig.execute(rig.flush())
    decided = rig.machine.unrecorded[0]
    rig.machine.in_flight.clear()  # As in a process that was started since.
    list(rig.machine.held.below(1))
    ticket, answers = rig.send(rig.admit("a", delta))
    assert (answers, ticket.missing) == ([], 1)
    record(rig)
    if delta == 5:
        assert reply_of(ticket).duplicate is True
        assert reply_of(ticket).offset == decided.outcome.offset
    else:
        assert code_of(ticket) == "IDEMPOTENCY_MISMATCH"


@pytest.fixture
async def eager(tmp_path: Path) -> AsyncIterator[Rig]:
    rig = Rig(tmp_path, eager=True)
    await rig.start()
    yield rig
    await rig.shard.stop()


async def test_after_a_kill_another_release_goes_on_since_all_that_was_told_is_recorded(
    eager: Rig,
) -> None:
    """Without eager outcomes the start is refused: `test_other_handlers_do_not_decide_…`."""
    rig = eager
    for delta in (7, -3, 4):
        await rig.add(delta)
    assert rig.shard.machine.unrecorded == {}
    await rig.kill()
    rig.domains = (Newer(),)
    await rig.start()
    assert await rig.value() == 8
    (again,) = await rig.send(rig.admit("n-1", 7))
    assert again.duplicate


async def test_a_read_shows_nothing_whose_outcome_is_not_durable(eager: Rig) -> None:
    rig = eager
    machine = rig.shard.machine
    await rig.add(1)
    sends = [asyncio.ensure_future(rig.add(1)) for _ in range(50)]
    seen = []
    while not all(one.done() for one in sends):
        (spec,) = DOMAIN.queries
        answer = await rig.shard.query(spec, "counter", "t", "k", spec.params())
        seen.append((answer.offset, machine.recorded_end))
        await asyncio.sleep(0)
    assert all(offset < recorded for offset, recorded in seen)
    assert await rig.value() == 51


async def test_what_finds_no_room_for_its_outcome_is_told_when_there_is_some(eager: Rig) -> None:
    rig = eager
    refusing = refuse_outcomes(rig)
    sent = asyncio.create_task(rig.add(3))
    await until(lambda: rig.shard.status().state == "read_only")
    assert rig.shard.machine.executor.applied_end > rig.shard.machine.recorded_end
    with pytest.raises(EngineError) as read:
        await rig.value()
    assert read.value.code == "WAIT_TIMEOUT"
    assert (await rig.shard.outcome("t", "k", "n-1")).state == "in_flight"
    assert not sent.done()
    refusing.clear()
    assert (await asyncio.wait_for(sent, 10)).outcome == "accepted"
    assert await rig.value() == 3
    assert (await rig.shard.outcome("t", "k", "n-1")).state == "done"


async def test_a_pause_returns_when_all_that_was_accepted_is_answered(eager: Rig) -> None:
    rig = eager
    sent = [asyncio.ensure_future(rig.add()) for _ in range(5)]
    await asyncio.sleep(0)
    await rig.shard.pause()
    assert rig.shard.machine.in_flight == {}
    assert [(await one).outcome for one in sent] == ["accepted"] * 5
