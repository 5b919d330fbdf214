"""The machine of one replica: what it asks its driver to do, message by message."""

from typing import Any

import msgspec
import pytest

from ultraengine.model.ids import ConfigVersion, Epoch, ShardId
from ultraengine.replication import record as records
from ultraengine.replication.effects import Effects, ReplicaLimits, Swap
from ultraengine.replication.epochs import EpochStart, EpochTable
from ultraengine.replication.follower import Join
from ultraengine.replication.messages import (
    Append,
    Ask,
    Beacon,
    Behind,
    Found,
    Held,
    Hello,
    Joining,
    Lead,
    Message,
    Reserve,
    Told,
)
from ultraengine.replication.promise import NO_PROMISE, Promise
from ultraengine.replication.promotion import Answer
from ultraengine.replication.record import DiskId, Holder, Record, ReplicaId, Seat
from ultraengine.replication.replica import Replica

SEATS = tuple(Seat(ReplicaId(n), DiskId(bytes([n]))) for n in range(3))
HOLDERS = tuple(Holder(seat, 1) for seat in SEATS)
FIRST = records.bootstrap(b"c", ShardId(0), HOLDERS[0], SEATS, 2)
LIMITS = ReplicaLimits()
FRAME: Any = object()
"""The machine hands frames on and does not look into them."""


class Log(msgspec.Struct):
    """A log that is written and synced at once, unless a test says otherwise."""

    end: int = 0
    durable_end: int = 0
    epochs: EpochTable = ()

    def chain(self, position: int) -> object:
        return f"hash-{position}"

    def grow(self, epoch: int, frames: int = 1) -> None:
        if not self.epochs or self.epochs[-1].epoch != epoch:
            self.epochs = (*self.epochs, EpochStart(Epoch(epoch), self.end))
        self.end += frames


def replica(number: int, promise: Promise = NO_PROMISE, log: Log | None = None) -> Replica:
    """One life that has just begun."""
    others = [ReplicaId(n) for n in range(3) if n != number]
    return Replica(HOLDERS[number], promise, log or Log(), others, LIMITS, 0.0)


def sent(effects: Effects, kind: type[Any]) -> list[Any]:
    """The messages of a kind that are to be sent."""
    return [one.message for one in effects.sends if isinstance(one.message, kind)]


def exchange(leader: Replica, copy: Replica, message: Message, now: float) -> None:
    """Let two replicas answer each other until nothing is left to say; logs grow in place."""
    queue: list[tuple[Replica, Message]] = [(copy, message)]
    while queue:
        to, one = queue.pop(0)
        effects = to.receive(one, now)
        other = leader if to is copy else copy
        log: Any = to.log
        if effects.copy:
            log.grow(int(to.promise.epoch), len(effects.copy))
        if effects.begin:
            log.grow(int(to.promise.epoch))
            effects.sends += to.written(now).sends
        log.durable_end = log.end
        if effects.copy or effects.begin:
            effects.sends += to.flushed(now).sends
        for sending in effects.sends:
            following = sending.message
            if isinstance(following, Append) and sending.frames_end > following.position:
                count = sending.frames_end - following.position
                following = msgspec.structs.replace(following, frames=(FRAME,) * count)
            if sending.to == other.me.seat.replica:
                queue.append((other, following))


def led(now: float = 0.0) -> tuple[Replica, Replica, Replica]:
    """A leader of epoch 1 that serves, and two copies that have joined."""
    leader, second, third = replica(0), replica(1), replica(2)
    leader.receive(Lead(FIRST), now)
    for copy in (second, third):
        exchange(leader, copy, Beacon(Epoch(1), HOLDERS[0]), now)
    for copy in (second, third):
        exchange(leader, copy, Beacon(Epoch(1), HOLDERS[0]), now)
    return leader, second, third


def test_a_leader_serves_when_its_epoch_start_frame_is_committed() -> None:
    leader, second, third = led()
    assert (leader.leads, leader.serves, leader.committed_end) == (True, True, 1)
    assert [one.follower.joined for one in (second, third)] == [1, 1]
    assert not second.leads
    assert not second.serves


def test_a_candidate_begins_when_enough_disks_have_sworn() -> None:
    leader, second = replica(0), replica(1)
    entered = leader.receive(Lead(FIRST), 0.0)
    assert entered.promise == Promise(
        Epoch(1), HOLDERS[0], ConfigVersion(1), seated=True, size=FIRST.size
    )
    assert not entered.begin
    assert [one.to for one in entered.sends] == [1, 2]
    (hello,) = sent(second.receive(sent(entered, Beacon)[0], 0.0), Hello)
    (joining,) = sent(leader.receive(hello, 0.0), Joining)
    joined = second.receive(joining, 0.0)
    assert joined.promise == entered.promise
    (held,) = sent(joined, Held)
    assert leader.receive(held, 0.0).begin


def test_a_message_that_names_nobody_here_changes_nothing() -> None:
    leader, second, _ = led()
    told = Told(1, SEATS[1], Answer(1, NO_PROMISE, Epoch(0), 0), None)
    stranger = Holder(SEATS[0], 9)
    for message in (
        told,
        Hello(Epoch(7), HOLDERS[1], 1, (), 0),
        Hello(Epoch(1), HOLDERS[1], 1, (), 0),
        Held(Epoch(1), stranger, HOLDERS[1], 9, ConfigVersion(1)),
        Held(Epoch(1), HOLDERS[0], Holder(SEATS[1], 2), 9, ConfigVersion(1)),
        Held(Epoch(1), HOLDERS[0], Holder(Seat(ReplicaId(1), DiskId(b"new")), 1), 9,
             ConfigVersion(1)),
        Beacon(Epoch(2), HOLDERS[0]),
    ):  # fmt: skip
        assert leader.receive(message, 0.0) == Effects()
    assert leader.committed_end == 1
    assert second.receive(Hello(Epoch(1), HOLDERS[2], 1, (), 0), 0.0) == Effects()
    assert second.receive(Held(Epoch(1), HOLDERS[1], HOLDERS[2], 1, ConfigVersion(1)), 0.0) == (
        Effects()
    )


def test_a_hello_is_answered_once() -> None:
    leader, second = replica(0), replica(1)
    leader.receive(Lead(FIRST), 0.0)
    (first,) = sent(second.receive(Beacon(Epoch(1), HOLDERS[0]), 0.0), Hello)
    (again,) = sent(second.receive(Beacon(Epoch(1), HOLDERS[0]), 0.0), Hello)
    assert (first.number, again.number) == (1, 2)
    (late,) = sent(leader.receive(first, 0.0), Joining)
    (joining,) = sent(leader.receive(again, 0.0), Joining)
    assert second.receive(late, 0.0) == Effects()
    assert sent(second.receive(joining, 0.0), Held)
    assert second.receive(joining, 0.0) == Effects()


def test_an_answer_to_another_leadership_or_of_another_life_counts_for_none() -> None:
    leader, _, _ = led()
    before = leader.leader
    held = Held(Epoch(1), HOLDERS[0], HOLDERS[1], 9, ConfigVersion(1))
    for changes in (
        {"epoch": Epoch(2)},
        {"leader": HOLDERS[1]},
        {"leader": Holder(SEATS[0], 2)},
        {"me": Holder(SEATS[1], 2)},
    ):
        late = msgspec.structs.replace(held, **changes)
        assert leader.receive(late, 1.0) == Effects()
        assert leader.leader == before
    leader.receive(held, 1.0)
    assert leader.leader != before


def test_a_copy_that_leaves_by_a_late_word_is_greeted_again_and_a_late_greeting_is_not() -> None:
    leader, second, _ = led()
    (early,) = sent(replica(1).receive(Beacon(Epoch(1), HOLDERS[0]), 0.0), Hello)
    assert leader.receive(early, 1.0) == Effects(), "it has joined since"
    second.receive(Behind(Epoch(1), HOLDERS[0], SEATS[1]), 1.0)
    assert second.follower.joined is None
    exchange(leader, second, Beacon(Epoch(1), HOLDERS[0]), 1.0)
    assert second.follower.joined == 1
    assert leader.peers[SEATS[1]].joined
    earlier = msgspec.structs.replace(early, me=Holder(SEATS[1], 0), number=9)
    assert leader.receive(earlier, 1.0) == Effects(), "of a life before"


def test_a_copy_that_has_joined_or_led_since_it_asked_is_not_replaced() -> None:
    _, second, _ = led()
    assert not second.freeze(second.joins - 1), "it has said since what it holds"
    candidate = replica(0)
    candidate.receive(Lead(FIRST), 0.0)
    assert not candidate.freeze(candidate.joins), "it leads, or is about to"
    assert second.freeze(second.joins)
    assert second.receive(Ask(1), 0.0) == Effects(), "from then on it says nothing"


def test_a_copy_that_was_compared_with_another_log_than_it_has_asks_again() -> None:
    second = replica(1)
    second.receive(Beacon(Epoch(1), HOLDERS[0]), 0.0)
    other = Join(Epoch(1), HOLDERS[0], ConfigVersion(1), True, (), 0, 5, "hash-5")
    assert second.receive(Joining(1, other), 0.0) == Effects()
    assert sent(second.receive(Beacon(Epoch(1), HOLDERS[0]), 0.0), Hello)


def test_a_copy_cuts_what_its_leader_does_not_have() -> None:
    log = Log()
    log.grow(1, 3)
    log.durable_end = 3
    second = replica(1, Promise(Epoch(1), HOLDERS[2], ConfigVersion(1), seated=True), log)
    second.receive(Beacon(Epoch(2), HOLDERS[0]), 0.0)
    table = (EpochStart(Epoch(1), 0),)
    join = Join(Epoch(2), HOLDERS[0], ConfigVersion(2), True, table, 1, 1, "hash-1")
    effects = second.receive(Joining(1, join), 0.0)
    assert effects.cut_to == 1
    assert effects.promise is not None
    assert [one.position for one in sent(effects, Held)] == [1]


def test_a_copy_that_would_lose_what_is_committed_stops_and_keeps_everything() -> None:
    _, second, _ = led()
    second.follower = second.follower.with_(committed_end=1)
    second.receive(Beacon(Epoch(2), HOLDERS[2]), 0.0)
    join = Join(Epoch(2), HOLDERS[2], ConfigVersion(2), True, (), 0, 0, "hash-0")
    effects = second.receive(Joining(2, join), 0.0)
    assert effects == Effects(diverged=True)
    assert second.promise.epoch == 1


def test_what_a_leadership_has_committed_stays_known_after_it() -> None:
    leader, _, _ = led()
    assert leader.follower.committed_end == 0
    leader.receive(Reserve(1, Epoch(2)), 0.0)
    assert leader.committed_end == leader.follower.committed_end == 1


def test_frames_that_are_here_already_are_not_written_again() -> None:
    _, second, _ = led()
    append = Append(Epoch(1), HOLDERS[0], SEATS[1], ConfigVersion(1), True, 0, 1,
                    (FRAME, FRAME, FRAME))  # fmt: skip
    effects = second.receive(append, 1.0)
    assert len(effects.copy) == 2
    assert [one.position for one in sent(effects, Held)] == [1]
    gap = msgspec.structs.replace(append, position=5)
    assert second.receive(gap, 0.0).copy == ()


def test_a_copy_swears_to_a_newer_record_before_it_answers() -> None:
    _, second, _ = led()
    append = Append(Epoch(1), HOLDERS[0], SEATS[1], ConfigVersion(4), True, 1, 1)
    effects = second.receive(append, 0.0)
    assert effects.promise is not None
    assert effects.promise.version == 4
    assert [one.version for one in sent(effects, Held)] == [4]


@pytest.mark.parametrize(
    "changed", [{"seat": SEATS[2]}, {"epoch": Epoch(2)}], ids=["another seat", "another epoch"]
)
def test_frames_for_somebody_else_are_not_taken(changed: dict[str, Any]) -> None:
    _, second, _ = led()
    append = Append(Epoch(1), HOLDERS[0], SEATS[1], ConfigVersion(1), True, 1, 1, (FRAME,))
    assert second.receive(msgspec.structs.replace(append, **changed), 0.0).copy == ()


def test_what_is_asked_of_a_disk_is_answered_from_what_is_durable() -> None:
    log = Log()
    log.grow(1, 2)
    log.durable_end = 2
    log.grow(2, 3)
    asked = replica(1, log=log)
    (told,) = sent(asked.receive(Ask(4), 0.0), Told)
    assert (told.number, told.seat, told.leads) == (4, SEATS[1], None)
    assert (told.answer.last_epoch, told.answer.end) == (1, 2)
    leader, _, _ = led()
    (told,) = sent(leader.receive(Ask(5), 0.0), Told)
    assert told.leads == 1


def test_an_epoch_is_reserved_once_and_ends_a_leadership() -> None:
    leader, _, _ = led()
    effects = leader.receive(Reserve(1, Epoch(3)), 0.0)
    assert effects.promise == Promise(
        Epoch(3), None, ConfigVersion(1), seated=True, size=FIRST.size
    )
    assert not leader.leads
    again = leader.receive(Reserve(2, Epoch(3)), 0.0)
    assert again.promise is None
    assert [one.number for one in sent(again, Told)] == [2]


def test_the_disks_of_the_first_record_swear_to_be_in_it() -> None:
    new = replica(1)
    effects = new.receive(Found(1, FIRST), 0.0)
    assert effects.promise == Promise(Epoch(0), None, ConfigVersion(0), seated=True)
    assert sent(effects, Told)[0].answer.promise.seated


@pytest.mark.parametrize("why", ["sworn", "written", "not in it"])
def test_a_disk_that_is_not_new_or_not_named_does_not_swear_to_be_in_the_first_record(
    why: str,
) -> None:
    log = Log()
    if why == "written":
        log.grow(1)
    promise = Promise(Epoch(1), None, ConfigVersion(0)) if why == "sworn" else NO_PROMISE
    named = records.bootstrap(b"c", ShardId(0), HOLDERS[0], SEATS[:1], 1)
    new = replica(1, promise, log)
    effects = new.receive(Found(1, named if why == "not in it" else FIRST), 0.0)
    assert effects.promise is None
    assert sent(effects, Told)


def test_who_copies_nobody_looks_at_the_record() -> None:
    _, second, _ = led()
    assert not second.tick(LIMITS.read_s / 2).read
    assert second.tick(LIMITS.read_s).read
    assert not second.tick(LIMITS.read_s * 1.5).read


def test_a_record_names_a_leader_or_ends_a_leadership() -> None:
    leader, _, _ = led()
    assert leader.record_read(FIRST, 0.0).promise is None
    assert leader.leads
    leader.record_read(None, 0.0)
    assert not leader.leads
    assert leader.written(0.0) == leader.flushed(0.0) == Effects()
    assert leader.record_read(None, 0.0) == Effects()
    nxt = records.elected(FIRST, HOLDERS[0], SEATS)
    assert leader.record_read(nxt, 0.0).promise is not None
    assert leader.leads


def silent(leader: Replica, *numbers: int) -> float:
    """All but these answer until the silence is too long; the time then."""
    now = LIMITS.silence_s * 1.5
    for number in {1, 2} - set(numbers):
        held = Held(Epoch(1), HOLDERS[0], HOLDERS[number], 1, ConfigVersion(1))
        leader.receive(held, now)
    return now


def test_a_copy_that_is_silent_leaves_and_comes_back_when_it_has_caught_up() -> None:
    leader, _, third = led()
    now = silent(leader, 2)
    (swap,) = [leader.tick(now).swap]
    assert swap is not None
    assert swap == Swap(FIRST, records.shrunk(FIRST, SEATS[2]))
    leader.swap_answered(swap, swap.new, now)
    assert leader.tick(now).swap is None  # It is silent still.
    exchange(leader, third, Beacon(Epoch(1), HOLDERS[0]), now)
    back = leader.tick(now).swap
    assert back is not None
    assert back.new.isr == SEATS


def test_nobody_leaves_when_fewer_than_needed_would_stay() -> None:
    leader, _, _ = led()
    now = silent(leader, 1, 2)
    swap = leader.tick(now).swap
    assert swap is not None
    leader.swap_answered(swap, swap.new, now)
    assert leader.tick(now).swap is None


def test_a_swap_without_an_answer_is_asked_about_and_then_forced_once() -> None:
    leader, _, _ = led()
    now = silent(leader, 2)
    first = leader.tick(now).swap
    assert leader.tick(now).swap is None
    assert leader.tick(now + LIMITS.swap_s).read
    forced = leader.tick(now + 2 * LIMITS.swap_s).swap
    assert forced == Swap(FIRST, records.touched(FIRST))
    assert leader.tick(now + 3 * LIMITS.swap_s).read
    assert leader.tick(now + 4 * LIMITS.swap_s).swap == forced
    assert leader.leader is not None
    assert first is not None
    assert leader.leader.unresolved == (first.new, forced.new)


@pytest.mark.parametrize("current", [None, FIRST], ids=["none", "one that has gone back"])
def test_a_swap_that_met_no_record_or_an_older_one_ends_the_leadership(
    current: Record | None,
) -> None:
    leader, _, _ = led()
    now = silent(leader, 2)
    swap = leader.tick(now).swap
    assert swap is not None
    leader.swap_answered(swap, current, now)
    assert not leader.leads
    assert leader.swap_answered(swap, swap.new, now) == Effects()


def test_frames_without_an_answer_are_sent_again() -> None:
    leader, _, _ = led()
    log: Any = leader.log
    log.grow(1, 2)
    first = leader.written(0.0)
    assert [one.position for one in sent(first, Append)] == [1, 1]
    assert [one.frames_end for one in first.sends] == [3, 3]
    assert leader.written(0.0).sends == []
    again = leader.tick(LIMITS.resend_s)
    assert [one.position for one in sent(again, Append)] == [1, 1]


def test_frames_are_not_sent_again_to_a_disk_that_has_been_replaced() -> None:
    leader, _, _ = led()
    log: Any = leader.log
    log.grow(1, 2)
    leader.written(0.0)
    now = silent(leader, 2)
    assert {one.seat for one in sent(leader.tick(now), Append)} == {SEATS[1], SEATS[2]}
    new = Replica(Holder(Seat(ReplicaId(2), DiskId(b"new")), 1), NO_PROMISE, Log(),
                  [ReplicaId(0), ReplicaId(1)], LIMITS, now)  # fmt: skip
    exchange(leader, new, Beacon(Epoch(1), HOLDERS[0]), now)
    assert new.log.end == 3
    log.grow(1)
    appends = sent(leader.written(now), Append)
    assert {one.seat for one in appends} == {SEATS[1], new.me.seat}
    later = sent(leader.tick(now + LIMITS.resend_s), Append)
    assert {one.seat for one in later} == {SEATS[1], new.me.seat}


def test_a_copy_that_is_silent_is_sent_frames_all_the_same() -> None:
    leader, _, _ = led()
    log: Any = leader.log
    log.grow(1, 2)
    now = silent(leader, 2)
    for number in range(3):  # It tries its full disk with them, and says nothing until they fit.
        appends = sent(leader.tick(now + number), Append)
        assert SEATS[2] in {one.seat for one in appends}


def test_a_peer_that_has_not_joined_gets_beacons_and_no_frames() -> None:
    leader, second = replica(0), replica(1)
    leader.receive(Lead(FIRST), 0.0)
    (hello,) = sent(second.receive(Beacon(Epoch(1), HOLDERS[0]), 0.0), Hello)
    leader.receive(hello, 0.0)
    assert [type(one.message) for one in leader.tick(0.1).sends] == [Beacon, Beacon]


def test_a_copy_whose_answer_was_lost_answers_a_beacon() -> None:
    _, second, _ = led()
    assert sent(second.receive(Beacon(Epoch(1), HOLDERS[0]), 0.0), Held)


def test_a_leader_of_a_lower_epoch_is_not_greeted() -> None:
    _, second, _ = led()
    second.receive(Reserve(1, Epoch(5)), 0.0)
    assert second.receive(Beacon(Epoch(4), HOLDERS[2]), 0.0) == Effects()


def test_what_was_not_sent_after_all_is_sent_when_the_copy_has_answered() -> None:
    leader, second, _ = led()
    leader.log.grow(1, 5)  # type: ignore[attr-defined]
    (append,) = [one for one in sent(leader.written(0.0), Append) if one.seat == SEATS[1]]
    assert append.position == 1
    leader.sent(SEATS[1], 3)
    leader.sent(Seat(ReplicaId(1), DiskId(b"another")), 2)
    held = Held(Epoch(1), HOLDERS[0], second.me, 3, FIRST.version)
    after = leader.receive(held, 0.0)
    ends = [
        (one.message.position, one.frames_end)
        for one in after.sends
        if isinstance(one.message, Append) and one.message.seat == SEATS[1]
    ]
    assert ends == [(3, 6)]


def test_of_a_copy_that_is_gone_or_of_others_nothing_is_too_far() -> None:
    leader, second, _ = led()
    stranger = Seat(ReplicaId(1), DiskId(b"new"))
    assert leader.too_far(stranger) == Effects()
    assert second.too_far(SEATS[2]) == Effects()
    (behind,) = sent(leader.too_far(SEATS[1]), Behind)
    assert (behind.epoch, behind.seat) == (1, SEATS[1])


def test_a_copy_whose_place_in_the_log_was_cut_just_now_is_not_answered_and_asks_again() -> None:
    class CutMeanwhile(Log):
        """The table still tells of what retention has taken away."""

        def chain(self, position: int) -> object:
            return None

    leader = replica(0, log=CutMeanwhile(5, 5, (EpochStart(Epoch(1), 0),)))
    leader.receive(Lead(FIRST), 0.0)
    hello = Hello(Epoch(1), HOLDERS[1], 1, (EpochStart(Epoch(1), 0),), 3)
    assert leader.receive(hello, 0.0) == Effects()
    leader.log = Log(5, 5, leader.log.epochs)
    assert sent(leader.receive(hello, 0.1), Joining)


def test_a_copy_says_what_it_holds_once_and_again_at_a_later_sign_of_life() -> None:
    leader, second, _ = led(now=1.0)
    (life,) = [one for one in sent(leader.tick(2.0), Append) if one.seat == SEATS[1]]
    told = [sent(second.receive(life, 2.0 + late), Held) for late in (0.0, 0.01, 0.5)]
    assert [len(each) for each in told] == [1, 0, 1]


def test_a_copy_says_at_once_that_more_is_durable() -> None:
    leader, second, _ = led(now=1.0)
    log: Any = second.log
    leader.log.grow(1)  # type: ignore[attr-defined]
    (append,) = [one for one in sent(leader.written(2.0), Append) if one.seat == SEATS[1]]
    first = second.receive(msgspec.structs.replace(append, frames=(FRAME,)), 2.0)
    assert [one.position for one in sent(first, Held)] == [1]
    log.grow(1)
    log.durable_end = log.end
    assert [one.position for one in sent(second.flushed(2.001), Held)] == [2]


@pytest.mark.parametrize("more", [0, 1])
def test_a_commit_is_told_by_itself_when_no_frames_follow_that_would_tell_it(more: int) -> None:
    leader, _, _ = led(now=1.0)
    log: Any = leader.log
    log.grow(1)
    log.durable_end = log.end
    leader.written(2.0)
    leader.flushed(2.0)
    log.grow(1, more)
    words = []
    for number in (1, 2):
        held = Held(Epoch(1), HOLDERS[0], HOLDERS[number], 2, ConfigVersion(1))
        words += sent(leader.receive(held, 2.0), Append)
    assert leader.committed_end == 2
    told = [one for one in words if one.committed_end == 2 and one.position == 2]
    assert len(told) == (0 if more else 2)
