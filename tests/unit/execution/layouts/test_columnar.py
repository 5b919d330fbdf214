"""The columnar layout: typed cells, scans in order of content, nothing half written."""

import sys
from array import array
from fractions import Fraction

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ultraengine.execution.layouts import ColumnarLayout


class Item(msgspec.Struct, frozen=True):
    """A row."""

    name: str
    stock: int
    weight: float = 0.0


Items = ColumnarLayout[str, Item]


def _items(*rows: tuple[str, int, float]) -> Items:
    layout: Items = ColumnarLayout(str, Item)
    for name, stock, weight in rows:
        layout.put(name, Item(name.upper(), stock, weight))
    return layout


def test_numbers_live_in_arrays() -> None:
    layout = _items(("b", 2, 0.5), ("a", 1, 1.5))
    kinds = {name: column.values for name, column in layout._by_name.items()}
    assert isinstance(kinds["stock"], array)
    assert kinds["stock"].typecode == "q"
    assert isinstance(kinds["weight"], array)
    assert kinds["weight"].typecode == "d"
    assert kinds["name"] == ["B", "A"]
    list(layout.items())
    stock = layout._by_name["stock"].values
    assert isinstance(stock, array)
    assert stock == array("q", [1, 2])


def test_rows_cost_a_fraction_of_the_memory_of_objects() -> None:
    layout = _items(*((f"{n}", n, n / 2) for n in range(1000)))
    cells = sum(sys.getsizeof(column.values) for column in layout._columns)
    assert cells < 1000 * 3 * 10


def test_a_row_built_by_get_is_a_copy_and_a_view_is_not() -> None:
    layout = _items(("a", 1, 0.5))
    layout.mark()
    view = layout.row("a")
    view["stock"] -= 3
    view["name"] = "other"
    assert layout.get("a") == Item("other", -2, 0.5)
    assert view["stock"] == layout.cell("a", "stock") == -2
    assert layout.changed == {"a"}


def test_a_view_stays_with_its_key_when_rows_move() -> None:
    layout = _items(("a", 1, 0.5), ("b", 2, 0.5), ("c", 3, 0.5))
    view = layout.row("c")
    layout.remove("a")
    assert view["stock"] == 3
    layout.put("0", Item("0", 0))
    list(layout.items())
    assert view["stock"] == 3


def test_what_is_not_there_is_a_key_error() -> None:
    layout = _items(("a", 1, 0.5))
    for access in (
        lambda: layout.row("b"),
        lambda: layout.cell("b", "stock"),
        lambda: layout.cell("a", "size"),
        lambda: layout.set("b", "stock", 1),
    ):
        with pytest.raises(KeyError):
            access()
    assert layout.get("b") is None
    assert "b" not in layout
    assert not layout._rows.keys() - {"a"}


@given(st.lists(st.tuples(st.sampled_from("abcdefgh"), st.integers(-9, 9) | st.none())))
def test_scans_and_selections_are_those_of_the_rows_in_order(
    steps: list[tuple[str, int | None]],
) -> None:
    layout: Items = ColumnarLayout(str, Item)
    model: dict[str, int] = {}
    for key, stock in steps:
        if stock is None:
            layout.remove(key)
            model.pop(key, None)
        else:
            layout.put(key, Item(key, stock, stock / 4))
            model[key] = stock
    rows = sorted(model.items())
    assert list(layout.scan("name", "stock")) == rows
    assert layout.select("stock", -2, 3) == [key for key, stock in rows if -2 <= stock < 3]
    assert layout.select("stock", None, 3) == [key for key, stock in rows if stock < 3]
    assert layout.select("stock", -2, None) == [key for key, stock in rows if stock >= -2]
    assert layout.total("stock") == sum(model.values())
    expected = (min(model.values()), max(model.values())) if model else None
    assert layout.extent("stock") == expected
    assert [layout.cell(key, "stock") for key, _ in rows] == [stock for _, stock in rows]


@given(st.permutations([0.1, 0.2, 0.3, 1e16, -1e16, 1e-9, 7.25]))
def test_a_total_of_floats_is_exact_whatever_the_order(weights: list[float]) -> None:
    layout = _items(*((str(n), n, weight) for n, weight in enumerate(weights)))
    assert layout.total("weight") == float(sum(map(Fraction, weights)))


def test_a_total_of_integers_is_exact_beyond_64_bits() -> None:
    layout = _items(("a", 2**63 - 1, 0.0), ("b", 2**63 - 1, 0.0))
    assert layout.total("stock") == 2**64 - 2


@pytest.mark.parametrize(
    ("bad", "error"),
    [
        (Item("x", 2**63), OverflowError),
        (Item("x", 1, 10**400), OverflowError),
        (Item("x", None), TypeError),  # type: ignore[arg-type]  # the point of the test
    ],
)
@pytest.mark.parametrize("key", ["a", "new"])
def test_a_number_that_does_not_fit_changes_nothing(
    bad: Item, error: type[Exception], key: str
) -> None:
    layout = _items(("b", 2, 0.5), ("a", 1, 0.25))
    layout.mark()
    with pytest.raises(error):
        layout.put(key, bad)
    assert list(layout.items()) == [("a", Item("A", 1, 0.25)), ("b", Item("B", 2, 0.5))]
    assert not layout.changed
    with pytest.raises(OverflowError):
        layout.set("a", "stock", 2**63)
    assert layout.cell("a", "stock") == 1
    assert not layout.changed


def test_rows_that_are_no_structs_are_refused() -> None:
    with pytest.raises(TypeError, match="rows of a columnar layout are msgspec structs"):
        ColumnarLayout[str, int](str, int)


class Tagged(msgspec.Struct):
    """A row with a cell that can be mutated."""

    tags: list[str]


def test_a_cell_mutated_in_place_and_touched_is_written() -> None:
    layout: ColumnarLayout[str, Tagged] = ColumnarLayout(str, Tagged)
    restored: ColumnarLayout[str, Tagged] = ColumnarLayout(str, Tagged)
    layout.put("a", Tagged(["x"]))
    layout.mark()
    layout.cell("a", "tags").append("y")
    assert list(layout.changes()) == []
    layout.touch("a")
    for chunk in layout.changes():
        restored.load(chunk)
    assert restored.get("a") == Tagged(["x", "y"])
