"""What a directory adds to the contract of an object store: files a crash leaves behind."""

import os
from pathlib import Path

import pytest

from ultraengine_adapters.local.object_store import DirectoryObjectStore

A_DAY_S = 24 * 3600


def test_a_put_leaves_no_temporary_file(tmp_path: Path) -> None:
    store = DirectoryObjectStore(tmp_path)
    store.put("a", b"1")
    store.put("a", b"2")
    with pytest.raises(FileExistsError):
        store.put("a", b"3", if_absent=True)
    assert list((tmp_path / ".partial").iterdir()) == []


@pytest.mark.parametrize("if_absent", [False, True])
def test_one_name_is_not_a_directory_of_another(tmp_path: Path, *, if_absent: bool) -> None:
    store = DirectoryObjectStore(tmp_path)
    store.put("a", b"kept")
    store.put("d/e", b"kept")
    for name in ("a/b", "a/b/c"):
        with pytest.raises(NotADirectoryError, match="a blob has this name"):
            store.put(name, b"x", if_absent=if_absent)
    with pytest.raises(IsADirectoryError):
        store.put("d", b"x", if_absent=if_absent)
    assert [store.get(name) for name in store.list("")] == [b"kept", b"kept"]
    assert list((tmp_path / ".partial").iterdir()) == []


def test_what_a_crash_left_is_never_listed_and_goes_after_a_day(tmp_path: Path) -> None:
    store = DirectoryObjectStore(tmp_path)
    store.put("a", b"1")
    old, young = tmp_path / ".partial" / "old", tmp_path / ".partial" / "young"
    for left in (old, young):
        left.write_bytes(b"half")
    then = old.stat().st_mtime - A_DAY_S - 60
    os.utime(old, (then, then))
    reopened = DirectoryObjectStore(tmp_path)
    assert list(reopened.list("")) == ["a"]
    assert (old.exists(), young.exists()) == (False, True)


def test_hidden_files_of_others_are_not_listed(tmp_path: Path) -> None:
    store = DirectoryObjectStore(tmp_path)
    (tmp_path / ".nfs0001").write_bytes(b"x")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / ".hidden").write_bytes(b"x")
    assert list(store.list("")) == []


def test_two_stores_on_one_directory_share_their_blobs(tmp_path: Path) -> None:
    DirectoryObjectStore(tmp_path).put("a/b/c", b"x")
    assert DirectoryObjectStore(tmp_path).get("a/b/c") == b"x"
