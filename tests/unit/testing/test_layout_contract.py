"""The layout contract finds what it is for: each wrong layout fails the sentence it breaks."""

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from ultraengine.execution.layouts import HashLayout
from ultraengine.testing.layouts import LayoutContract

_MSGPACK = msgspec.msgpack.Encoder()


class Right(HashLayout[str, int]):
    """A layout that passes."""

    def __init__(self) -> None:
        super().__init__(str, int)


class InsertionOrder(Right):
    """Dumps in the order of insertion."""

    def items(self) -> Iterator[tuple[str, int]]:
        yield from self._values.items()


class HashOrder(Right):
    """Dumps in the order of hashes."""

    def items(self) -> Iterator[tuple[str, int]]:
        for key in set(self._values):
            yield key, self._values[key]


class ForgetsRemovals(Right):
    """Counts a removal as nothing."""

    def remove(self, key: str) -> None:
        self._values.pop(key, None)


class ForgetsTouch(Right):
    """Counts a mutation in place as nothing."""

    def touch(self, key: str) -> None:
        del key


class WritesAllAsChanged(Right):
    """Increments that are full dumps."""

    def changes(self) -> Iterator[bytes]:
        return self.dump()


class CountsLoads(Right):
    """Takes what it loads for changes of its own."""

    def load(self, chunk: bytes) -> None:
        super().load(chunk)
        self.changed.update(self._values)


class LoadsAfresh(Right):
    """Forgets what a chunk does not name."""

    def load(self, chunk: bytes) -> None:
        self._values.clear()
        super().load(chunk)


class ForgetsOnReading(Right):
    """Clears its changes when they are read."""

    def changes(self) -> Iterator[bytes]:
        chunks = list(super().changes())
        self.changed.clear()
        return iter(chunks)


class MarkDoesNothing(Right):
    """Increments never shrink."""

    def mark(self) -> None:
        pass


class OneChunk(Right):
    """Dumps everything at once."""

    def dump(self) -> Iterator[bytes]:
        if len(self):
            yield _MSGPACK.encode(([], list(self.items())))


class LosesItsCounter(Right):
    """Removes nothing before its 150th put, and does not dump how many there were."""

    def __init__(self) -> None:
        super().__init__()
        self.puts = 0

    def put(self, key: str, value: int) -> None:
        self.puts += 1
        super().put(key, value)

    def remove(self, key: str) -> None:
        if self.puts > 150:
            super().remove(key)


class LosesKeys(Right):
    """Cannot hold more than thirty keys."""

    def put(self, key: str, value: int) -> None:
        if len(self) < 30 or key in self:
            super().put(key, value)


class Contract(LayoutContract):
    """The contract, for a layout given at run time."""

    layout: type[Right] = Right

    def make(self) -> Right:
        return self.layout()

    def key(self, number: int) -> str:
        return f"key-{number}"

    def value(self, number: int) -> int:
        return number

    def change(self, layout: Any, key: str, number: int) -> None:
        layout._values[key] = number
        layout.touch(key)


class HashOrderContract(Contract):
    """Named, so that processes of their own can find it."""

    layout = HashOrder


TESTS = sorted(name for name in dir(Contract) if name.startswith("test_"))
WRONG = [
    (InsertionOrder, "test_the_dump_does_not_depend_on_how_the_content_came_about"),
    (ForgetsRemovals, "test_changes_on_top_of_the_dump_at_mark_are_the_dump_now"),
    (ForgetsRemovals, "test_each_write_is_a_change"),
    (ForgetsTouch, "test_each_write_is_a_change"),
    (ForgetsTouch, "test_changes_on_top_of_the_dump_at_mark_are_the_dump_now"),
    (WritesAllAsChanged, "test_nothing_changed_since_mark_means_no_chunk"),
    (WritesAllAsChanged, "test_each_write_is_a_change"),
    (CountsLoads, "test_a_dump_loads_into_an_equal_layout"),
    (LoadsAfresh, "test_a_load_replaces_and_removes_only_what_it_names"),
    (ForgetsOnReading, "test_reading_changes_does_not_forget_them"),
    (MarkDoesNothing, "test_nothing_changed_since_mark_means_no_chunk"),
    (OneChunk, "test_chunks_are_bounded"),
    (LosesItsCounter, "test_a_loaded_layout_goes_on_like_the_one_that_was_dumped"),
    (LosesKeys, "test_it_holds_what_was_put_until_it_is_removed"),
]


def _contract(layout: type[Right]) -> Contract:
    contract = Contract()
    contract.layout = layout
    return contract


@pytest.mark.parametrize("test", [name for name in TESTS if "hash_seed" not in name])
def test_a_right_layout_passes(test: str) -> None:
    getattr(_contract(Right), test)()


@pytest.mark.parametrize(("layout", "test"), WRONG)
def test_a_wrong_layout_fails(layout: type[Right], test: str) -> None:
    with pytest.raises(AssertionError):
        getattr(_contract(layout), test)()


def test_an_order_of_hashes_fails_under_two_hash_seeds() -> None:
    with pytest.raises(AssertionError, match="two hash seeds"):
        HashOrderContract().test_the_dump_does_not_depend_on_the_hash_seed()


def test_a_class_that_cannot_be_found_is_named_with_the_error_of_its_process() -> None:
    class Hidden(Contract):
        pass

    with pytest.raises(AssertionError, match="<locals>"):
        Hidden().test_the_dump_does_not_depend_on_the_hash_seed()
