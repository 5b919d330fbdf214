"""The single functions of the protocol, at their edges."""

import msgspec
import pytest

from ultraengine.model.errors import InvariantBroken
from ultraengine.model.ids import ConfigVersion, Epoch, ShardId
from ultraengine.replication import epochs, follower, leader, promise, promotion, record
from ultraengine.replication.epochs import EpochStart
from ultraengine.replication.follower import Follower, Join, Verdict
from ultraengine.replication.leader import Leader
from ultraengine.replication.messages import Append
from ultraengine.replication.promise import NO_PROMISE, Promise
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

SEATS = tuple(Seat(ReplicaId(n), DiskId(bytes([n]))) for n in range(3))
ME = Holder(SEATS[0], 1)
FIRST = record.bootstrap(b"c", ShardId(0), ME, SEATS, 2)


class Log(msgspec.Struct):
    """A log that ends somewhere, of epoch 1 alone."""

    end: int
    durable_end: int
    epochs: tuple[EpochStart, ...] = (EpochStart(Epoch(1), 0),)

    def chain(self, position: int) -> object:
        """One hash for each position."""
        return f"hash-{position}"


def leading(**changes: object) -> Leader:
    """A leader of epoch 1 that all have joined, with its epoch-start frame at 0."""
    one = Leader(ME, FIRST)
    for seat in SEATS:
        one = leader.answered(one, seat, start=1, position=0, version=ConfigVersion(1))
    return leader.begun(one, 0).with_(**changes)


def answered(one: Leader, position: int, *numbers: int, version: int = 1) -> Leader:
    """The leader after these replicas' answers."""
    for number in numbers:
        one = leader.answered(
            one, SEATS[number], start=1, position=position, version=ConfigVersion(version)
        )
    return one


# --- the record --------------------------------------------------------------------------


def test_a_record_names_its_holder_among_enough_seats_one_for_each_replica() -> None:
    twice = Seat(ReplicaId(1), DiskId(b"new"))
    for isr, min_isr in ((SEATS[1:], 2), ((*SEATS, twice), 2), (SEATS, 4), (SEATS, 0)):
        with pytest.raises(InvariantBroken):
            record.bootstrap(b"c", ShardId(0), ME, isr, min_isr)


def test_every_change_is_one_version_further() -> None:
    without = record.shrunk(FIRST, SEATS[2])
    assert without.isr == SEATS[:2]
    assert record.grown(without, SEATS[2]).isr == SEATS
    assert record.touched(FIRST) == msgspec.structs.replace(FIRST, version=ConfigVersion(2))
    assert without.order == (1, 2)


def test_nobody_leaves_below_min_isr_and_the_holder_never() -> None:
    without = record.shrunk(FIRST, SEATS[2])
    for last, seat in ((without, SEATS[1]), (FIRST, ME.seat), (without, SEATS[2])):
        with pytest.raises(NotAllowed):
            record.shrunk(last, seat)


def test_a_replica_has_one_seat_whatever_its_disk() -> None:
    with pytest.raises(NotAllowed):
        record.grown(FIRST, Seat(ReplicaId(2), DiskId(b"new")))


def test_the_next_leader_is_drawn_from_the_isr_with_enough_beside_it() -> None:
    holder = Holder(SEATS[1], 4)
    made = record.elected(FIRST, holder, SEATS[1:])
    assert (made.epoch, made.holder, made.isr, made.version) == (2, holder, SEATS[1:], 2)
    without = record.shrunk(FIRST, SEATS[2])
    for last, isr in ((FIRST, SEATS[1:2]), (FIRST, SEATS[::2]), (without, SEATS[1:])):
        with pytest.raises(NotAllowed):
            record.elected(last, holder, isr)


def test_a_recovered_record_goes_forward_or_is_refused() -> None:
    made = record.recovered(FIRST, Epoch(5), ConfigVersion(9), ME, SEATS[:2])
    assert (made.order, made.settled) == ((5, 9), False)
    for epoch, version in ((1, 9), (0, 9)):
        with pytest.raises(NotAllowed):
            record.recovered(FIRST, Epoch(epoch), ConfigVersion(version), ME, SEATS[:2])


def test_of_a_recovered_isr_nobody_is_elected_before_its_leader_has_settled_it() -> None:
    made = record.recovered(FIRST, Epoch(5), ConfigVersion(9), ME, SEATS[:2])
    with pytest.raises(NotAllowed):
        record.elected(made, Holder(SEATS[1], 4), SEATS[:2])
    for later in (record.grown(made, SEATS[2]), record.touched(made)):
        assert not later.settled
    done = record.settled(made)
    assert done == msgspec.structs.replace(made, settled=True, version=ConfigVersion(10))
    assert record.elected(done, Holder(SEATS[1], 4), SEATS[:2]).epoch == 6
    with pytest.raises(NotAllowed):
        record.settled(done)


# --- promises ----------------------------------------------------------------------------


def test_a_promise_takes_its_own_leader_and_higher_epochs() -> None:
    mine = Promise(Epoch(2), ME, ConfigVersion(3))
    other = Holder(SEATS[1], 1)
    assert promise.takes(mine, Epoch(2), ME)
    assert promise.takes(mine, Epoch(3), other)
    assert not promise.takes(mine, Epoch(2), other)
    assert not promise.takes(mine, Epoch(1), ME)
    assert promise.takes(Promise(Epoch(2), None, ConfigVersion(0)), Epoch(2), other)


def test_a_promise_keeps_its_seat_and_its_highest_version_within_an_epoch() -> None:
    mine = Promise(Epoch(2), ME, ConfigVersion(3), seated=True)
    assert promise.promised(mine, Epoch(2), ME, ConfigVersion(1)) is mine
    later = promise.promised(mine, Epoch(3), ME, ConfigVersion(1))
    assert later == Promise(Epoch(3), ME, ConfigVersion(1), seated=True)


def test_an_epoch_is_reserved_once_and_only_ahead() -> None:
    mine = Promise(Epoch(2), ME, ConfigVersion(3))
    kept = promise.reserved(mine, Epoch(3))
    assert kept == Promise(Epoch(3), None, ConfigVersion(3))
    assert promise.reserved(mine, Epoch(2)) is None


def test_a_life_leads_only_what_names_it_and_what_it_has_not_sworn() -> None:
    sworn = promise.promised(NO_PROMISE, Epoch(1), ME, ConfigVersion(1))
    assert promise.may_lead(NO_PROMISE, FIRST, ME)
    assert not promise.may_lead(sworn, FIRST, ME)
    assert not promise.may_lead(NO_PROMISE, FIRST, Holder(SEATS[0], 2))
    assert promise.may_lead(Promise(Epoch(1), None, ConfigVersion(0)), FIRST, ME)


@pytest.mark.parametrize(
    ("known", "behind"),
    [
        (FIRST, False),
        (None, True),
        (msgspec.structs.replace(FIRST, cluster_uid=b"other"), True),
        (msgspec.structs.replace(FIRST, version=ConfigVersion(0)), True),
        (msgspec.structs.replace(FIRST, epoch=Epoch(2), version=ConfigVersion(0)), False),
    ],
)
def test_a_disk_knows_when_the_record_has_gone_back(known: Record | None, behind: bool) -> None:
    assert promise.is_behind(known, Promise(Epoch(1), ME, ConfigVersion(1)), b"c") is behind


SECOND = record.elected(record.touched(FIRST), Holder(SEATS[1], 1), SEATS)
"""Of a history in which epoch 1 had versions 1 and 2."""


@pytest.mark.parametrize(
    ("sworn", "later"),
    [
        (NO_PROMISE, True),
        (Promise(Epoch(1), ME, ConfigVersion(1)), True),
        (Promise(Epoch(1), ME, ConfigVersion(2)), True),
        (Promise(Epoch(1), ME, ConfigVersion(3)), False),
        (Promise(Epoch(2), Holder(SEATS[1], 1), ConfigVersion(3)), True),
        (Promise(Epoch(2), Holder(SEATS[1], 1), ConfigVersion(2)), False),
        (Promise(Epoch(1), None, ConfigVersion(1)), False),
    ],
)
def test_a_record_of_a_time_that_was_taken_back_does_not_follow_what_a_disk_has_sworn(
    sworn: Promise, *, later: bool
) -> None:
    assert promise.follows(SECOND.elections, sworn) is later
    assert promise.is_behind(SECOND, sworn, b"c") is not later
    assert promise.may_lead(sworn, SECOND, Holder(SEATS[1], 1)) is (later and sworn.epoch < 2)


def test_a_candidate_that_was_elected_before_the_record_went_back_is_not_copied() -> None:
    log = Log(1, 1)
    table, chain = log.epochs, log.chain(1)
    for sworn, verdict in ((2, Verdict.TAKEN), (3, Verdict.STALE)):
        copy = Follower(Holder(SEATS[2], 1), Promise(Epoch(1), ME, ConfigVersion(sworn)))
        join = Join(
            SECOND.epoch, SECOND.holder, SECOND.version, True, table, 1, 1, chain,
            elections=SECOND.elections,
        )  # fmt: skip
        assert follower.join(copy, join, log).verdict is verdict


def test_what_is_older_than_all_elections_of_a_record_is_not_judged() -> None:
    made = record.recovered(SECOND, Epoch(7), ConfigVersion(5), ME, SEATS[:2])
    assert promise.follows(made.elections, Promise(Epoch(6), ME, ConfigVersion(99)))
    assert promise.follows((), Promise(Epoch(6), ME, ConfigVersion(99)))
    kept = record.settled(made)
    for _ in range(record.ELECTIONS_MAX):
        kept = record.elected(kept, ME, SEATS[:2])
    assert len(kept.elections) == record.ELECTIONS_MAX
    assert kept.elections[0] == (record.Election(Epoch(8), ConfigVersion(7)))


def test_an_epoch_that_was_reserved_is_taken_with_any_record_of_it() -> None:
    made = record.recovered(SECOND, Epoch(7), ConfigVersion(5), ME, SEATS[:2])
    assert not promise.is_behind(made, Promise(Epoch(7), None, ConfigVersion(3)), b"c")


def test_a_leader_whose_epoch_was_given_again_after_a_roll_back_is_over() -> None:
    again = record.elected(record.touched(record.touched(FIRST)), SECOND.holder, SEATS)
    one = Leader(SECOND.holder, SECOND)
    assert again.order > SECOND.order
    assert leader.read(one, again).over
    assert not leader.read(one, record.touched(SECOND)).over


# --- the leader --------------------------------------------------------------------------


def test_a_candidate_begins_once_enough_disks_have_sworn_its_own_among_them() -> None:
    one = Leader(ME, FIRST)
    others = answered(one, 0, 1, 2)
    assert not leader.may_begin(others)
    with pytest.raises(NotAllowed):
        leader.begun(others, 0)
    both = answered(one, 0, 0, 1)
    assert leader.begun(both, 7).begin == 7
    assert not leader.may_begin(both.with_(over=True))
    assert not leader.may_begin(leader.begun(both, 7))
    assert answered(both, 9, 0, 1, 2).committed_end == 0


def test_a_commit_needs_every_member_in_sync_and_the_epoch_start() -> None:
    one = leading(begin=4)
    assert answered(one, 4, 0, 1, 2).committed_end == 0
    one = answered(one, 6, 0, 1)
    assert one.committed_end == 0
    assert answered(one, 5, 2).committed_end == 5
    assert answered(one.with_(over=True), 6, 2).committed_end == 0
    few = msgspec.structs.replace(FIRST, isr=SEATS[:1])
    assert answered(one.with_(record=few), 6, 0).committed_end == 0


def test_answers_of_an_earlier_life_are_late_and_those_of_a_later_one_begin_anew() -> None:
    one = answered(leading(), 5, 1)
    again = leader.answered(one, SEATS[1], start=2, position=3, version=ConfigVersion(1))
    assert leader.held(again, SEATS[1]) == 3
    late = leader.answered(again, SEATS[1], start=1, position=9, version=ConfigVersion(1))
    assert late == again
    assert leader.held(answered(one, 2, 1), SEATS[1]) == 5


def test_who_leaves_is_waited_for_until_that_is_won() -> None:
    one = leader.dropping(answered(leading(), 5, 0, 1), SEATS[2])
    assert leader.wait_set(one) == SEATS
    swap = one.unresolved[0]
    after = leader.won(one, swap)
    assert after.committed_end == 0  # The disks do not know the new record yet.
    assert answered(after, 5, 0, 1, version=2).committed_end == 5
    assert leader.won(after, swap) == after


def test_who_enters_is_waited_for_at_once_and_holds_what_is_committed() -> None:
    without = leading(record=record.shrunk(FIRST, SEATS[2]))
    one = answered(without, 5, 0, 1, version=2)
    with pytest.raises(NotAllowed):
        leader.adding(one, SEATS[2])
    one = leader.adding(answered(one, 5, 2), SEATS[2])
    assert leader.wait_set(one) == SEATS
    assert answered(one, 6, 0, 1).committed_end == 5
    with pytest.raises(NotAllowed):
        leader.dropping(one, SEATS[1])


def test_a_new_leader_takes_nobody_in_who_lacks_a_part_of_its_tail() -> None:
    # Of the tail, everything may have been acknowledged in the epoch before.
    small = msgspec.structs.replace(FIRST, isr=SEATS[:2])
    one = leader.answered(Leader(ME, small), ME.seat, start=1, position=7, version=ConfigVersion(1))
    one = leader.answered(one, SEATS[2], start=1, position=7, version=ConfigVersion(1))
    with pytest.raises(NotAllowed):
        leader.adding(one, SEATS[2])
    one = leader.begun(one, 8)
    assert one.committed_end == 0
    with pytest.raises(NotAllowed):
        leader.adding(one, SEATS[2])
    assert leader.adding(answered(one, 8, 2), SEATS[2]).unresolved[0].isr == SEATS


def test_a_leader_settles_its_record_once_its_epoch_start_frame_is_committed() -> None:
    made = record.recovered(FIRST, Epoch(5), ConfigVersion(9), ME, SEATS[:2])
    one = Leader(ME, made)
    for seat in SEATS[:2]:
        one = leader.answered(one, seat, start=1, position=4, version=ConfigVersion(9))
    one = leader.begun(one, 4)
    with pytest.raises(NotAllowed):
        leader.settling(one)
    for seat in SEATS[:2]:
        one = leader.answered(one, seat, start=1, position=5, version=ConfigVersion(9))
    assert one.committed_end == 5
    swap = leader.settling(one).unresolved[0]
    assert swap == record.settled(made)
    with pytest.raises(NotAllowed):
        leader.settling(leader.won(leader.settling(one), swap))


def test_an_unknown_outcome_is_settled_by_force_or_by_a_higher_version_alone() -> None:
    with pytest.raises(NotAllowed):
        leader.forcing(leading())
    one = leader.dropping(leading(), SEATS[2])
    assert leader.read(one, FIRST) == one
    forced = leader.forcing(one)
    assert len(forced.unresolved) == 2
    after = leader.won(forced, forced.unresolved[1])
    assert after.record.isr == SEATS
    assert after.unresolved == ()
    seen = leader.read(one, one.unresolved[0])
    assert seen.record.isr == SEATS[:2]


@pytest.mark.parametrize(
    "current",
    [
        msgspec.structs.replace(FIRST, epoch=Epoch(2)),
        msgspec.structs.replace(FIRST, holder=Holder(SEATS[0], 2)),
        msgspec.structs.replace(FIRST, version=ConfigVersion(0)),
    ],
)
def test_a_leader_whose_record_is_not_in_force_is_over(current: Record) -> None:
    assert leader.read(leading(), current).over
    with pytest.raises(NotAllowed):
        leader.dropping(leader.read(leading(), current), SEATS[2])


def test_a_swap_that_met_no_newer_record_shows_that_the_record_went_back() -> None:
    one = leader.dropping(leading(), SEATS[2])
    swap = one.unresolved[0]
    assert leader.lost(one, swap, FIRST).over
    newer = record.touched(FIRST)
    after = leader.lost(one, swap, newer)
    assert (after.over, after.record, after.unresolved) == (False, newer, ())
    assert leader.lost(after, swap, newer) == after


# --- logs and followers ------------------------------------------------------------------


def test_logs_agree_up_to_the_newest_epoch_that_both_have() -> None:
    mine = (EpochStart(Epoch(1), 0), EpochStart(Epoch(2), 4))
    theirs = (EpochStart(Epoch(1), 0), EpochStart(Epoch(3), 6))
    assert epochs.common_end(mine, 9, theirs, 8) == 4
    assert epochs.common_end(mine, 9, mine, 7) == 7
    assert epochs.common_end((), 0, theirs, 8) == 0
    with pytest.raises(InvariantBroken):
        epochs.common_end(mine, 9, (theirs[0], EpochStart(Epoch(2), 5)), 9)


def test_tables_are_cut_and_extended_with_their_logs() -> None:
    table = epochs.extended((), [EpochStart(Epoch(1), 0), EpochStart(Epoch(1), 2)])
    assert table == (EpochStart(Epoch(1), 0),)
    longer = epochs.extended(table, [EpochStart(Epoch(3), 4)])
    assert epochs.cut(longer, 4) == table
    assert (epochs.last_epoch(longer), epochs.last_epoch(())) == (3, 0)
    for wrong in (EpochStart(Epoch(2), 9), EpochStart(Epoch(4), 4)):
        with pytest.raises(InvariantBroken):
            epochs.extended(longer, [wrong])


def joining(**changes: object) -> Join:
    """A leader of epoch 1 whose log ends at 5."""
    one = Join(Epoch(1), ME, ConfigVersion(1), True, (EpochStart(Epoch(1), 0),), 5, 3, "hash-3")
    return msgspec.structs.replace(one, **changes)


def test_a_join_cuts_to_where_the_logs_agree_and_swears_first() -> None:
    joined = follower.join(Follower(Holder(SEATS[1], 1), NO_PROMISE), joining(), Log(3, 3))
    assert (joined.verdict, joined.cut_to) == (Verdict.TAKEN, 3)
    assert joined.follower.promise == Promise(Epoch(1), ME, ConfigVersion(1), seated=True)
    assert joined.follower.joined == 1


@pytest.mark.parametrize(
    ("its", "message", "verdict"),
    [
        ({"promise": Promise(Epoch(2), ME, ConfigVersion(1))}, {}, Verdict.STALE),
        ({}, {"agreed": 2}, Verdict.STALE),
        ({"committed_end": 4}, {}, Verdict.DIVERGED),
        ({}, {"chain": "another"}, Verdict.DIVERGED),
    ],
)
def test_a_join_that_is_late_or_contradicts_changes_nothing(
    its: dict[str, object], message: dict[str, object], verdict: Verdict
) -> None:
    one = Follower(Holder(SEATS[1], 1), NO_PROMISE).with_(**its)
    joined = follower.join(one, joining(**message), Log(3, 3))
    assert joined == follower.Joined(verdict, one, 3)


def test_frames_are_appended_only_in_order_from_the_leader_that_was_joined() -> None:
    one = follower.join(Follower(Holder(SEATS[1], 1), NO_PROMISE), joining(), Log(3, 3)).follower
    log, other = Log(3, 3), Holder(SEATS[2], 1)
    assert follower.may_append(one, Epoch(1), ME, 3, log)
    assert not follower.may_append(one, Epoch(1), ME, 4, log)
    assert not follower.may_append(one, Epoch(1), other, 3, log)
    assert not follower.may_append(one, Epoch(2), ME, 3, log)
    moved = one.with_(promise=Promise(Epoch(2), other, ConfigVersion(1)))
    assert not follower.may_append(moved, Epoch(1), ME, 3, log)


def test_a_newer_record_and_a_commit_index_count_only_from_the_leader_that_was_joined() -> None:
    one = follower.join(Follower(Holder(SEATS[1], 1), NO_PROMISE), joining(), Log(3, 3)).follower
    size = Size(Epoch(1), ConfigVersion(4), 4, 2)
    word = Append(Epoch(1), ME, SEATS[1], ConfigVersion(4), False, 0, 0, size=size)
    newer = follower.told(one, word)
    assert newer.promise == Promise(Epoch(1), ME, ConfigVersion(4), seated=True, size=size)
    assert follower.told(one, msgspec.structs.replace(word, epoch=Epoch(2))) == one
    assert follower.told(one, msgspec.structs.replace(word, leader=Holder(SEATS[2], 1))) == one
    assert follower.committed(one, Epoch(1), 9, Log(6, 5)).committed_end == 5
    assert follower.committed(one.with_(committed_end=4), Epoch(1), 2, Log(6, 5)).committed_end == 4
    assert follower.committed(one, Epoch(2), 9, Log(6, 5)) == one


# --- promotion ---------------------------------------------------------------------------


def answer(
    end: int, *, epoch: int = 1, version: int = 1, seated: bool = True, start: int = 1
) -> Answer:
    """What a replica that follows epoch 1 says."""
    return Answer(start, Promise(Epoch(epoch), ME, ConfigVersion(version), seated), Epoch(1), end)


def planned(answers: dict[Seat, Answer], **changes: object) -> Record | Refused:
    """A failover of `FIRST`."""
    arguments: dict[str, object] = {"cluster_uid": b"c", **changes}
    return promotion.plan_failover(FIRST, answers, **arguments)  # type: ignore[arg-type]


def test_the_longest_log_that_answers_leads_and_the_silent_leave() -> None:
    made = planned({SEATS[1]: answer(4), SEATS[2]: answer(5, start=3)})
    assert isinstance(made, Record)
    assert made.holder == Holder(SEATS[2], 3)
    assert made.isr == SEATS[1:]
    equal = planned({SEATS[1]: answer(5), SEATS[2]: answer(5)})
    assert isinstance(equal, Record)
    assert equal.holder.seat == SEATS[1]


def barred(end: int) -> Answer:
    """Of a replica whose execution differs from its leader's."""
    return msgspec.structs.replace(answer(end), barred=True)


def test_a_replica_whose_execution_differs_testifies_stays_in_sync_and_is_not_chosen() -> None:
    made = planned({SEATS[1]: answer(4), SEATS[2]: barred(5)})
    assert isinstance(made, Record)
    assert made.holder.seat == SEATS[1]
    assert made.isr == SEATS[1:]
    assert planned({SEATS[1]: barred(4), SEATS[2]: barred(5)}) is Refused.NO_CANDIDATE


def test_after_a_roll_back_the_newest_history_leads_or_nobody() -> None:
    def recovered(*answers: Answer) -> Record | Refused:
        sworn = dict(zip(SEATS, answers, strict=False))
        return promotion.plan_recovery(FIRST, Epoch(7), sworn)

    made = recovered(barred(5), answer(5))
    assert isinstance(made, Record)
    assert made.holder.seat == SEATS[1]
    assert recovered(barred(5), answer(4)) is Refused.NO_CANDIDATE


def test_a_restarted_holder_plans_for_itself_alone() -> None:
    made = planned({SEATS[0]: answer(4, start=2), SEATS[1]: answer(5)}, only=SEATS[0])
    assert isinstance(made, Record)
    assert made.holder == Holder(SEATS[0], 2)


def test_the_silent_stay_where_min_isr_would_not_be_reached() -> None:
    both = record.shrunk(FIRST, SEATS[2])
    made = promotion.plan_failover(
        both, {SEATS[1]: answer(4, version=2), SEATS[2]: answer(4)}, cluster_uid=b"c"
    )
    assert isinstance(made, Record)
    assert (made.holder.seat, made.isr) == (SEATS[1], SEATS[:2])


@pytest.mark.parametrize(
    ("answers", "why"),
    [
        ({SEATS[1]: answer(4)}, Refused.TOO_FEW),
        ({SEATS[1]: answer(4), Seat(ReplicaId(2), DiskId(b"x")): answer(4, seated=False)},
         Refused.TOO_FEW),
        ({SEATS[1]: answer(4), SEATS[2]: answer(4, version=2)}, Refused.ROLLED_BACK),
        ({Seat(ReplicaId(1), DiskId(b"x")): answer(4), Seat(ReplicaId(2), DiskId(b"x")): answer(4)},
         Refused.NO_CANDIDATE),
    ],
)  # fmt: skip
def test_there_is_no_plan_without_enough_disks_a_candidate_and_a_record_in_front(
    answers: dict[Seat, Answer], why: Refused
) -> None:
    assert planned(answers) is why


def test_of_a_record_that_is_not_settled_only_the_newest_history_is_planned() -> None:
    unsettled = msgspec.structs.replace(FIRST, settled=False)
    answers = {SEATS[1]: answer(4), SEATS[2]: answer(5)}
    plan = promotion.plan_failover(unsettled, answers, cluster_uid=b"c")
    assert plan is Refused.UNSETTLED
    made = promotion.plan_recovery(unsettled, Epoch(2), answers)
    assert isinstance(made, Record)
    assert (made.holder.seat, made.settled) == (SEATS[2], False)


def test_after_a_roll_back_the_newest_history_that_swore_leads_above_all_that_was_known() -> None:
    known = {SEATS[1]: answer(6, epoch=4, version=7), SEATS[2]: answer(5, epoch=2)}
    epoch = promotion.recovery_epoch(FIRST, known)
    assert (epoch, promotion.recovery_epoch(None, {})) == (5, 1)
    made = promotion.plan_recovery(FIRST, epoch, known)
    assert isinstance(made, Record)
    assert (made.order, made.holder.seat, made.isr) == ((5, 8), SEATS[1], SEATS[1:])
    unseated = {**known, SEATS[2]: answer(5, seated=False)}
    assert promotion.plan_recovery(FIRST, epoch, unseated) is Refused.TOO_FEW


def test_a_disk_that_has_sworn_an_epoch_is_not_new() -> None:
    assert promise.founding(NO_PROMISE) == Promise(Epoch(0), None, ConfigVersion(0), seated=True)
    assert promise.founding(Promise(Epoch(1), None, ConfigVersion(0))) is None
