"""Which slots move: the fewest that make the map even, and what was begun before."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ultraengine.model.ids import SLOT_COUNT, ShardId
from ultraengine.moving.record import Attempt, SlotRecord, State
from ultraengine.rebalancing.balance import (
    Logged,
    Move,
    Progress,
    all_served,
    following,
    moves,
    shares,
    unfinished,
)
from ultraengine.router.shard_map import ShardMap

COUNTS = st.integers(1, 9)
SHARDS = (ShardId(0), ShardId(1), ShardId(2))


def after(shard_map: ShardMap, work: list[Move]) -> ShardMap:
    return shard_map.moved_all({move.slot: move.goal for move in work})


@given(before=COUNTS, count=COUNTS)
def test_the_map_is_even_afterwards_and_no_slot_moves_in_vain(before: int, count: int) -> None:
    first = ShardMap.even(before)
    work = moves(first, count)
    owners = [*first.owners]
    for move in work:
        assert owners[move.slot] != move.goal
        owners[move.slot] = move.goal
    sizes = [owners.count(ShardId(shard)) for shard in range(max(before, count))]
    assert max(sizes[:count]) - min(sizes[:count]) <= 1
    assert not any(sizes[count:])
    assert len({move.slot for move in work}) == len(work)
    wanted = shares(first.owners, count)
    surplus = sum(max(0, first.owners.count(shard) - share) for shard, share in wanted.items())
    assert len(work) == surplus


def test_an_even_map_is_left_as_it_is() -> None:
    assert moves(ShardMap.even(3), 3) == []


def test_what_was_interrupted_goes_on_with_what_is_left() -> None:
    first = ShardMap.even(2)
    work = moves(first, 4)
    half = after(first, work[:100])
    assert moves(half, 4) == work[100:]


@pytest.mark.parametrize("count", [0, -1, SLOT_COUNT + 1])
def test_slots_are_shared_by_one_shard_at_least(count: int) -> None:
    with pytest.raises(ValueError, match="shards are not"):
        moves(ShardMap.even(1), count)


def test_time_left_goes_by_the_pace_so_far() -> None:
    assert Progress(0, 8, 3.0).eta_s is None
    assert Progress(2, 8, 3.0).eta_s == 12.0


def left(logged: Logged, shard_map: ShardMap, count: int) -> list[Move]:
    """What `following` says, without who is asked."""
    return [Move(one.slot, one.goal) for one in following(logged, shard_map, count)]


def record(state: State, era: int, number: int, peer: int | None = None) -> SlotRecord:
    return SlotRecord(
        state=state,
        attempt=Attempt(era, number),
        peer=None if peer is None else ShardId(peer),
    )


def test_a_move_that_was_begun_is_ended_forward_or_back() -> None:
    shard_map = ShardMap.even(1)
    for state in (State.EXPORTING, State.SEALED):
        logged = {
            SHARDS[0]: {7: record(state, 0, 1, 1)},
            SHARDS[1]: {7: record(State.STAGED, 0, 1, 0)},
        }
        assert unfinished(logged, shard_map, SHARDS) == [Move(7, SHARDS[1])]
        assert unfinished(logged, shard_map, SHARDS, back=True) == [Move(7, SHARDS[0])]
        assert unfinished(logged, shard_map, SHARDS[:1]) == [Move(7, SHARDS[0])]


def test_a_slot_that_has_arrived_stays_there_however_little_the_map_says() -> None:
    shard_map = ShardMap.even(1)
    arrived = record(State.OWNED, 1, 0)
    for left in (record(State.SEALED, 0, 1, 1), record(State.ABSENT, 0, 1)):
        logged = {SHARDS[0]: {7: left}, SHARDS[1]: {7: arrived}}
        for back in (False, True):
            assert unfinished(logged, shard_map, SHARDS, back=back) == [Move(7, SHARDS[1])]
    logged = {SHARDS[0]: {7: record(State.ABSENT, 0, 1)}, SHARDS[1]: {7: arrived}}
    assert unfinished(logged, shard_map.moved(7, SHARDS[1]), SHARDS) == []


def test_a_copy_that_is_left_over_is_dropped_where_the_slot_stays() -> None:
    shard_map = ShardMap.even(1)
    logged = {
        SHARDS[0]: {7: record(State.OWNED, 0, 1)},
        SHARDS[2]: {7: record(State.STAGED, 0, 1, 0)},
    }
    assert unfinished(logged, shard_map, SHARDS) == [Move(7, SHARDS[0])]


def test_a_begun_move_goes_on_when_the_wish_still_asks_for_it() -> None:
    # The last surplus slot of shard 0 is under way to shard 1, and another copy was left over.
    shard_map = ShardMap.even(1)
    logged = {
        SHARDS[0]: {4095: record(State.SEALED, 0, 1, 1), 7: record(State.OWNED, 0, 1)},
        SHARDS[1]: {4095: record(State.STAGED, 0, 1, 0), 7: record(State.STAGED, 0, 1, 0)},
    }
    work = left(logged, shard_map, 2)
    assert work[:2] == [Move(7, SHARDS[0]), Move(4095, SHARDS[1])]
    assert len(work) == 1 + SLOT_COUNT // 2
    assert len({move.slot for move in work}) == len(work)


@pytest.mark.parametrize("state", [State.EXPORTING, State.SEALED])
def test_a_begun_move_is_turned_round_when_it_is_not_wished_any_more(state: State) -> None:
    shard_map = ShardMap.even(2)
    for peer in (1, 2):
        logged = {SHARDS[0]: {5: record(state, 0, 1, peer)}, SHARDS[1]: {}, SHARDS[2]: {}}
        assert left(logged, shard_map, 2) == [Move(5, SHARDS[0])]


def test_a_slot_that_has_arrived_where_it_is_not_wished_moves_on() -> None:
    shard_map = ShardMap.even(2)
    logged = {
        SHARDS[0]: {5: record(State.SEALED, 0, 1, 2)},
        SHARDS[1]: {},
        SHARDS[2]: {5: record(State.OWNED, 1, 0)},
    }
    assert left(logged, shard_map, 2) == [Move(5, SHARDS[0])]
    assert left(logged, shard_map, 3)[0] == Move(5, SHARDS[2])


def test_an_emptied_shard_is_not_begun_with_again() -> None:
    shard_map = ShardMap.even(3).moved(0, SHARDS[1])
    logged = {SHARDS[2]: {4095: record(State.EXPORTING, 0, 1, 0)}}
    work = left(logged, shard_map, 2)
    assert work[0] == Move(4095, SHARDS[0])
    assert {move.slot for move in work} == set(range(2 * SLOT_COUNT // 3, SLOT_COUNT))


@settings(max_examples=25)
@given(before=COUNTS, count=COUNTS, step=st.integers(2, 5), begun=st.integers(0, 64))
def test_whoever_asks_again_comes_to_the_same_end(
    before: int, count: int, step: int, begun: int
) -> None:
    shard_map = ShardMap.even(before)
    work = left({}, shard_map, count)
    assert work == moves(shard_map, count)
    done = work[::step]
    open_now = [move for place, move in enumerate(work) if place % step][:begun]
    logged: dict[ShardId, dict[int, SlotRecord]] = {}
    for move in open_now:
        source = shard_map.owners[move.slot]
        logged.setdefault(source, {})[move.slot] = record(State.EXPORTING, 0, 1, move.goal)
    half = after(shard_map, done)
    again = left(logged, half, count)
    # Which shard keeps one slot more than others may turn out otherwise; how many move does not.
    assert len(again) == len(work) - len(done)
    assert not {move.slot for move in again} & {move.slot for move in done}
    owners = after(half, again).owners
    sizes = [owners.count(ShardId(shard)) for shard in range(count)]
    assert max(sizes) - min(sizes) <= 1


def test_no_shard_beside_those_that_serve_all_slots_has_any() -> None:
    shard_map = ShardMap.even(2).moved(7, SHARDS[1])
    here, there = record(State.ABSENT, 0, 1), record(State.OWNED, 1, 0)
    whole = {SHARDS[0]: {7: here}, SHARDS[1]: {7: there}}
    assert all_served(whole, shard_map)
    assert all_served({SHARDS[0]: {9: record(State.EXPORTING, 0, 1, 1)}, SHARDS[1]: {}}, shard_map)
    assert not all_served({SHARDS[0]: {}, SHARDS[1]: {7: record(State.STAGED, 0, 1)}}, shard_map)
    assert not all_served({SHARDS[0]: {8: here}, SHARDS[1]: {}}, shard_map)
    assert not all_served({SHARDS[0]: {}}, shard_map)


def test_who_has_nothing_of_a_slot_is_not_asked_for_it() -> None:
    logged = {SHARDS[0]: {0: record(State.OWNED, 0, 1)}, SHARDS[2]: {0: record(State.ABSENT, 0, 1)}}
    for move in following(logged, ShardMap.even(2), 1):
        assert move.asked == (0, 1)
    logged[SHARDS[2]] = {4000: record(State.ABSENT, 0, 1)}
    asked = {move.slot: move.asked for move in following(logged, ShardMap.even(2), 1)}
    assert (asked[4000], asked[4001]) == ((0, 1, 2), (0, 1))
