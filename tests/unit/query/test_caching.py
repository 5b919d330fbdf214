"""A kept answer is never given with a newer label, nor to who wants more than it shows."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.query.world import asked

from ultraengine.model.ids import Offset, ShardId
from ultraengine.query.caching import FRESH_S, ROWS_MAX, SETTLED_S, AnswerCache, Kept
from ultraengine.query.positions import Position
from ultraengine.query.sql import Moment

ROW = "k/accounts/alice"
TERMS = "k/accounts/alice/terms"


def moment(end: int, build: int = 1, **more: int) -> Moment:
    ends = {ShardId(0): Offset(end)}
    ends |= {ShardId(int(name[1:])): Offset(other) for name, other in more.items()}
    return Moment(1, build, Position.of(ends))


def kept(value: Any, at: Moment, rows: int = 1) -> Kept:
    return Kept(value, at, rows)


def test_a_row_is_given_again_while_the_tables_stand_still() -> None:
    cache = AnswerCache()
    assert cache.get(asked(ROW), 0.0) is None
    assert cache.newest("ledger") is None
    cache.saw("ledger", moment(5), 0.0)
    cache.put(asked(ROW), kept("a", moment(5)))
    found = cache.get(asked(ROW), FRESH_S)
    assert found is not None
    assert (found.value, found.moment) == ("a", moment(5))
    assert cache.get(asked(ROW, "other"), 0.0) is None, "another tenant"
    assert cache.get(asked("k/accounts/bob"), 0.0) is None, "another row"


def test_a_row_is_given_up_when_the_tables_have_moved() -> None:
    cache = AnswerCache()
    cache.saw("ledger", moment(5), 0.0)
    cache.put(asked(ROW), kept("a", moment(5)))
    cache.saw("ledger", moment(6), 0.0)
    assert cache.get(asked(ROW), 0.0) is None
    assert cache.stats()["hot"].entries == 0


def test_a_row_is_not_given_when_nobody_has_looked_for_a_while() -> None:
    cache = AnswerCache()
    cache.saw("ledger", moment(5), 0.0)
    cache.put(asked(ROW), kept("a", moment(5)))
    assert cache.get(asked(ROW), FRESH_S + 0.01) is None
    cache.saw("ledger", moment(5), 1.0)
    assert cache.get(asked(ROW), 1.0) is not None, "looked again, and it stands where it was"


def test_what_a_late_reader_saw_does_not_turn_the_clock_back() -> None:
    cache = AnswerCache()
    cache.saw("ledger", moment(6), 0.0)
    cache.saw("ledger", moment(5), 0.1)
    assert cache.newest("ledger") == moment(6)
    cache.saw("ledger", moment(7, s1=3), 0.1)
    cache.saw("ledger", moment(8), 0.1)
    assert cache.newest("ledger") == moment(7, s1=3), "one shard back is back"
    cache.saw("ledger", moment(1, build=2), 0.2)
    assert cache.newest("ledger") == moment(1, build=2), "a new set counts from its own begin"
    cache.saw("ledger", moment(99), 0.3)
    assert cache.newest("ledger") == moment(1, build=2)


def test_master_data_outlives_moves_but_not_its_set_nor_a_long_silence() -> None:
    cache = AnswerCache()
    cache.saw("ledger", moment(5), 0.0)
    cache.put(asked(TERMS), kept("a", moment(5)))
    cache.saw("ledger", moment(500), 1.0)
    found = cache.get(asked(TERMS), 1.0 + SETTLED_S)
    assert found is not None
    assert found.moment == moment(5), "the label of the moment that it was read at"
    assert cache.get(asked(TERMS), 1.5 + SETTLED_S) is None
    cache.saw("ledger", moment(500, build=2), 2.0)
    assert cache.get(asked(TERMS), 2.0) is None
    cache.put(asked(TERMS), kept("a", moment(500, build=2)))
    assert cache.get(asked(TERMS), 2.0) is not None


@pytest.mark.parametrize("path", [ROW, TERMS])
def test_a_kept_answer_is_no_answer_to_who_wants_a_later_one(path: str) -> None:
    cache = AnswerCache()
    cache.saw("ledger", moment(5), 0.0)
    cache.put(asked(path), kept("a", moment(5)))
    assert cache.get(asked(path, min_offset="4"), 0.0) is not None
    assert cache.get(asked(path, min_offset="5"), 0.0) is None
    assert cache.get(asked(path, headers=["1=0"]), 0.0) is None


def test_pages_and_large_answers_are_not_kept() -> None:
    cache = AnswerCache()
    cache.saw("ledger", moment(5), 0.0)
    for query, rows in ((asked("k/accounts"), 1), (asked("k/trial-balance"), ROWS_MAX + 1)):
        cache.put(query, kept("a", moment(5), rows))
        assert cache.get(query, 0.0) is None
    cache.put(asked("k/trial-balance"), kept("b", moment(5)))
    assert cache.get(asked("k/trial-balance"), 0.0) is not None


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["read", "move", "rebuild", "wait", "late"]),
        st.sampled_from([ROW, TERMS, "k/accounts/bob"]),
        st.integers(0, 12),
    ),
    max_size=40,
)


@given(STEPS)
def test_no_history_makes_an_answer_that_its_label_denies(
    steps: list[tuple[str, str, int]],
) -> None:
    cache = AnswerCache(hot_entries=2, settled_entries=2)
    end, build, now = 1, 1, 0.0
    newest_label = moment(0)
    for step, path, wanted in steps:
        if step == "move":
            end += 1
        elif step == "rebuild":
            build, end = build + 1, 1
        elif step == "wait":
            now += 0.2
        elif step == "late":
            cache.saw("ledger", moment(max(1, end - 1), build), now)
        else:
            query = asked(path, min_offset=str(wanted))
            found = cache.get(query, now)
            if found is None:
                if end <= wanted:
                    continue  # The database is behind: the read waits, and nothing is kept.
                cache.saw("ledger", moment(end, build), now)
                found = kept((path, build, 0 if path == TERMS else end), moment(end, build))
                cache.put(query, found)
            label = found.moment
            shown = 0 if path == TERMS else label.position.ends[0][1]
            assert found.value == (path, label.build, shown), "what was read at its label"
            assert query.wanted.reached(label.position)
            if path != TERMS:
                # Within a process no row is shown behind one that was shown before.
                assert (label.build, label.position.ends) >= (
                    newest_label.build,
                    newest_label.position.ends,
                )
                newest_label = label
