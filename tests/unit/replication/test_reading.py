"""Rounds by which a leader proves that it leads, before it answers reads."""

import asyncio
from typing import Any

import msgspec
import pytest
from tests.unit.replication.test_replica import FIRST, HOLDERS, SEATS, led, sent

from ultraengine.model.errors import EngineError
from ultraengine.model.ids import Epoch
from ultraengine.replication import record as records
from ultraengine.replication.effects import Effects
from ultraengine.replication.messages import Beacon, Confirm, Confirmed, Lead, Reserve
from ultraengine.replication.reading.asking import Asking
from ultraengine.replication.reading.driver import Confirming
from ultraengine.replication.reading.rounds import Rounds
from ultraengine.replication.replica import Replica

OTHERS = SEATS[1:]


def answer(number: int, of: int = 1) -> Confirmed:
    return Confirmed(Epoch(1), HOLDERS[0], HOLDERS[number], of)


def test_reads_that_arrive_during_a_round_share_the_next_one() -> None:
    rounds = Rounds()
    assert rounds.want() == 1
    assert rounds.due(OTHERS) == 1
    assert [rounds.want() for _ in range(5)] == [2] * 5
    assert rounds.due(OTHERS) is None, "one round at a time"
    for seat in OTHERS:
        rounds.heard(seat, 1)
    assert rounds.proved(OTHERS) == 1
    assert rounds.due(OTHERS) == 2
    assert rounds.due(OTHERS) is None


def test_a_round_is_proved_by_all_who_are_waited_for() -> None:
    rounds = Rounds()
    rounds.want()
    rounds.due(OTHERS)
    rounds.heard(SEATS[1], 1)
    assert rounds.proved(OTHERS) == 0
    assert rounds.unanswered(OTHERS) == (1, [SEATS[2]])
    rounds.heard(SEATS[2], 1)
    rounds.heard(SEATS[2], 0)
    assert rounds.proved(OTHERS) == 1, "a late answer takes nothing back"


def test_with_nobody_to_ask_every_round_is_proved() -> None:
    rounds = Rounds()
    rounds.want()
    assert rounds.due(()) == 1
    assert rounds.proved(()) == 1


def test_a_leader_asks_the_wait_set_and_no_one_else() -> None:
    leader, _, _ = led()
    asking = Asking(leader)
    number, effects = asking.want()
    assert number == 1
    assert [one.to for one in effects.sends] == [1, 2]
    assert set(sent(effects, Confirm)) == {Confirm(Epoch(1), HOLDERS[0], 1)}
    assert asking.proved == 0
    asking.receive(answer(1))
    assert asking.proved == 0
    asking.receive(answer(2))
    assert asking.proved == 1


def test_who_has_not_answered_is_asked_again() -> None:
    leader, _, _ = led()
    asking = Asking(leader)
    assert asking.tick().sends == []
    asking.want()
    asking.receive(answer(1))
    assert [one.to for one in asking.tick().sends] == [2]


def test_answers_of_another_leadership_prove_nothing() -> None:
    leader, _, _ = led()
    asking = Asking(leader)
    asking.want()
    for number in (1, 2):
        asking.receive(msgspec.structs.replace(answer(number), epoch=Epoch(2)))
        asking.receive(msgspec.structs.replace(answer(number), leader=HOLDERS[1]))
    assert asking.proved == 0


def test_a_copy_answers_whom_its_disk_obeys_and_nobody_after_it_has_sworn_more() -> None:
    _, second, _ = led()
    asking = Asking(second)
    question = Confirm(Epoch(1), HOLDERS[0], 3)
    (said,) = sent(asking.receive(question), Confirmed)
    assert said == answer(1, 3)
    assert asking.receive(msgspec.structs.replace(question, leader=HOLDERS[2])).sends == []
    second.receive(Reserve(1, Epoch(2)), 0.0)
    assert asking.receive(question).sends == []


def test_who_leads_no_more_proves_nothing_and_asks_nobody() -> None:
    leader, _, _ = led()
    asking = Asking(leader)
    asking.want()
    leader.record_read(records.elected(FIRST, HOLDERS[1], SEATS), 0.1)
    assert asking.proved is None
    assert asking.want()[1].sends == []
    assert asking.tick().sends == []
    assert asking.receive(answer(1)).sends == []


def test_a_later_leadership_of_the_same_life_begins_its_rounds_anew() -> None:
    leader, _, _ = led()
    asking = Asking(leader)
    asking.want()
    for number in (1, 2):
        asking.receive(answer(number))
    assert asking.proved == 1
    leader.receive(Lead(records.elected(FIRST, HOLDERS[0], SEATS)), 0.1)
    leader.receive(Beacon(Epoch(1), HOLDERS[0]), 0.1)
    assert asking.proved == 0
    assert asking.want()[0] == 1


class Loop:
    """Lets the steps of a reader happen at once, and keeps what was sent."""

    def __init__(self, machine: Replica) -> None:
        self.sent: list[Effects] = []
        self.confirming = Confirming(Asking(machine), self._step)

    def _step(self, step: Any) -> None:
        async def happen() -> None:
            self.sent.append(step(0.0))

        self.task = asyncio.get_running_loop().create_task(happen())


async def test_many_reads_wait_for_one_round() -> None:
    leader, _, _ = led()
    loop = Loop(leader)
    reads = [asyncio.ensure_future(loop.confirming.confirmed(30.0)) for _ in range(20)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert len(loop.sent) == 1
    loop.confirming.progress()
    assert not any(one.done() for one in reads)
    for number in (1, 2):
        loop.confirming.asking.receive(answer(number))
    reads[0].cancel()
    loop.confirming.progress()
    await asyncio.gather(*reads[1:])


async def test_a_read_that_is_not_proved_in_time_is_refused() -> None:
    leader, _, _ = led()
    with pytest.raises(EngineError, match="could not prove") as refused:
        await Loop(leader).confirming.confirmed(0.01)
    assert refused.value.code == "NOT_LEADER"


async def test_reads_of_a_leader_that_is_over_are_refused_at_once() -> None:
    leader, _, _ = led()
    loop = Loop(leader)
    read = asyncio.ensure_future(loop.confirming.confirmed(30.0))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    leader.record_read(records.elected(FIRST, HOLDERS[1], SEATS), 0.1)
    loop.confirming.progress()
    with pytest.raises(EngineError, match="leads no more") as refused:
        await read
    assert refused.value.code == "NOT_LEADER"
