"""Places to hurt programs in: mounts that end with the test."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ultraengine.testing.process_faults import PATIENCE_S, Subject

HERE = Path(__file__).parent
MIB = 1024 * 1024

APPEND_LOG = Subject("log", (sys.executable, str(HERE / "append_log.py")))
ULTRA_SERVE = Subject("serve", (sys.executable, str(HERE / "ultra_serve.py")))
SUBJECTS = {
    "log": APPEND_LOG,
    "log-lz4-aes": APPEND_LOG.with_options("--compress", "--encrypt"),
    "serve": ULTRA_SERVE.with_options("--encrypt", "--snapshot-commands", "200"),
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that mount need root; elsewhere they are shown as skipped."""
    for item in items:
        if item.get_closest_marker("root") and os.geteuid() != 0:
            item.add_marker(pytest.mark.skip(reason="needs root"))


def _used(chosen: Subject, request: pytest.FixtureRequest) -> Iterator[Subject]:
    """A program for one test.  The mounts are made first, so that they outlive it."""
    for place in ("forgetful", "small_ext4"):
        if place in request.fixturenames:
            request.getfixturevalue(place)
    yield chosen
    chosen.discard()


@pytest.fixture(params=list(SUBJECTS.values()), ids=list(SUBJECTS))
def subject(request: pytest.FixtureRequest) -> Iterator[Subject]:
    """The program under test."""
    yield from _used(request.param, request)


@pytest.fixture
def careless(request: pytest.FixtureRequest) -> Iterator[Subject]:
    """A program that acknowledges what it has not synced, to show that it is found."""
    yield from _used(APPEND_LOG.with_options("--no-sync"), request)


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    """On the disk of the tests, which is not hurt."""
    return tmp_path / "journal"


def _until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


class ForgetfulMount:
    """A mounted `fuse_disk.py`."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def cut_power(self) -> None:
        """Lose what was not synced."""
        os.setxattr(self.place, "user.power_cut", b"1")

    def fail_sync(self, after: int) -> None:
        """Let a later sync fail."""
        os.setxattr(self.place, "user.fail_sync", str(after).encode())

    def set_capacity(self, length: int) -> None:
        """Change the size of the disk, in bytes."""
        os.setxattr(self.place, "user.capacity", str(length).encode())


@pytest.fixture
def forgetful(tmp_path: Path) -> Iterator[ForgetfulMount]:
    """A file system that keeps unsynced bytes and names in memory until told to forget."""
    place = tmp_path / "forgetful"
    place.mkdir()
    server = subprocess.Popen([sys.executable, str(HERE / "fuse_disk.py"), str(place), "7"])
    try:
        _until(lambda: place.is_mount() or server.poll() is not None, "the mount")
        assert place.is_mount(), "fuse_disk.py did not mount: fuse3, libfuse3-3, mfusepy?"
        yield ForgetfulMount(place)
    finally:
        subprocess.run(["umount", str(place)], check=False)
        server.terminate()
        server.wait(PATIENCE_S)


@pytest.fixture
def small_ext4(tmp_path: Path) -> Iterator[Path]:
    """An ext4 of 24 MiB in a file."""
    image, place = tmp_path / "ext4.img", tmp_path / "ext4"
    place.mkdir()
    with image.open("wb") as file:
        file.truncate(24 * MIB)
    subprocess.run(["mkfs.ext4", "-q", "-m", "0", str(image)], check=True)
    subprocess.run(["mount", "-o", "loop", str(image), str(place)], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)
