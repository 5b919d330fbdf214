"""What every implementation of the ObjectStore port does."""

import random
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.servers.s3 import S3Server

from ultraengine.ports import ObjectStore
from ultraengine.testing.sim_objects import SimObjectStore
from ultraengine_adapters.local.object_store import DirectoryObjectStore
from ultraengine_adapters.s3.location import S3Location
from ultraengine_adapters.s3.object_store import S3ObjectStore


class BrokenOffError(Exception):
    """Where the chunks came from."""


class ObjectStoreContract:
    """Subclasses say which store."""

    @pytest.fixture
    def store(self, tmp_path: Path) -> ObjectStore:
        raise NotImplementedError

    @pytest.mark.parametrize("length", [0, 1, 4096, 1_000_003])
    def test_what_is_put_is_what_is_got(self, store: ObjectStore, length: int) -> None:
        blob = random.Random(length).randbytes(length)
        store.put("shard-0/snap.1", blob)
        assert store.get("shard-0/snap.1") == blob

    def test_a_range_is_that_part_of_the_blob_and_shorter_at_its_end(
        self, store: ObjectStore
    ) -> None:
        blob = random.Random(1).randbytes(10_000)
        store.put("a/b", blob)
        for position, length in (
            (0, 0),
            (0, 1),
            (0, 10_000),
            (4096, 100),
            (9_990, 100),
            (20_000, 5),
        ):
            assert store.get_range("a/b", position, length) == blob[position : position + length]
        for name in ("x", "a", "a/b/c"):
            with pytest.raises(FileNotFoundError):
                store.get_range(name, 0, 1)

    def test_the_size_of_a_blob_is_known_without_reading_it(self, store: ObjectStore) -> None:
        store.put("a/b", b"x" * 12_345)
        store.put("empty", b"")
        assert (store.size("a/b"), store.size("empty")) == (12_345, 0)
        for name in ("x", "a", "a/b/c"):
            with pytest.raises(FileNotFoundError):
                store.size(name)

    @pytest.mark.parametrize("lengths", [[], [0], [1], [700_000] * 20, [13_000_001, 0, 5]])
    def test_a_stream_is_stored_as_one_blob_whatever_its_chunks(
        self, store: ObjectStore, lengths: list[int]
    ) -> None:
        chunks = [random.Random(number).randbytes(one) for number, one in enumerate(lengths)]
        store.put_stream("a/stream", iter(chunks))
        assert store.get("a/stream") == b"".join(chunks)
        assert store.size("a/stream") == sum(lengths)

    def test_a_stream_that_breaks_off_leaves_what_was_there(self, store: ObjectStore) -> None:
        def breaking() -> Iterator[bytes]:
            for _ in range(3):
                yield bytes(6_000_000)
            raise BrokenOffError

        store.put("old", b"as it was")
        for name in ("old", "new"):
            with pytest.raises(BrokenOffError):
                store.put_stream(name, breaking())
        assert list(store.list("")) == ["old"]
        assert store.get("old") == b"as it was"

    def test_a_second_put_replaces_the_first(self, store: ObjectStore) -> None:
        store.put("x", b"a longer first one")
        store.put("x", b"second")
        assert store.get("x") == b"second"
        assert list(store.list("")) == ["x"]

    def test_a_conditional_put_never_replaces(self, store: ObjectStore) -> None:
        store.put("x", b"first", if_absent=True)
        with pytest.raises(FileExistsError):
            store.put("x", b"second", if_absent=True)
        assert store.get("x") == b"first"
        store.delete("x")
        store.put("x", b"third", if_absent=True)
        assert store.get("x") == b"third"

    def test_of_many_conditional_puts_at_once_exactly_one_wins(self, store: ObjectStore) -> None:
        won: list[int] = []
        together = threading.Barrier(8)

        def put(number: int) -> None:
            together.wait()
            try:
                store.put("race", str(number).encode() * 10_000, if_absent=True)
            except FileExistsError:
                return
            won.append(number)

        threads = [threading.Thread(target=put, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(won) == 1
        assert store.get("race") == str(won[0]).encode() * 10_000

    def test_names_are_listed_by_prefix_sorted(self, store: ObjectStore) -> None:
        for name in ("b/2", "b/10", "a", "b/sub/1", "bb", "B"):
            store.put(name, b"")
        assert list(store.list("")) == ["B", "a", "b/10", "b/2", "b/sub/1", "bb"]
        assert list(store.list("b")) == ["b/10", "b/2", "b/sub/1", "bb"]
        assert list(store.list("b/")) == ["b/10", "b/2", "b/sub/1"]
        assert list(store.list("b/1")) == ["b/10"]
        assert list(store.list("zzz/")) == []

    def test_what_is_not_there_is_not_found(self, store: ObjectStore) -> None:
        store.put("a/b", b"")
        for name in ("x", "a", "a/c", "a/b/c"):
            with pytest.raises(FileNotFoundError):
                store.get(name)

    def test_deleting_is_no_error_when_it_is_not_there(self, store: ObjectStore) -> None:
        store.put("a/b", b"")
        for name in ("x", "a", "a/c", "a/b/c", "a/b", "a/b"):
            store.delete(name)
        assert list(store.list("")) == []
        with pytest.raises(FileNotFoundError):
            store.get("a/b")

    @pytest.mark.parametrize(
        "name", ["", "/x", "../x", "a/../x", "a//x", "a/", ".x", "a/.x", "a\0"]
    )
    def test_a_name_that_could_leave_the_store_is_refused(
        self, store: ObjectStore, name: str
    ) -> None:
        with pytest.raises(ValueError, match="is not a name of a blob"):
            store.put(name, b"x")
        assert list(store.list("")) == []


class TestDirectoryObjectStore(ObjectStoreContract):
    @pytest.fixture
    def store(self, tmp_path: Path) -> ObjectStore:
        return DirectoryObjectStore(tmp_path / "objects")


class TestSimObjectStore(ObjectStoreContract):
    @pytest.fixture
    def store(self) -> ObjectStore:
        return SimObjectStore()


class TestS3ObjectStore(ObjectStoreContract):
    @pytest.fixture
    def store(self, s3_server: S3Server, s3_keys: None) -> ObjectStore:
        location = S3Location.parse(s3_server.new_place())
        return S3ObjectStore(location, part_bytes=5 * 1024 * 1024)
