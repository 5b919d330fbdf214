"""What a leader keeps for copies, and what the table of a log says that was cut."""

import pytest

from ultraengine.model.errors import InvariantBroken
from ultraengine.model.ids import ConfigVersion, Epoch
from ultraengine.replication import epochs, follower
from ultraengine.replication.epochs import EpochStart, EpochTable
from ultraengine.replication.follower import Follower, Join, Verdict
from ultraengine.replication.peers import Peer, needed
from ultraengine.replication.promise import NO_PROMISE
from ultraengine.replication.record import DiskId, Holder, ReplicaId, Seat

PLACES = [ReplicaId(1), ReplicaId(2)]
LEADER = Holder(Seat(ReplicaId(0), DiskId(b"leader")), 1)
ME = Holder(Seat(ReplicaId(1), DiskId(b"copy")), 1)


def seat(place: int, disk: bytes = b"d") -> Seat:
    return Seat(ReplicaId(place), DiskId(disk))


def test_a_copy_that_lives_keeps_what_it_has_not_got() -> None:
    peers = {
        seat(1): Peer(1, 90, held_end=70, heard_at=10.0, joined=True),
        seat(2): Peer(1, 40, heard_at=10.0),
    }
    assert needed(PLACES, peers, {}, 0.0, 5.0) == {1: 70, 2: 40}


def test_a_copy_that_is_away_for_long_keeps_nothing() -> None:
    peers = {seat(1): Peer(1, 90, held_end=70, heard_at=4.0, joined=True)}
    assert needed(PLACES, peers, {}, 0.0, 5.0) == {}


def test_a_place_that_nobody_was_heard_of_keeps_everything_while_the_epoch_is_young() -> None:
    assert needed(PLACES, {}, {}, 9.0, 5.0) == {1: 0, 2: 0}
    assert needed(PLACES, {}, {}, 4.0, 5.0) == {}


def test_a_copy_that_is_filled_keeps_what_it_will_copy_then() -> None:
    filling = {ReplicaId(1): (50, 6.0), ReplicaId(2): (50, 4.0)}
    assert needed(PLACES, {}, filling, 0.0, 5.0) == {1: 50}
    old = {seat(1, b"old"): Peer(1, 20, held_end=20, heard_at=6.0, joined=True)}
    assert needed(PLACES, old, filling, 0.0, 5.0)[ReplicaId(1)] == 50
    joined = {seat(1): Peer(1, 80, held_end=75, heard_at=6.0, joined=True)}
    assert needed(PLACES, joined, filling, 0.0, 5.0)[ReplicaId(1)] == 75


def table(*starts: tuple[int, int]) -> EpochTable:
    return tuple(EpochStart(Epoch(epoch), position) for epoch, position in starts)


WHOLE = table((1, 0), (2, 10), (4, 30))


@pytest.mark.parametrize(
    ("first", "epoch", "left"),
    [
        (0, 0, WHOLE),
        (5, 1, table((1, 5), (2, 10), (4, 30))),
        (10, 1, table((1, 10), (2, 10), (4, 30))),
        (20, 2, table((2, 20), (4, 30))),
        (50, 4, table((4, 50))),
    ],
)
def test_a_table_that_is_cut_begins_with_the_epoch_before_its_first_frame(
    first: int, epoch: int, left: EpochTable
) -> None:
    assert epochs.trimmed(WHOLE, first, Epoch(epoch)) == left
    assert epochs.first_of(left, 50) == first
    assert epochs.common_end(WHOLE, 50, left, 50) == 50
    assert epochs.common_end(left, 50, WHOLE, 40) == max(first, 40)


def test_a_log_that_has_only_begun_behind_a_snapshot_says_of_which_epoch_that_is() -> None:
    begun = table((2, 20))
    assert epochs.cut(begun, 20) == begun
    assert epochs.cut(table((2, 20), (4, 30)), 20) == begun
    assert epochs.cut(table((1, 0)), 0) == ()
    assert epochs.last_epoch(epochs.cut(begun, 20)) == 2
    assert epochs.extended(begun, table((2, 20), (4, 30))) == table((2, 20), (4, 30))
    assert epochs.extended(begun, table((3, 20))) == table((2, 20), (3, 20))
    for wrong in (table((1, 20)), table((3, 19))):
        with pytest.raises(InvariantBroken):
            epochs.extended(begun, wrong)
    with pytest.raises(InvariantBroken):
        epochs.extended(table((2, 20), (3, 20)), table((4, 20)))


class View:
    """A log of which only this is known."""

    def __init__(self, told: EpochTable, end: int, chains: dict[int, object]) -> None:
        self.epochs, self.end, self.durable_end = told, end, end
        self.chains = chains

    def chain(self, position: int) -> object:
        return self.chains.get(position)


def joined(view: View, committed_end: int = 0, **told: object) -> Verdict:
    said = {"table": table((1, 20), (2, 30)), "end": 40, "agreed": 20, "chain": "leader's"} | told
    join = Join(epoch=Epoch(3), leader=LEADER, version=ConfigVersion(1), seated=False, **said)  # type: ignore[arg-type]
    before = Follower(ME, NO_PROMISE, committed_end=committed_end)
    after = follower.join(before, join, view)
    swears = after.verdict in {Verdict.TAKEN, Verdict.LACKING}
    assert (after.follower.promise.holder == LEADER) is swears
    assert (after.follower.joined == 3) is (after.verdict is Verdict.TAKEN)
    return after.verdict


def test_a_copy_lacks_what_its_leader_has_cut() -> None:
    assert joined(View((), 0, {0: "nothing"})) is Verdict.LACKING
    assert joined(View(table((1, 0)), 19, {})) is Verdict.LACKING
    # It reaches the leader's first position, with another history.
    other = View(table((1, 0), (9, 15)), 25, {20: "its own"})
    assert joined(other, agreed=20) is Verdict.LACKING
    assert joined(View(table((9, 15)), 25, {20: "leader's"})) is Verdict.TAKEN


def test_what_contradicts_what_is_committed_is_no_lack() -> None:
    other = View(table((1, 0), (9, 15)), 25, {20: "its own"})
    assert joined(other, committed_end=20) is Verdict.DIVERGED
    # It has cut, as committed, what its leader does not have.
    assert joined(View(table((1, 60)), 60, {60: "x"}), committed_end=60) is Verdict.DIVERGED
    above = View(table((1, 0)), 25, {25: "its own"})
    assert joined(above, agreed=25) is Verdict.DIVERGED


def test_a_log_that_was_cut_since_it_was_told_is_compared_again() -> None:
    assert joined(View(table((1, 0)), 25, {}), agreed=25) is Verdict.STALE
