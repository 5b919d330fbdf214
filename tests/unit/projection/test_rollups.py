"""Sums by what another row says: what is asked, what is remembered, what is written."""

import pytest

from ultraengine.projection.fold import Batch
from ultraengine.projection.rollups import (
    REMEMBERED_MAX,
    LookedUp,
    roll_up,
    rolled,
    start_of,
    unknown,
)
from ultraengine.projection.target import RowRefused
from ultraengine.testing.projection_tables import GROUPED, ROLLED

TABLES = (GROUPED, ROLLED)
MINUTE_US = 60_000_000
assert ROLLED.rollup is not None
ROLLUP = ROLLED.rollup


def test_only_what_neither_the_batch_nor_the_target_knows_is_asked_for() -> None:
    batch = Batch(TABLES)
    assert rolled(TABLES, batch) == []
    batch.put("grouped", ("t", "new", "x", 0))
    for name in ("new", "old", "met", "old"):
        batch.putter("rolled")(("t", name, 1, 1, 5))
    assert rolled(TABLES, batch) == [(ROLLED, ROLLUP)]
    assert unknown(ROLLUP, ROLLED, batch, {("t", "met"): "y"}) == [("t", "old")]
    with pytest.raises(RowRefused, match="grouped has no row \\('t', 'old'\\)"):
        roll_up(ROLLUP, ROLLED, batch, {("t", "met"): "y"})
    for _ in range(2):  # A batch that is written again says the same.
        roll_up(ROLLUP, ROLLED, batch, {("t", "met"): "y", ("t", "old"): "x"})
        written = batch.current["rolled"].put
        assert written["t", 0, 1, "x"] == ["t", 0, 1, "x", 3, 15]
        assert written["t", 86_400, 0, "y"] == ["t", 86_400, 0, "y", 1, 5]
        assert len(written) == 6


def test_a_span_begins_before_its_moments_also_before_1970() -> None:
    assert [start_of(at, 60) for at in (0, MINUTE_US - 1, MINUTE_US, -1)] == [
        0, 0, MINUTE_US, -MINUTE_US,
    ]  # fmt: skip
    assert start_of(-7, 0) == -7


def test_what_was_looked_up_is_forgotten_when_it_is_too_much() -> None:
    held = LookedUp()
    held.remember("a", "x", {("t", "1"): "one"})
    held.remember("b", "x", {("t", "1"): "other"})
    before = held.of("a", "x")
    assert (before, held.of("a", "y"), held.of("b", "x")) == (
        {("t", "1"): "one"}, {}, {("t", "1"): "other"},
    )  # fmt: skip
    many = {("t", str(number)): "" for number in range(REMEMBERED_MAX)}
    held.remember("a", "x", many)
    assert held.of("b", "x") == {}
    assert len(held.of("a", "x")) == REMEMBERED_MAX
    assert before == {("t", "1"): "one"}  # Who has got some of it goes on with that.
    held.forget()
    assert held.of("a", "x") == {}
