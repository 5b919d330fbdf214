"""Another number of copies: one place at a time, and nobody leaves who has not sworn to it."""

import msgspec
import pytest

from ultraengine.model.errors import InvariantBroken
from ultraengine.model.ids import ConfigVersion, Epoch, ShardId
from ultraengine.replication import leader as leaders
from ultraengine.replication import promotion, sizing
from ultraengine.replication import record as records
from ultraengine.replication.leader import Leader
from ultraengine.replication.promise import NO_PROMISE, Promise, adopted, promised, reserved
from ultraengine.replication.promotion import Answer, Refused
from ultraengine.replication.record import (
    DiskId,
    Holder,
    NotAllowed,
    Record,
    ReplicaId,
    Seat,
    Size,
)
from ultraengine.replication.sizing import Wish

SEATS = tuple(Seat(ReplicaId(n), DiskId(bytes([n]))) for n in range(4))
ME = Holder(SEATS[0], 1)


def first(copies: int) -> Record:
    return records.bootstrap(b"c", ShardId(0), ME, SEATS[:copies], copies // 2 + 1)


TWO, THREE = first(2), first(3)
READY = records.grown(TWO, SEATS[2])
"""Two copies, and the next one in sync."""
MORE = records.widened(READY, 2)
LESS = records.narrowed(THREE, 2)


def led(record: Record, *versions: int) -> Leader:
    """By the first, after its epoch-start frame; the copies have sworn to these versions."""
    leader = Leader(ME, record, begin=0, committed_end=1)
    for seat, version in zip(SEATS, versions, strict=False):
        leader = leaders.answered(leader, seat, start=1, position=1, version=ConfigVersion(version))
    return leader


def test_a_place_more_is_one_more_that_is_counted_and_orders_the_numbers() -> None:
    assert READY.replicas == 2
    assert (MORE.replicas, MORE.min_isr, MORE.isr, MORE.before) == (3, 2, SEATS[:3], 2)
    assert MORE.size == Size(Epoch(1), ConfigVersion(3), 3, 2) > READY.size
    assert records.agreed(MORE).before == 0
    with pytest.raises(NotAllowed, match="no change"):
        records.agreed(READY)


def test_a_place_less_keeps_its_copy_in_sync_until_all_have_sworn() -> None:
    assert (LESS.replicas, LESS.isr, LESS.before) == (2, SEATS[:3], 3)
    for seat in SEATS[1:3]:
        with pytest.raises(NotAllowed):
            records.shrunk(LESS, seat)
    assert records.shrunk(records.agreed(LESS), SEATS[2]).isr == SEATS[:2]


@pytest.mark.parametrize(
    ("record", "why"),
    [
        (TWO, "are not in sync"),
        (records.shrunk(THREE, SEATS[1]), "are not in sync"),
        (MORE, "one change at a time"),
        (msgspec.structs.replace(READY, settled=False), "one change at a time"),
    ],
)
def test_no_place_comes_before_all_copies_are_in_sync_and_the_last_change_is_over(
    record: Record, why: str
) -> None:
    with pytest.raises(NotAllowed, match=why):
        records.widened(record, 2)


def test_no_place_goes_while_its_copy_leads_or_another_is_missing() -> None:
    led_by_the_last = msgspec.structs.replace(TWO, holder=Holder(SEATS[1], 1))
    with pytest.raises(NotAllowed, match="does not go"):
        records.narrowed(led_by_the_last, 1)
    with pytest.raises(NotAllowed, match="are not in sync"):
        records.narrowed(records.shrunk(THREE, SEATS[1]), 2)
    with pytest.raises(NotAllowed, match="others still are"):
        records.narrowed(records.agreed(LESS), 1)
    with pytest.raises(NotAllowed):
        records.narrowed(first(1), 0)
    with pytest.raises(NotAllowed, match="3 in sync of 2"):
        records.narrowed(THREE, 3)


def test_a_copy_of_a_place_that_is_none_comes_in_only_as_the_next_and_counts_for_nothing() -> None:
    with pytest.raises(NotAllowed, match="not the next"):
        records.grown(TWO, SEATS[3])
    assert records.counted(READY, READY.isr) == 2
    with pytest.raises(NotAllowed, match="are needed"):
        records.shrunk(READY, SEATS[1])
    with pytest.raises(NotAllowed, match="are needed"):
        records.elected(READY, ME, (SEATS[0], SEATS[2]))
    with pytest.raises(NotAllowed, match="while the number of copies changes"):
        records.elected(READY, Holder(SEATS[2], 1), SEATS[:3])
    with pytest.raises(InvariantBroken, match="the holder is of the shard"):
        records.check(msgspec.structs.replace(READY, holder=Holder(SEATS[2], 1)))


def test_whoever_leads_next_keeps_those_who_may_not_have_sworn() -> None:
    with pytest.raises(NotAllowed, match="while the number of copies changes"):
        records.elected(MORE, ME, (SEATS[0], SEATS[2]))
    assert records.elected(MORE, ME, SEATS[:2]).before == 2
    answers = {SEATS[0]: answer(MORE), SEATS[2]: answer(MORE)}
    plan = promotion.plan_failover(MORE, answers, cluster_uid=b"c")
    assert isinstance(plan, Record)
    assert plan.isr == SEATS[:3]


def test_a_leader_makes_a_place_only_when_all_in_sync_know_that_they_are() -> None:
    with pytest.raises(NotAllowed, match="know that they are"):
        leaders.widening(led(READY, 2, 2, 1), 2)
    assert leaders.widening(led(READY, 2, 2, 2), 2).unresolved == (MORE,)


def test_the_change_is_over_when_those_of_before_have_sworn_to_it() -> None:
    for versions in ((3, 2, 2), (3,)):
        with pytest.raises(NotAllowed, match="has not sworn to 3 copies"):
            leaders.agreeing(led(MORE, *versions))
    assert leaders.agreeing(led(MORE, 3, 3)).unresolved == (records.agreed(MORE),)


def test_only_disks_of_the_shards_places_let_an_epoch_begin() -> None:
    candidate = Leader(ME, READY)
    for seat in (SEATS[0], SEATS[2]):
        candidate = leaders.answered(candidate, seat, start=1, position=0, version=ConfigVersion(2))
    assert not leaders.may_begin(candidate)
    assert leaders.may_begin(
        leaders.answered(candidate, SEATS[1], start=1, position=0, version=ConfigVersion(2))
    )


def test_a_leader_goes_one_step_towards_the_wish_of_its_settings() -> None:
    def swap(record: Record, wish: Wish) -> Record:
        (step,) = sizing.steps(record, wish)
        return step(led(record, record.version, record.version, record.version)).unresolved[0]

    assert swap(READY, Wish(3)) == MORE
    assert swap(THREE, Wish(1)) == LESS
    assert swap(TWO, Wish(1)).min_isr == 1
    assert sizing.steps(THREE, Wish(3)) == sizing.steps(THREE, None) == []


def test_the_number_that_is_needed_is_more_than_half_or_what_is_told() -> None:
    assert [Wish(3).fewest(copies) for copies in (1, 2, 3)] == [1, 2, 2]
    assert [Wish(3, 3).fewest(copies) for copies in (1, 2, 3)] == [1, 2, 3]
    assert [Wish(3, 1).fewest(copies) for copies in (1, 2, 3)] == [1, 1, 1]


def test_one_copy_ahead_is_let_in_or_let_go() -> None:
    assert sizing.places(TWO, Wish(3)) == 3
    assert sizing.places(THREE, Wish(1)) == 2
    assert sizing.places(THREE, Wish(3)) == sizing.places(THREE, None) == 3
    assert sizing.places(LESS, Wish(1)) == 2, "one change at a time"
    assert sizing.surplus(THREE, Wish(2)) == [SEATS[2]]
    assert sizing.surplus(READY, Wish(3)) == []
    assert sizing.surplus(READY, Wish(2)) == [SEATS[2]]
    assert sizing.goes(Wish(2), 2)
    assert not sizing.goes(Wish(2), 1)


def answer(record: Record, *, end: int = 5, epoch: int | None = None) -> Answer:
    """Of a disk that has sworn to a record."""
    sworn = Promise(
        record.epoch if epoch is None else Epoch(epoch),
        record.holder if epoch is None else None,
        record.version,
        seated=True,
        size=record.size,
    )
    return Answer(1, sworn, Epoch(1), end)


def test_after_a_roll_back_behind_the_change_the_newest_number_says_how_many_are_heard() -> None:
    one = first(1)
    two = records.widened(records.grown(one, SEATS[1]), 2)
    alone = {SEATS[0]: answer(two, epoch=7)}
    assert promotion.plan_recovery(one, Epoch(7), alone) is Refused.TOO_FEW
    both = {**alone, SEATS[1]: answer(two, end=6, epoch=7)}
    made = promotion.plan_recovery(one, Epoch(7), both)
    assert isinstance(made, Record)
    assert (made.replicas, made.min_isr, made.holder.seat) == (2, 2, SEATS[1])
    assert (made.resized, made.before) == ((7, made.version), 0)


def test_a_copy_that_was_let_go_neither_testifies_nor_is_chosen() -> None:
    two = records.shrunk(records.agreed(LESS), SEATS[2])
    gone = {SEATS[2]: answer(LESS, end=99)}
    assert promotion.plan_failover(two, gone, cluster_uid=b"c") is Refused.TOO_FEW
    plan = promotion.plan_failover(two, {**gone, SEATS[1]: answer(two)}, cluster_uid=b"c")
    assert isinstance(plan, Record)
    assert (plan.holder.seat, plan.isr) == (SEATS[1], SEATS[:2])
    swore = {SEATS[2]: answer(two, end=99, epoch=7), SEATS[1]: answer(two, epoch=7)}
    assert promotion.plan_recovery(TWO, Epoch(7), swore) is Refused.TOO_FEW


def test_a_disk_swears_to_the_number_of_the_newest_record_that_it_has_acted_on() -> None:
    two, three = TWO.size, MORE.size
    mine = promised(NO_PROMISE, Epoch(1), ME, ConfigVersion(3), size=three)
    assert mine.size == three
    assert promised(mine, Epoch(1), ME, ConfigVersion(1), size=two).size == three
    assert promised(mine, Epoch(2), ME, ConfigVersion(1), size=two).size == two
    assert promised(mine, Epoch(2), ME, ConfigVersion(4)).size == three
    later = reserved(mine, Epoch(9))
    assert later is not None
    assert later.size == three


def test_a_log_that_was_not_replicated_is_above_all_its_epochs_and_of_nobody_yet() -> None:
    assert adopted(Epoch(4)) == Promise(Epoch(4), None, ConfigVersion(0), seated=True)
