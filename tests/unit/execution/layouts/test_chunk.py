"""Chunks: bounded, ordered, typed."""

from typing import Any, NewType

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ultraengine.execution.layouts import HashLayout
from ultraengine.execution.layouts.chunk import CHUNK_BYTES_MAX, chunk_decoder, write_chunks

Number = NewType("Number", int)


@given(
    st.lists(st.lists(st.binary(max_size=40), max_size=30), min_size=1, max_size=4),
    st.integers(min_value=70, max_value=200),
)
def test_chunks_carry_every_entry_once_in_order_within_the_bound(
    lists: list[list[bytes]], bytes_max: int
) -> None:
    chunks = list(write_chunks(lists, bytes_max))
    read = [msgspec.msgpack.decode(chunk) for chunk in chunks]
    for number, entries in enumerate(lists):
        assert [entry for parts in read for entry in parts[number]] == entries
    assert all(any(parts) for parts in read)
    for chunk, parts in zip(chunks, read, strict=True):
        assert len(chunk) <= bytes_max or sum(map(len, parts)) == 1


def test_an_entry_of_a_later_list_never_comes_before_one_of_an_earlier_list() -> None:
    lists = [[f"{n}-{'x' * 30}" for n in range(10)], [f"{n}+{'y' * 30}" for n in range(10)]]
    seen = [
        entry
        for chunk in write_chunks(lists, 100)
        for part in msgspec.msgpack.decode(chunk)
        for entry in part
    ]
    assert seen == lists[0] + lists[1]


def test_a_chunk_is_filled_to_the_bound() -> None:
    entries = [b"x" * 98] * 10  # 100 bytes each with their msgpack header.
    sizes = [len(chunk) for chunk in write_chunks([entries], 306)]
    assert sizes == [306, 306, 306, 106]


def test_an_entry_larger_than_the_bound_stands_alone() -> None:
    layout: HashLayout[str, str] = HashLayout(str, str)
    for key, length in (("a", 10), ("b", CHUNK_BYTES_MAX + 1), ("c", 10)):
        layout.put(key, "x" * length)
    chunks = list(layout.dump())
    assert [len(chunk) > CHUNK_BYTES_MAX for chunk in chunks] == [False, True, False]
    loaded: HashLayout[str, str] = HashLayout(str, str)
    for chunk in chunks:
        loaded.load(chunk)
    assert list(loaded.items()) == list(layout.items())


@pytest.mark.parametrize("key_type", [int, str, bytes, Number, tuple[str, Number], tuple[int]])
def test_keys_with_one_order_everywhere_are_taken(key_type: Any) -> None:
    assert len(HashLayout[Any, int](key_type, int)) == 0


@pytest.mark.parametrize("key_type", [float, bool | int, list[str], tuple[str, ...], tuple, Any])
def test_keys_without_one_order_everywhere_are_refused(key_type: Any) -> None:
    with pytest.raises(TypeError, match="a layout's key is"):
        HashLayout[Any, int](key_type, int)


class Recursive(msgspec.Struct):
    """A value that holds values of its own type."""

    name: str
    inner: "list[Recursive]"


class Tagged(msgspec.Struct):
    """A value with a set deep inside."""

    labels: dict[str, list[frozenset[str]]]


class Outer(msgspec.Struct):
    """A value around it."""

    tagged: Tagged | None


@pytest.mark.parametrize("value_type", [set[int], Tagged, Outer, dict[str, tuple[Outer, ...]]])
def test_values_with_a_set_anywhere_are_refused(value_type: Any) -> None:
    with pytest.raises(TypeError, match="holds a set, whose order differs"):
        HashLayout[str, Any](str, value_type)


def test_a_recursive_value_is_taken() -> None:
    layout: HashLayout[str, Recursive] = HashLayout(str, Recursive)
    layout.put("a", Recursive("a", [Recursive("b", [])]))
    loaded: HashLayout[str, Recursive] = HashLayout(str, Recursive)
    for chunk in layout.dump():
        loaded.load(chunk)
    assert loaded.get("a") == layout.get("a")


def test_layouts_of_one_type_share_a_decoder() -> None:
    assert chunk_decoder((str, tuple[str, int])) is chunk_decoder((str, tuple[str, int]))


def test_a_chunk_of_another_type_is_refused_and_changes_nothing() -> None:
    names: HashLayout[str, str] = HashLayout(str, str)
    numbers: HashLayout[str, int] = HashLayout(str, int)
    names.put("a", "one")
    numbers.put("a", 1)
    with pytest.raises(msgspec.ValidationError):
        numbers.load(next(names.dump()))
    assert list(numbers.items()) == [("a", 1)]
    assert "a" in numbers
    assert "b" not in numbers


def test_a_dict_inside_a_value_keeps_its_insertion_order_through_a_dump() -> None:
    layout: HashLayout[str, dict[str, int]] = HashLayout(str, dict[str, int])
    layout.put("a", {"z": 1, "a": 2, "m": 3})
    loaded: HashLayout[str, dict[str, int]] = HashLayout(str, dict[str, int])
    for chunk in layout.dump():
        loaded.load(chunk)
    assert list(loaded.get("a") or ()) == ["z", "a", "m"]
