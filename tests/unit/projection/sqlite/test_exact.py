"""Numbers in SQLite are exact at every size, however they are computed."""

import operator
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ultraengine.model.errors import InvariantBroken
from ultraengine.projection.sqlite.conditions import TERMS_MAX, exact_condition
from ultraengine.projection.sqlite.exact import loaded, stored, sum_of
from ultraengine.projection.sqlite.store.driver import connect

EDGES = [2**58 - 1, 2**58, 2**62, 2**63 - 1, 2**63, 10**38 - 1]
NUMBERS = st.one_of(
    st.integers(-3, 3),
    st.integers(-(10**38) + 1, 10**38 - 1),
    st.sampled_from([sign * edge for edge in EDGES for sign in (1, -1)]),
)
COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq, "<>": operator.ne, "<": operator.lt, "<=": operator.le, ">": operator.gt,
    ">=": operator.ge,
}  # fmt: skip


@pytest.fixture(scope="module")
def database() -> Iterator[sqlite3.Connection]:
    with closing(connect(":memory:")) as connection:
        yield connection


def holds(database: sqlite3.Connection, condition: str, **values: int | None) -> bool | None:
    """Whether a rewritten condition holds of a row with these amounts."""
    text = exact_condition(condition, values)
    row = {name: None if value is None else stored(value) for name, value in values.items()}
    columns = ", ".join(f":{name} AS {name}" for name in row)
    query = f"SELECT {text.replace('{', '').replace('}', '')} FROM (SELECT {columns})"
    (found,) = database.execute(query, row).fetchone()
    return None if found is None else bool(found)


@given(NUMBERS)
def test_a_number_is_an_integer_where_it_fits_and_a_text_where_not(number: int) -> None:
    assert loaded(stored(number)) == number
    assert (type(stored(number)) is int) == (-(2**63) <= number < 2**63)
    assert loaded(None) is None


@settings(deadline=None)
@given(a=NUMBERS, b=NUMBERS, c=NUMBERS, sign=st.sampled_from(sorted(COMPARISONS)))
def test_a_condition_says_what_integers_without_bounds_say(
    database: sqlite3.Connection, a: int, b: int, c: int, sign: str
) -> None:
    compare = COMPARISONS[sign]
    assert holds(database, f"{{a}} {sign} {{b}}", a=a, b=b) is compare(a, b)
    assert holds(database, f"{{a}} - {{b}} {sign} {{c}}", a=a, b=b, c=c) is compare(a - b, c)
    both = holds(
        database, f"NOT ({{a}} + {{b}} + 1 {sign} {{c}} OR {{a}} IS NULL) AND 1 = 1", a=a, b=b, c=c
    )
    assert both is not compare(a + b + 1, c)
    assert holds(database, f"({{a}} + ({{b}} - -5)) {sign} 7", a=a, b=b) is compare(a + b + 5, 7)
    huge = 10**37
    assert holds(database, f"{{a}} {sign} {huge}", a=a) is compare(a, huge)


@settings(deadline=None)
@given(a=NUMBERS, b=NUMBERS, d=NUMBERS, off=st.integers(-1, 1))
def test_sums_that_leave_a_word_on_their_way_are_not_rounded(
    database: sqlite3.Connection, a: int, b: int, d: int, off: int
) -> None:
    c = a + b - d + off
    assert holds(database, "{a} + {b} - {d} = {c}", a=a, b=b, c=c, d=d) is (off == 0)
    word = {"a": 2**63 - 1, "b": 2**62 + 1, "d": 2**62 + 2}
    assert holds(database, "{a} + {b} - {d} = {c}", **word, c=2**63 - 2 + off) is (off == 0)
    huge = 10**37
    assert holds(database, f"{{a}} + {huge} - {huge} = {{c}}", a=a, c=a + off) is (off == 0)


@settings(deadline=None)
@given(a=NUMBERS)
def test_nothing_compares_with_nothing(database: sqlite3.Connection, a: int) -> None:
    assert holds(database, "{a} - {b} >= 0", a=a, b=None) is None
    assert holds(database, "{b} + {a} >= 0", a=a, b=None) is None
    assert holds(database, "{b} IS NULL OR {a} > {b}", a=a, b=None) is True
    assert holds(database, "{b} IS NOT NULL AND {a} > {b}", a=a, b=None) is False


@settings(deadline=None)
@given(a=NUMBERS)
def test_an_amount_is_found_in_a_list_of_small_ones(database: sqlite3.Connection, a: int) -> None:
    assert holds(database, "{a} IN (1, -2, 3)", a=a) is (a in (1, -2, 3))
    assert holds(database, "{a} NOT IN (1)", a=a) is (a != 1)


def test_a_condition_without_amounts_stays_as_it_was_written() -> None:
    condition = "{n} % 2 = 0 OR lower({x}) LIKE 'a%'"
    assert exact_condition(condition, {"amount"}) == condition
    mixed = exact_condition("{status} = 'it''s' AND {amount} = {n}", {"amount"})
    assert mixed.startswith("{status} = 'it''s' AND CASE WHEN {amount} BETWEEN")


@pytest.mark.parametrize(
    "condition",
    [
        "{a} * 2 > 0",
        "{a} BETWEEN 1 AND 2",
        "abs({a}) > 1",
        "{a} > 1 extra",
        "({a} > 1",
        "{a} NOT LIKE '1%'",
        "{a} IN (10000000000000000000000)",
        "{a} + 1 IN (1)",
        "{a} IS 5",
        "{a} >",
        "{a} > 1.5",
        " + ".join(["{a}"] * TERMS_MAX) + " > 0",
    ],
)
def test_a_comparison_of_amounts_that_is_not_known_is_refused(condition: str) -> None:
    with pytest.raises(InvariantBroken, match="a check of amounts is made of"):
        exact_condition(condition, {"a"})


@settings(deadline=None)
@given(st.lists(st.none() | NUMBERS, max_size=8))
def test_sums_and_extremes_are_exact(
    database: sqlite3.Connection, values: list[int | None]
) -> None:
    database.execute("CREATE TABLE IF NOT EXISTS numbers (x ANY) STRICT")
    database.execute("DELETE FROM numbers")
    database.executemany(
        "INSERT INTO numbers VALUES (?)",
        [(None if value is None else stored(value),) for value in values],
    )
    query = f"SELECT {sum_of('x')}, ultra_sum(x), ultra_min(x), ultra_max(x) FROM numbers"
    found = tuple(map(loaded, database.execute(query).fetchone()))
    numbers = [value for value in values if value is not None]
    expected = [function(numbers) if numbers else None for function in (sum, sum, min, max)]
    assert list(found) == expected


def test_a_sum_of_texts_without_words_is_their_sum(database: sqlite3.Connection) -> None:
    query = "SELECT ultra_total(NULL, NULL, ?), ultra_total(-1, 5, NULL)"
    assert database.execute(query, (str(10**30),)).fetchone() == (str(10**30), 5 - 2**32)
