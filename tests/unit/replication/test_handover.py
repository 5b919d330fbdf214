"""A leader that hands over: when its swap leaves, and how it ends."""

import msgspec
import pytest
from tests.unit.replication.test_replica import FIRST, HOLDERS, LIMITS, SEATS, led, sent

from ultraengine.model.ids import ConfigVersion, Epoch
from ultraengine.replication import leader as leaders
from ultraengine.replication import record as records
from ultraengine.replication.effects import Swap
from ultraengine.replication.handover.plan import Handover, Phase, chosen, handing
from ultraengine.replication.messages import Held, Lead, Told
from ultraengine.replication.promise import NO_PROMISE
from ultraengine.replication.promotion import Answer
from ultraengine.replication.record import Holder, NotAllowed, ReplicaId, Seat
from ultraengine.replication.replica import Replica

UNTIL = 2.0


def phase(machine: Replica) -> Phase | None:
    return None if machine.handover is None else machine.handover.phase


def asked() -> tuple[Replica, Swap]:
    """A leader whose handover to replica 1 is under way."""
    leader, _, _ = led()
    effects = leader.hand_over(SEATS[1], UNTIL, 0.1)
    assert effects.swap is not None
    return leader, effects.swap


def test_a_copy_that_holds_everything_is_named_at_once_and_the_leader_leaves_the_isr() -> None:
    leader, swap = asked()
    assert swap.expected == FIRST
    assert swap.new.holder == HOLDERS[1]
    assert (swap.new.epoch, swap.new.version) == (2, 2)
    assert swap.new.isr == SEATS[1:]
    assert phase(leader) is Phase.SENT
    assert not leader.serves
    assert leader.may_append, "what was taken before may be finished"


def test_with_too_few_copies_the_leader_stays_in_the_isr() -> None:
    leader, _, _ = led()
    one = leader.leader
    assert one is not None
    two = one.with_(record=records.shrunk(FIRST, SEATS[2]))
    for seat in SEATS[:2]:
        two = leaders.answered(two, seat, start=1, position=1, version=ConfigVersion(2))
    assert handing(two, SEATS[1], 1).unresolved[-1].isr == SEATS[:2]


def test_its_swap_that_is_won_ends_it_and_is_told_to_the_successor() -> None:
    leader, swap = asked()
    effects = leader.swap_answered(swap, swap.new, 0.2)
    assert phase(leader) is Phase.WON
    assert not leader.leads
    assert sent(effects, Lead) == [Lead(swap.new)]
    assert [one.to for one in effects.sends] == [1]
    assert sent(leader.record_read(swap.new, 0.3), Lead) == [], "it is told once"


def test_a_read_of_the_record_settles_it_as_well() -> None:
    leader, swap = asked()
    effects = leader.record_read(swap.new, 0.2)
    assert phase(leader) is Phase.WON
    assert sent(effects, Lead) == [Lead(swap.new)]


def test_somebody_else_who_was_faster_is_another_end() -> None:
    leader, swap = asked()
    other = records.elected(FIRST, HOLDERS[2], SEATS)
    assert sent(leader.swap_answered(swap, other, 0.2), Lead) == []
    assert phase(leader) is Phase.SENT
    assert not leader.leads


def test_without_an_answer_it_stays_stopped_until_a_forced_swap_settles_it() -> None:
    leader, swap = asked()
    assert leader.record_read(FIRST, 0.3).swap is None, "the same version settles nothing"
    assert leader.tick(0.1 + LIMITS.swap_s).read
    assert not leader.serves
    forced = leader.tick(UNTIL + 0.1 + 2 * LIMITS.swap_s).swap
    assert forced is not None
    assert forced.new == records.touched(FIRST)
    assert not leader.serves
    leader.swap_answered(forced, forced.new, 5.0)
    assert phase(leader) is Phase.GIVEN_UP
    assert leader.serves, "the other swap cannot land any more"
    assert leader.swap_answered(swap, swap.new, 5.1).sends == []


def behind() -> Replica:
    """A leader with a frame that nobody else holds yet."""
    leader, _, _ = led()
    leader.log.grow(1)  # type: ignore[attr-defined]
    leader.log.durable_end = leader.log.end  # type: ignore[misc]
    leader.flushed(0.1)
    return leader


def held(leader: Replica, number: int, now: float) -> None:
    message = Held(Epoch(1), HOLDERS[0], HOLDERS[number], leader.log.end, ConfigVersion(1))
    leader.receive(message, now)


def test_nobody_is_named_before_everything_is_committed_and_held() -> None:
    leader = behind()
    assert leader.hand_over(SEATS[1], UNTIL, 0.2).swap is None
    assert phase(leader) is Phase.WAITING
    assert not leader.serves
    held(leader, 1, 0.3)
    assert leader.tick(0.31).swap is None, "the third copy is waited for: it is in sync"
    held(leader, 2, 0.4)
    swap = leader.tick(0.41).swap
    assert swap is not None
    assert swap.new.holder == HOLDERS[1]


def test_who_does_not_get_there_in_time_is_waited_for_no_more() -> None:
    leader = behind()
    leader.hand_over(SEATS[1], 0.5, 0.2)
    leader.tick(0.49)
    assert not leader.serves
    leader.tick(0.5)
    assert phase(leader) is Phase.GIVEN_UP
    assert leader.serves
    for number in (1, 2):
        held(leader, number, 0.6)
    assert leader.tick(0.7).swap is None
    assert leader.hand_over(SEATS[1], 1.5, 0.8).swap is not None, "and may be asked again"


def test_who_does_not_serve_hands_nothing_over() -> None:
    _, second, _ = led()
    assert second.hand_over(SEATS[2], UNTIL, 0.1).swap is None
    assert second.handover is None
    leader, swap = asked()
    before = leader.handover
    assert leader.hand_over(SEATS[2], UNTIL, 0.2).swap is None
    assert leader.handover == before
    assert before is not None
    assert before.swap == swap.new


def test_a_candidate_and_a_life_that_has_not_answered_are_not_named() -> None:
    leader, _, _ = led()
    one = leader.leader
    assert one is not None
    with pytest.raises(NotAllowed, match="committed"):
        handing(one.with_(begin=None), SEATS[1], 1)
    with pytest.raises(NotAllowed, match="committed"):
        handing(one, SEATS[1], 2)
    with pytest.raises(NotAllowed, match="hold"):
        handing(one.with_(copies=one.copies[:1]), SEATS[1], 1)
    with pytest.raises(NotAllowed, match="one swap"):
        handing(leaders.dropping(one, SEATS[2]), SEATS[1], 1)


def test_a_new_leadership_knows_nothing_of_an_earlier_handover() -> None:
    leader, swap = asked()
    leader.swap_answered(swap, swap.new, 0.2)
    third = records.elected(swap.new, HOLDERS[1], SEATS[1:])
    again = msgspec.structs.replace(third, holder=HOLDERS[0], isr=SEATS)
    leader.receive(Lead(again), 0.3)
    assert leader.handover is None
    assert leader.leads


# --- who is chosen -----------------------------------------------------------------------


def told(number: int, executed_end: int = 0, *, barred: bool = False) -> Told:
    answer = Answer(1, NO_PROMISE, Epoch(1), 1, barred)
    return Told(1, SEATS[number], answer, None, executed_end=executed_end)


def everybody(**changes: Told) -> dict[ReplicaId, Told]:
    return {ReplicaId(n): changes.get(f"r{n}", told(n)) for n in range(3)}


def test_without_a_wish_the_one_that_has_executed_most_is_chosen_then_the_lowest() -> None:
    assert chosen(FIRST, SEATS[0], everybody(), None, 3) == SEATS[1]
    assert chosen(FIRST, SEATS[0], everybody(r2=told(2, 9)), None, 3) == SEATS[2]


def test_a_wish_is_granted_to_a_copy_in_sync() -> None:
    assert chosen(FIRST, SEATS[0], everybody(), ReplicaId(2), 3) == SEATS[2]


@pytest.mark.parametrize(
    ("wanted", "said", "why"),
    [
        (0, everybody(), "leads already"),
        (7, everybody(), "replica 7 is not in sync"),
        (1, {}, "does not answer"),
        (1, everybody(r1=told(1, barred=True)), "barred"),
    ],
)
def test_others_are_refused_with_the_reason(
    wanted: int, said: dict[ReplicaId, Told], why: str
) -> None:
    found = chosen(FIRST, SEATS[0], said, ReplicaId(wanted), 3)
    assert isinstance(found, str)
    assert why in found


def test_another_disk_in_the_place_of_one_in_sync_is_not_it() -> None:
    stranger = msgspec.structs.replace(told(1), seat=Seat(ReplicaId(1), HOLDERS[2].seat.disk))
    assert isinstance(chosen(FIRST, SEATS[0], {ReplicaId(1): stranger}, ReplicaId(1), 3), str)


def test_alone_nobody_is_chosen() -> None:
    alone = msgspec.structs.replace(FIRST, isr=SEATS[:1], min_isr=1)
    assert chosen(alone, SEATS[0], everybody(), None, 3) == "no other copy is in sync"


def test_only_an_attempt_that_was_given_up_lets_commands_in() -> None:
    stops = {one: Handover(SEATS[1], 0.0, one).stops for one in Phase}
    assert stops == {
        Phase.WAITING: True, Phase.SENT: True, Phase.WON: True, Phase.GIVEN_UP: False,
    }  # fmt: skip


def test_the_life_that_has_answered_is_the_one_that_is_named() -> None:
    leader, _, _ = led()
    one = leader.leader
    assert one is not None
    later = leaders.answered(one, SEATS[1], start=5, position=1, version=ConfigVersion(1))
    assert handing(later, SEATS[1], 1).unresolved[-1].holder == Holder(SEATS[1], 5)
