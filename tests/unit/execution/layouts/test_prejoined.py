"""The pre-joined layout: children with their parent, written one by one."""

import pytest

from ultraengine.execution.layouts import Joined, PrejoinedLayout

Orders = PrejoinedLayout[str, str, int, str]


def _orders() -> Orders:
    layout: Orders = PrejoinedLayout(str, str, int, str)
    layout.put("o1", Joined("first", [(3, "three"), (1, "one"), (2, "two")]))
    layout.put("o2", Joined("second"))
    return layout


def _restored(*sources: Orders) -> Orders:
    layout: Orders = PrejoinedLayout(str, str, int, str)
    for source in sources:
        for chunk in source.dump():
            layout.load(chunk)
    return layout


def test_children_come_by_ascending_key_with_their_parent() -> None:
    order = _orders().get("o1")
    assert order is not None
    assert order.parent == "first"
    assert list(order.keys) == [1, 2, 3]
    assert list(order.children) == ["one", "two", "three"]
    assert order.child(2) == order[2] == "two"
    assert order.child(4) is None
    assert 4 not in order
    with pytest.raises(KeyError):
        order[4]


def test_a_parent_can_be_replaced_without_its_children() -> None:
    layout = _orders()
    layout.put_parent("o1", "changed")
    layout.put_parent("o3", "third")
    assert layout.get("o1") == Joined("changed", [(1, "one"), (2, "two"), (3, "three")])
    assert layout.get("o3") == Joined("third")
    assert "o3" in layout
    assert "o4" not in layout


def test_a_put_replaces_all_children() -> None:
    layout = _orders()
    restored = _restored(layout)
    layout.mark()
    layout.put("o1", Joined("anew", [(9, "nine")]))
    for chunk in layout.changes():
        restored.load(chunk)
    assert restored.get("o1") == Joined("anew", [(9, "nine")])


def test_a_child_needs_its_parent() -> None:
    layout = _orders()
    with pytest.raises(KeyError):
        layout.attach("o9", 1, "x")
    assert layout.changed_children == set()
    layout.mark()
    layout.detach("o9", 1)
    layout.detach("o1", 9)
    assert list(layout.changes()) == []


def test_one_changed_child_is_written_without_its_parent_and_siblings() -> None:
    layout: Orders = PrejoinedLayout(str, str, int, str)
    layout.put("o1", Joined("first", ((n, "x" * 100) for n in range(1000))))
    restored = _restored(layout)
    layout.mark()
    layout.attach("o1", 500, "changed")
    layout.detach("o1", 501)
    chunks = list(layout.changes())
    assert sum(map(len, chunks)) < 100
    for chunk in chunks:
        restored.load(chunk)
    assert list(restored.items()) == list(layout.items())


def test_a_parent_with_more_children_than_a_chunk_holds_is_dumped_in_several() -> None:
    layout: Orders = PrejoinedLayout(str, str, int, str)
    layout.put("o1", Joined("first", ((n, "x" * 1000) for n in range(3000))))
    chunks = list(layout.dump())
    assert len(chunks) == 3
    assert max(map(len, chunks)) <= 2**20
    assert list(_restored(layout).items()) == list(layout.items())


def test_joined_values_are_equal_by_parent_keys_and_children() -> None:
    one = Joined("p", [(1, "a")])
    assert one == Joined("p", [(1, "a")])
    assert one != Joined("q", [(1, "a")])
    assert one != Joined("p", [(2, "a")])
    assert one != Joined("p", [(1, "b")])
    assert one != "p"
    assert repr(one) == "Joined('p', [(1, 'a')])"
    with pytest.raises(TypeError):
        hash(one)


def test_a_parent_mutated_in_place_is_written_with_or_without_its_children() -> None:
    layout: PrejoinedLayout[str, list[int], int, list[int]] = PrejoinedLayout(
        str, list[int], int, list[int]
    )
    layout.put("o1", Joined([1], [(1, [10]), (2, [20])]))
    whole = sum(map(len, layout.dump()))
    for touch, least in ((layout.touch_parent, 0), (layout.touch, whole)):
        restored: PrejoinedLayout[str, list[int], int, list[int]] = PrejoinedLayout(
            str, list[int], int, list[int]
        )
        for chunk in layout.dump():
            restored.load(chunk)
        layout.mark()
        order = layout.get("o1")
        assert order is not None
        order.parent.append(2)
        if touch == layout.touch:
            order[1].append(11)
        assert list(layout.changes()) == []
        touch("o1")
        chunks = list(layout.changes())
        assert sum(map(len, chunks)) >= least
        for chunk in chunks:
            restored.load(chunk)
        assert list(restored.items()) == list(layout.items())
