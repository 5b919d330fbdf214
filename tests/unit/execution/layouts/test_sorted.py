"""The sorted layout against a sorted list."""

from collections.abc import Iterator
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ultraengine.execution.layouts import SortedLayout
from ultraengine.execution.layouts.sorted import BLOCK_KEYS_MAX

Numbers = SortedLayout[int, str]


def _layout(keys: list[int] | range) -> Numbers:
    layout: Numbers = SortedLayout(int, str)
    for key in keys:
        layout.put(key, str(key))
    return layout


def _keys(pairs: Iterator[tuple[int, str]] | list[tuple[int, str]]) -> list[int]:
    found = list(pairs)
    assert all(value == str(key) for key, value in found)
    return [key for key, _ in found]


BOUND = st.one_of(st.none(), st.integers(-2, 42))


@given(
    st.lists(st.tuples(st.booleans(), st.integers(0, 40)), max_size=120),
    BOUND,
    BOUND,
    st.integers(0, 9),
)
def test_ranges_and_pages_are_those_of_a_sorted_list(
    steps: list[tuple[bool, int]], start: int | None, end: int | None, limit: int
) -> None:
    layout, model = _layout([]), dict[int, str]()
    for insert, key in steps:
        if insert:
            layout.put(key, str(key))
            model[key] = str(key)
        else:
            layout.remove(key)
            model.pop(key, None)
    keys = sorted(model)
    inside = [key for key in keys if (start is None or start <= key) and (end is None or key < end)]
    assert _keys(layout.range(start, end)) == inside
    beyond = [key for key in keys if start is None or start < key]
    assert _keys(layout.after(start, limit)) == beyond[:limit]
    below = [key for key in keys if end is None or key < end]
    assert _keys(layout.before(end, limit)) == below[::-1][:limit]
    assert layout.first() == ((keys[0], str(keys[0])) if keys else None)
    assert layout.last() == ((keys[-1], str(keys[-1])) if keys else None)


@pytest.mark.parametrize("order", ["ascending", "descending", "shuffled"])
def test_many_blocks_hold_what_one_would(order: str) -> None:
    count = 5 * BLOCK_KEYS_MAX
    keys = list(range(0, 2 * count, 2))
    if order == "descending":
        keys.reverse()
    elif order == "shuffled":
        Random(7).shuffle(keys)
    layout = _layout(keys)
    assert _keys(layout.items()) == list(range(0, 2 * count, 2))
    for start in range(-1, 2 * count, 997):
        end = start + 3000
        even = list(range(start + start % 2, 2 * count, 2))
        assert _keys(layout.range(start, end)) == [key for key in even if key < end]
        assert _keys(layout.after(start, 5)) == [key for key in even if key > start][:5]
        below = list(range(0, start, 2))
        assert _keys(layout.before(start, 5)) == below[::-1][:5]
    Random(8).shuffle(keys)
    for key in keys[: count - 10]:
        layout.remove(key)
    assert _keys(layout.items()) == sorted(keys[count - 10 :])
    for key in keys[count - 10 :]:
        layout.remove(key)
    assert _keys(layout.items()) == []
    layout.put(3, "3")
    assert _keys(layout.items()) == [3]


def test_pages_by_cursor_visit_every_key_once() -> None:
    layout = _layout(range(0, 5000, 3))
    seen: list[int] = []
    page = layout.after(None, 100)
    while page:
        seen += _keys(page)
        page = layout.after(page[-1][0], 100)
    assert seen == list(range(0, 5000, 3))


@pytest.mark.parametrize("change", ["put", "remove"])
def test_inserting_or_removing_while_iterating_raises(change: str) -> None:
    for pairs in ("range", "items"):
        layout = _layout(range(10))
        found = layout.items() if pairs == "items" else layout.range(2, None)
        next(found)
        if change == "put":
            layout.put(100, "100")
        else:
            layout.remove(9)
        with pytest.raises(RuntimeError, match="during an iteration"):
            next(found)


def test_replacing_a_value_while_iterating_is_fine() -> None:
    layout = _layout(range(10))
    for key, value in layout.items():
        layout.put(key, f"{value} again")
    assert [value for _, value in layout.items()] == [f"{key} again" for key in range(10)]


def test_a_value_of_none_can_be_loaded_and_removed() -> None:
    layout: SortedLayout[int, None] = SortedLayout(int, type(None))
    layout.put(1, None)
    layout.put(2, None)
    loaded: SortedLayout[int, None] = SortedLayout(int, type(None))
    for chunk in layout.dump():
        loaded.load(chunk)
    layout.mark()
    layout.remove(1)
    for chunk in layout.changes():
        loaded.load(chunk)
    assert list(loaded.items()) == [(2, None)]
    assert list(loaded.range(None, None)) == [(2, None)]
