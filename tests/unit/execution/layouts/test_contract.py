"""Every shipped layout passes the contract that users' layouts pass."""

from typing import Any

import msgspec

from ultraengine.execution.layouts import (
    AdjacencyLayout,
    ColumnarLayout,
    HashLayout,
    Joined,
    PrejoinedLayout,
    SortedLayout,
)
from ultraengine.testing.layouts import AnyLayout, LayoutContract

WIDE = "x" * 200
"""Makes values as large as most are, so that fewer of them fill a chunk."""


class Account(msgspec.Struct, array_like=True):
    """A mutable value with strings, numbers and a nested dict."""

    owner: str
    balance: int
    labels: dict[str, int]


def _account(number: int) -> Account:
    return Account(f"owner-{number} {WIDE}", number * 10**10, {"b": number, "a": 1})


class TestHashLayout(LayoutContract):
    def make(self) -> AnyLayout:
        return HashLayout(str, Account)

    def key(self, number: int) -> str:
        return f"account-{number}"

    def value(self, number: int) -> Account:
        return _account(number)

    def change(self, layout: AnyLayout, key: str, number: int) -> None:
        layout.get(key).balance = -number  # type: ignore[union-attr]  # the contract gives present keys
        layout.touch(key)


class TestHashLayoutWithTupleKeys(LayoutContract):
    def make(self) -> AnyLayout:
        return HashLayout(tuple[str, int], str)

    def key(self, number: int) -> tuple[str, int]:
        return f"tenant-{number % 7}", number

    def value(self, number: int) -> str:
        return f"value {number} {WIDE}"


class TestSortedLayout(LayoutContract):
    def make(self) -> AnyLayout:
        return SortedLayout(tuple[int, str], Account)

    def key(self, number: int) -> tuple[int, str]:
        return number % 11, f"timer-{number}"

    def value(self, number: int) -> Account:
        return _account(number)

    def change(self, layout: AnyLayout, key: tuple[int, str], number: int) -> None:
        layout.get(key).labels[f"label-{number}"] = number  # type: ignore[union-attr]  # present
        layout.touch(key)


class Row(msgspec.Struct, frozen=True):
    """One row of each kind of column."""

    stock: int
    price: float
    name: str
    supplier: str | None = None


class TestColumnarLayout(LayoutContract):
    def make(self) -> AnyLayout:
        return ColumnarLayout(str, Row)

    def key(self, number: int) -> str:
        return f"item-{number}"

    def value(self, number: int) -> Row:
        return Row(
            -number, number / 8, f"name {number} {WIDE}", f"s{number}" if number % 2 else None
        )

    def change(self, layout: AnyLayout, key: str, number: int) -> None:
        assert isinstance(layout, ColumnarLayout)
        layout.row(key)["price"] = number / 4

    def extra(self, layout: AnyLayout, number: int) -> None:
        assert isinstance(layout, ColumnarLayout)
        # A reader arranges the rows, which may show nowhere.
        if number % 3 == 0:
            list(layout.scan("stock"))


class TestAdjacencyLayout(LayoutContract):
    def make(self) -> AnyLayout:
        return AdjacencyLayout(str, str, Account)

    def key(self, number: int) -> str:
        return f"node-{number}"

    def value(self, number: int) -> str:
        return f"{number} {WIDE}"

    def extra(self, layout: AnyLayout, number: int) -> None:
        assert isinstance(layout, AdjacencyLayout)
        source, target = self.key(number % 40), self.key(number // 40 % 40)
        edge = layout.edge(source, target)
        if number % 5 == 0:
            layout.unlink(source, target)
        elif edge is not None:
            edge.balance = number
            layout.touch_edge(source, target)
        elif source in layout and target in layout:
            layout.link(source, target, _account(number))

    def content(self, layout: AnyLayout) -> Any:
        assert isinstance(layout, AdjacencyLayout)
        around = [
            (key, list(layout.successors(key)), list(layout.predecessors(key)))
            for key, _ in layout.items()
        ]
        return super().content(layout), list(layout.edges()), around


class TestPrejoinedLayout(LayoutContract):
    def make(self) -> AnyLayout:
        return PrejoinedLayout(str, Account, int, Account)

    def key(self, number: int) -> str:
        return f"order-{number}"

    def value(self, number: int) -> Joined[Account, int, Account]:
        children = ((line * 7 % 5, _account(line)) for line in range(number % 4))
        return Joined(_account(number), children)

    def change(self, layout: AnyLayout, key: str, number: int) -> None:
        joined = layout.get(key)
        assert joined is not None
        for child in joined.children:
            child.balance += number
        joined.parent.balance = number
        layout.touch(key)

    def extra(self, layout: AnyLayout, number: int) -> None:
        assert isinstance(layout, PrejoinedLayout)
        key, line = self.key(number % 40), number // 40 % 6
        joined = layout.get(key)
        if joined is None:
            layout.detach(key, line)
            layout.put_parent(key, _account(number))
        elif number % 4 == 0:
            layout.detach(key, line)
        elif number % 4 == 1 and line in joined:
            joined[line].balance = number
            layout.touch_child(key, line)
        elif number % 4 == 2:
            joined.parent.balance = number
            layout.touch_parent(key)
        else:
            layout.attach(key, line, _account(number))
