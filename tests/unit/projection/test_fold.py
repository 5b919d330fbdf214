"""Folding rows: what a batch writes is what the events, one by one, would have left."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ultraengine.model.errors import InvariantBroken
from ultraengine.model.projection import Column, ColumnType, Fold, Table, TableKind
from ultraengine.projection.fold import COMBINE, Batch

TOTALS = Table(
    name="totals",
    kind=TableKind.CURRENT,
    columns=(
        Column(name="tenant", type=ColumnType.TEXT),
        Column(name="day", type=ColumnType.DATE),
        Column(name="paid", type=ColumnType.AMOUNT, fold=Fold.SUM),
        Column(name="first", type=ColumnType.TIME, fold=Fold.MIN),
        Column(name="newest", type=ColumnType.TIME, fold=Fold.MAX),
        Column(name="note", type=ColumnType.TEXT, nullable=True),
    ),
    key=("tenant", "day"),
)
FACTS = Table(
    name="facts",
    kind=TableKind.APPEND,
    columns=(
        Column(name="tenant", type=ColumnType.TEXT),
        Column(name="n", type=ColumnType.INTEGER),
    ),
    key=("tenant", "n"),
)
NAMES = TOTALS.names[2:]
NUMBERS = st.integers(-5, 5)
STEPS = st.lists(
    st.tuples(
        st.booleans(), st.integers(0, 2), NUMBERS, NUMBERS, NUMBERS, st.sampled_from(["a", None])
    ),
    max_size=12,
)


def merged(target: dict[Any, list[Any]], batch: Batch) -> dict[Any, list[Any]]:
    """What a target holds after it has merged a batch."""
    folds = [COMBINE[column.fold] for column in TOTALS.columns]
    rows = batch.current["totals"]
    for key, new in rows.put.items():
        held = target.get(key)
        target[key] = (
            list(new)
            if held is None
            else [
                fold(old, value) if position >= 2 else old
                for position, (fold, old, value) in enumerate(zip(folds, held, new, strict=True))
            ]
        )
    for key, values in rows.changed.items():
        for position, value in values.items():
            target[key][position] = folds[position](target[key][position], value)
    return target


@given(STEPS, st.lists(st.integers(1, 12), max_size=4))
def test_cutting_the_events_into_batches_changes_nothing(
    steps: list[tuple[bool, int, int, int, int, str | None]], cuts: list[int]
) -> None:
    one_by_one: dict[Any, list[Any]] = {}
    in_batches: dict[Any, list[Any]] = {}
    batch = Batch([TOTALS])
    for number, (whole, day, *values) in enumerate(steps):
        if number in cuts:
            merged(in_batches, batch)
            batch = Batch([TOTALS])
        alone = Batch([TOTALS])
        for into in (batch, alone):
            if whole or ("t", day) not in one_by_one:
                into.put("totals", ("t", day, *values))
            else:
                into.change("totals", ("t", day), dict(zip(NAMES, values, strict=True)))
        merged(one_by_one, alone)
    merged(in_batches, batch)
    assert in_batches == one_by_one


def test_appended_rows_keep_their_order_and_are_counted_with_the_keys() -> None:
    batch = Batch([TOTALS, FACTS])
    append = batch.appender("facts")
    append(("t", 2))
    batch.append("facts", ("t", 1))
    batch.put("totals", ("t", 1, 1, 1, 1, None))
    batch.put("totals", ("t", 1, 1, 1, 1, None))
    batch.change("totals", ("t", 2), {"paid": 1})
    batch.change("totals", ("t", 2), {"paid": 2})
    assert batch.appended["facts"] == [("t", 2), ("t", 1)]
    assert batch.row_count == 4
    assert batch.current["totals"].changed == {("t", 2): {2: 3}}


def test_a_row_of_another_width_is_named() -> None:
    with pytest.raises(InvariantBroken, match="one value per column"):
        Batch([TOTALS]).put("totals", ("t", 1))


def test_a_key_whose_values_are_replaced_is_written_once_with_the_last_of_them() -> None:
    batch = Batch([TOTALS])
    change = batch.changer("totals", ("note",))
    for value in ("a", "b", "c"):
        change(("t", 1), (value,))
    batch.putter("totals")(("t", 2, 1, 1, 1, "x"))
    change(("t", 2), ("y",))
    assert batch.current["totals"].changed == {("t", 1): {5: "c"}}
    assert batch.current["totals"].put == {("t", 2): ["t", 2, 1, 1, 1, "y"]}


def test_a_changer_is_made_once_and_wants_one_value_per_column() -> None:
    batch = Batch([TOTALS])
    change = batch.changer("totals", ("note", "paid"))
    assert batch.changer("totals", ("note", "paid")) is change
    change(("t", 1), ("a", 1))
    change(("t", 1), ("b", 2))
    assert batch.current["totals"].changed == {("t", 1): {5: "b", 2: 3}}
    with pytest.raises(ValueError, match="shorter"):
        change(("t", 1), ("a",))
    with pytest.raises(KeyError):
        batch.changer("totals", ("nothing",))
