"""Who plans failovers: in which order it reads and asks, and what it makes of the answers."""

from collections.abc import Mapping

import msgspec
import pytest

from ultraengine.model.ids import ConfigVersion, Epoch, ShardId
from ultraengine.replication import record as records
from ultraengine.replication.effects import Swap
from ultraengine.replication.messages import Ask, Lead, Reserve, Told
from ultraengine.replication.planner import Planner, PlannerEffects, PlannerLimits
from ultraengine.replication.promise import NO_PROMISE, Promise
from ultraengine.replication.promotion import Answer
from ultraengine.replication.record import DiskId, Holder, Record, ReplicaId, Seat

SEATS = tuple(Seat(ReplicaId(n), DiskId(bytes([n]))) for n in range(3))
HOLDERS = tuple(Holder(seat, 1) for seat in SEATS)
FIRST = records.bootstrap(b"c", ShardId(0), HOLDERS[0], SEATS, 2)
LIMITS = PlannerLimits(round_s=1.0, answers_s=1.0, silence_s=5.0)
LED = Promise(Epoch(1), HOLDERS[0], ConfigVersion(1), seated=True)
NEWER = Promise(Epoch(2), HOLDERS[1], ConfigVersion(5), seated=True)


class Planning:
    """A planner, and the rounds that a test lets it have."""

    def __init__(self, record: Record = FIRST, only: Seat | None = None, patience: int = 0) -> None:
        self.planner = Planner(b"c", 3, LIMITS, 0.0, only=only, patience=patience)
        self.record = record
        self.now = 0.0

    def wait(self) -> PlannerEffects:
        self.now += 1.0
        return self.planner.tick(self.now)

    def answer(
        self, number: int, promises: Mapping[int, Promise], leads: int | None, start: int = 1
    ) -> None:
        for replica, promise in promises.items():
            answer = Answer(start, promise, Epoch(1), 10 + replica)
            epoch = Epoch(leads) if leads and SEATS[replica] == self.record.holder.seat else None
            self.planner.told(Told(number, SEATS[replica], answer, epoch))

    def round(
        self, promises: Mapping[int, Promise], leads: int | None = None, start: int = 1
    ) -> PlannerEffects:
        """Read, ask, hear, decide."""
        assert self.wait() == PlannerEffects(read=True)
        ask = self.planner.record_read(self.record, self.now).ask
        assert isinstance(ask, Ask)
        self.answer(ask.number, promises, leads, start)
        return self.wait()

    def rounds(self, count: int, promises: Mapping[int, Promise]) -> PlannerEffects:
        """Several, without a leader; what the last one comes to."""
        effects = PlannerEffects()
        for _ in range(count):
            effects = self.round(promises)
        return effects


def everybody(promise: Promise = LED) -> dict[int, Promise]:
    return dict.fromkeys(range(3), promise)


def test_the_record_is_read_before_the_disks_are_asked() -> None:
    planning = Planning()
    assert planning.wait() == PlannerEffects(read=True)
    assert planning.planner.tick(planning.now + 0.5) == PlannerEffects()
    assert isinstance(planning.planner.record_read(FIRST, planning.now).ask, Ask)


def test_a_round_ends_when_everybody_has_answered() -> None:
    planning = Planning()
    planning.wait()
    planning.planner.record_read(FIRST, planning.now)
    planning.answer(1, everybody(), None)
    assert planning.planner.tick(planning.now + 0.01).lead == Lead(FIRST)


def test_answers_to_an_earlier_question_do_not_count() -> None:
    planning = Planning()
    planning.rounds(6, {})
    planning.wait()
    planning.planner.record_read(FIRST, planning.now)
    planning.answer(1, everybody(), None)
    assert planning.wait() == PlannerEffects()


def test_a_read_without_an_answer_or_without_a_record_ends_the_round() -> None:
    planning = Planning()
    planning.wait()
    assert planning.wait() == PlannerEffects()
    assert planning.wait() == PlannerEffects(read=True)
    assert planning.planner.record_read(None, planning.now) == PlannerEffects()
    assert planning.wait() == PlannerEffects()
    assert planning.planner.record_read(FIRST, planning.now) == PlannerEffects()


def test_a_leader_that_leads_is_left_alone() -> None:
    planning = Planning()
    for _ in range(10):
        assert planning.round(everybody(), leads=1) == PlannerEffects()


def test_a_holder_that_does_not_lead_yet_is_told_so() -> None:
    planning = Planning()
    assert planning.round(everybody(NO_PROMISE)) == PlannerEffects(lead=Lead(FIRST))


def test_a_silent_leader_is_replaced_by_the_best_member_that_answers() -> None:
    planning = Planning()
    others = {1: LED, 2: LED}
    assert planning.round(others) == PlannerEffects()
    new = records.elected(FIRST, HOLDERS[2], SEATS[1:])
    assert planning.rounds(2, others).swap == Swap(FIRST, new)


def test_a_record_that_is_not_settled_is_recovered_again_and_at_once() -> None:
    planning = Planning()
    planning.record = msgspec.structs.replace(FIRST, settled=False)
    others = {1: LED, 2: LED}
    planning.rounds(2, others)
    asked = planning.round(others).ask
    assert isinstance(asked, Reserve)
    planning.answer(
        asked.number,
        dict.fromkeys((1, 2), Promise(asked.epoch, None, LED.version, seated=True)),
        None,
    )
    swap = planning.wait().swap
    assert swap is not None
    assert (swap.new.holder.seat, swap.new.epoch, swap.new.settled) == (
        SEATS[2],
        asked.epoch,
        False,
    )


def test_a_restarted_holder_is_replaced_by_its_next_life() -> None:
    planning = Planning(only=SEATS[0])
    for _ in range(2):
        effects = planning.round(everybody(), leads=1, start=2)
    assert effects.lead is None
    assert effects.swap is None
    effects = planning.round(everybody(), start=2)
    assert effects.swap is not None
    assert effects.swap.new.holder == Holder(SEATS[0], 2)


def test_too_few_answers_are_no_plan() -> None:
    assert Planning().rounds(6, {1: LED}) == PlannerEffects()


def test_a_disk_that_knows_better_is_believed_in_the_second_round() -> None:
    planning = Planning()
    knows = {0: LED, 1: NEWER, 2: LED}
    assert planning.round(knows, leads=1) == PlannerEffects()
    (reserve,) = [planning.round(knows, leads=1).ask]
    assert reserve == Reserve(3, Epoch(3))
    sworn = msgspec.structs.replace(NEWER, epoch=Epoch(3), holder=None)
    planning.answer(3, {1: sworn, 2: sworn, 0: LED}, None)
    swap = planning.wait().swap
    assert swap is not None
    assert (swap.new.epoch, swap.new.version) == (3, 6)
    assert (swap.new.holder, swap.new.isr) == (HOLDERS[2], SEATS[1:])


def test_a_patient_planner_lets_others_recover_first() -> None:
    knows = {0: LED, 1: NEWER, 2: LED}
    planning = Planning(patience=2)
    for _ in range(3):
        assert planning.round(knows, leads=1) == PlannerEffects()
    assert isinstance(planning.round(knows, leads=1).ask, Reserve)
    planning = Planning(patience=2)
    for _ in range(3):
        planning.round(knows, leads=1)
    planning.round(everybody(), leads=1)  # Somebody else was quicker: all is well.
    for _ in range(3):
        assert planning.round(knows, leads=1) == PlannerEffects()


def test_too_few_that_have_sworn_are_no_recovery() -> None:
    planning = Planning()
    knows = {0: LED, 1: NEWER}
    planning.round(knows)
    ask = planning.round(knows).ask
    assert isinstance(ask, Reserve)
    planning.answer(ask.number, knows, None)
    assert planning.wait() == PlannerEffects()


def test_a_change_between_the_read_and_the_answers_is_no_roll_back() -> None:
    planning = Planning()
    ahead = everybody(Promise(Epoch(1), HOLDERS[0], ConfigVersion(2), seated=True))
    assert planning.round(ahead, leads=1) == PlannerEffects()
    assert planning.round(everybody(), leads=1) == PlannerEffects()
    assert planning.round(ahead, leads=1) == PlannerEffects()


def test_a_disk_that_has_sworn_the_epoch_to_another_candidate_gets_a_new_epoch() -> None:
    planning = Planning()
    other = Promise(Epoch(1), HOLDERS[2], ConfigVersion(1), seated=True)
    split = {0: LED, 1: LED, 2: other}
    for _ in range(3):
        effects = planning.round(split, leads=1)
    assert effects.swap is not None
    assert effects.swap.new.epoch == 2


@pytest.mark.parametrize("won", [True, False])
def test_a_holder_is_told_of_a_swap_that_is_known_won(won: bool) -> None:
    swap = Swap(FIRST, records.touched(FIRST))
    told = Planning().planner.swap_answered(swap, swap.new if won else FIRST)
    assert told.lead == (Lead(swap.new) if won else None)


def test_a_leader_whose_disk_hangs_is_replaced_by_one_whose_does_not() -> None:
    planning = Planning()
    effects = PlannerEffects()
    for _ in range(3):
        planning.wait()
        ask = planning.planner.record_read(FIRST, planning.now).ask
        assert isinstance(ask, Ask)
        for seat in SEATS:
            stalled = seat == FIRST.holder.seat
            told = Told(
                ask.number,
                seat,
                Answer(1, LED, Epoch(1), 10),
                Epoch(1) if stalled else None,
                LIMITS.silence_s if stalled else LIMITS.silence_s - 0.1,
            )
            planning.planner.told(told)
        effects = planning.wait()
    assert effects.swap is not None
    assert effects.swap.new.holder == HOLDERS[1]


def test_a_planner_that_follows_another_asks_questions_of_its_own() -> None:
    planner = Planner(b"c", 3, LIMITS, 0.0, numbers_from=41)
    planner.tick(1.0)
    assert planner.record_read(FIRST, 1.0).ask == Ask(42)
    assert planner.number == 42


def test_a_planner_that_stood_still_takes_its_sleep_for_nobodys_silence() -> None:
    planning = Planning()
    assert planning.round(everybody(), leads=1) == PlannerEffects()
    assert planning.wait() == PlannerEffects(read=True)
    ask = planning.planner.record_read(FIRST, planning.now).ask
    assert isinstance(ask, Ask)
    planning.now += 60.0
    assert planning.wait() == PlannerEffects(), "what came meanwhile was not read yet"
    planning.answer(ask.number, everybody(), leads=1)
    assert planning.wait() == PlannerEffects()
    for _ in range(2):
        assert planning.round({1: LED, 2: LED}).swap is None


def test_a_planner_that_always_wakes_late_finds_out_about_a_lost_leader_all_the_same() -> None:
    planning = Planning()
    for _ in range(100):
        planning.now += 9.0
        effects = planning.wait()
        if effects.read:
            ask = planning.planner.record_read(FIRST, planning.now).ask
            assert isinstance(ask, Ask)
            planning.answer(ask.number, {1: LED, 2: LED}, None)
        if effects.swap is not None:
            break
    assert effects.swap is not None
    assert effects.swap.new.holder.seat in SEATS[1:]
