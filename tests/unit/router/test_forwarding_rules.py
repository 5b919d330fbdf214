"""Parts, lanes and attempts: order is kept, bounds hold, and nobody is told what is not known."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ultraengine.router.gather import FoundOutcome, FoundReply, newest
from ultraengine.router.lane import Lane
from ultraengine.router.partition import split
from ultraengine.router.retry import (
    DELAY_MAX_S,
    FIRST_DELAY_S,
    Again,
    Failure,
    GiveUp,
    after,
    is_final,
)

# --- parts ------------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 5)))
def test_parts_hold_every_place_once_in_order_and_put_back_give_the_request(
    owners: list[int],
) -> None:
    parts = split(owners)
    back: list[int | None] = [None] * len(owners)
    for owner, places in parts.items():
        assert places == sorted(places)
        for place in places:
            assert back[place] is None
            back[place] = owner
    assert back == owners
    assert list(parts) == list(dict.fromkeys(owners))


# --- lanes ------------------------------------------------------------------------------------

Step = tuple[str, list[int]]
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.lists(st.integers(1, 30), min_size=1, max_size=8)),
        st.tuples(st.just("answered"), st.just([])),
    ),
    max_size=40,
)


@given(STEPS, st.integers(1, 5), st.integers(1, 40), st.integers(1, 3))
def test_a_lane_gives_out_everything_in_order_within_its_bounds_so_many_batches_at_a_time(
    steps: Sequence[Step], count_max: int, bytes_max: int, parallel_max: int
) -> None:
    lane: Lane[tuple[int, int]] = Lane(
        count_max=count_max, bytes_max=bytes_max, parallel_max=parallel_max
    )
    put: list[tuple[int, int]] = []
    given_out: list[tuple[int, int]] = []
    under_way = 0
    for what, sizes in [*steps, *([("answered", [])] * 400)]:
        if what == "put":
            new = [(len(put) + n, size) for n, size in enumerate(sizes)]
            put += new
            lane.put(new, sizes)
        elif under_way:
            lane.answered()
            under_way -= 1
        batch = lane.take()
        if under_way == parallel_max:
            assert batch == []
        elif batch:
            under_way += 1
            assert len(batch) <= count_max
            assert len(batch) == 1 or sum(size for _, size in batch) <= bytes_max
            given_out += batch
            rest = put[len(given_out) :]
            fits = rest and sum(s for _, s in batch) + rest[0][1] <= bytes_max
            assert len(batch) == count_max or not fits  # No smaller than it had to be.
        assert len(lane) == len(put) - len(given_out)
        assert lane.is_idle == (not under_way and len(given_out) == len(put))
    assert given_out == put


# --- attempts ---------------------------------------------------------------------------------


def test_what_never_left_is_unavailable_at_once() -> None:
    follows = after(Failure.NOT_SENT, was_sent=False, attempts=1, elapsed_s=0.0, deadline_s=30.0)
    assert follows == GiveUp("SHARD_UNAVAILABLE")


@given(
    st.sampled_from(Failure),
    st.integers(1, 1_000),
    st.floats(0, 100, allow_nan=False),
    st.floats(0, 100, allow_nan=False),
)
def test_what_may_have_been_carried_out_is_never_called_refused(
    failure: Failure, attempts: int, elapsed_s: float, deadline_s: float
) -> None:
    follows = after(
        failure, was_sent=True, attempts=attempts, elapsed_s=elapsed_s, deadline_s=deadline_s
    )
    if isinstance(follows, Again):
        assert 0 <= follows.delay_s <= DELAY_MAX_S
        assert elapsed_s + follows.delay_s < deadline_s
    else:
        assert follows == GiveUp("OUTCOME_UNKNOWN")
        assert elapsed_s + DELAY_MAX_S >= deadline_s


def test_a_lost_answer_is_asked_for_again_at_once_and_then_ever_more_slowly() -> None:
    def delay(failure: Failure, attempts: int) -> float:
        follows = after(failure, was_sent=True, attempts=attempts, elapsed_s=0.0, deadline_s=9.0)
        assert isinstance(follows, Again)
        return follows.delay_s

    lost = [delay(Failure.LOST, attempts) for attempts in range(1, 9)]
    assert lost[:3] == [0.0, 4 * FIRST_DELAY_S, 8 * FIRST_DELAY_S]
    assert lost[1:] == sorted(lost[1:])
    assert lost[-1] == DELAY_MAX_S
    assert delay(Failure.LATER, 1) > 0
    assert delay(Failure.NOT_SENT, 2) > 0


@pytest.mark.parametrize("status", [421, 429, 502, 503, 504])
def test_try_later_is_no_answer_to_an_attempt_that_was_lost(status: int) -> None:
    assert is_final(status, was_lost=False)
    assert not is_final(status, was_lost=True)


@pytest.mark.parametrize("status", [200, 202, 304, 400, 404, 409, 412, 422, 500])
def test_any_other_answer_is_final(status: int) -> None:
    assert is_final(status, was_lost=True)


# --- outcomes of all shards -------------------------------------------------------------------


def test_the_newest_command_that_was_done_is_the_answer_for_an_id_without_a_key() -> None:
    older = FoundOutcome("done", FoundReply("2026-11-20T10:00:00.000001Z"))
    newer = FoundOutcome("done", FoundReply("2026-11-20T10:00:00.000002Z"))
    flying, forgotten = FoundOutcome("in_flight"), FoundOutcome("forgotten")
    unknown, odd = FoundOutcome("unknown"), FoundOutcome("done")
    assert newest([older, newer, flying, unknown]) == 1
    assert newest([odd, older]) == 1
    assert newest([unknown, flying, forgotten]) == 1
    assert newest([unknown, forgotten]) == 1
    assert newest([unknown, unknown]) == 0
    assert [one.is_found for one in (older, flying, forgotten, unknown)] == [True] * 2 + [False] * 2
    with pytest.raises(ValueError, match="empty"):
        newest([])
