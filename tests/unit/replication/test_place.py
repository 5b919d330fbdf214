"""A new copy takes the place of an old one: whatever a crash leaves is one of the two, whole."""

import itertools
from typing import Any

import pytest

from ultraengine.log.damage import LogInUse
from ultraengine.log.driver import Log, LogOptions
from ultraengine.log.frame import FrameDraft, FrameKind
from ultraengine.log.segment import KeyRing
from ultraengine.log.survey import read_all
from ultraengine.model.errors import InvariantBroken
from ultraengine.model.ids import Epoch, Instant, Offset, ShardId
from ultraengine.model.limits import Limits
from ultraengine.replication.installing import place
from ultraengine.replication.log_view import OpenLog
from ultraengine.testing.sim_clock import SimClock, SimRandom, SimSecrets
from ultraengine.testing.sim_disk import SimDisk

OLD = {"log/seg-1": b"old log", "snapshots/a": b"old state", "dedup/run": b"ids", "log/MARK": b"m"}
NEW = {"log/seg-9": b"new log", "snapshots/a": b"new state", "history/his": b"new history"}
KEPT = {"IDENTITY": b"who", "REPLICA": b"sworn", "broken/tail": b"kept"}


def put(disk: SimDisk, path: str, content: bytes) -> None:
    directory, _, _ = path.rpartition("/")
    if directory:
        disk.make_directory(directory)
    file = disk.open(path, create=True, write=True)
    file.truncate(0)
    file.pwrite(content, 0)
    file.sync()
    file.close()
    disk.sync_directory(directory)
    disk.sync_directory("")


def old_copy() -> SimDisk:
    disk = SimDisk(1)
    for path, content in (OLD | KEPT).items():
        put(disk, path, content)
    return disk


def content(disk: SimDisk) -> dict[str, bytes]:
    paths = [
        f"{directory}/{name}" if directory else name
        for directory in ("", *place.REPLACED, "broken")
        for name in disk.list(directory)
    ]
    return {
        path: read_all(disk, path)
        for path in paths
        if not disk.is_directory(path) and path != "LOCK"
    }


class PowerCut(Exception):
    pass


class CountedDisk(SimDisk):
    """Its machine loses its power at the n-th call that changes something."""

    left = 10**9

    def _spend(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise PowerCut

    def rename(self, source: str, target: str) -> None:
        self._spend()
        super().rename(source, target)

    def remove(self, path: str) -> None:
        self._spend()
        super().remove(path)

    def sync_directory(self, path: str) -> None:
        self._spend()
        super().sync_directory(path)


def counted(disk: SimDisk, left: int, seed: int) -> CountedDisk:
    made = CountedDisk(seed, image=disk.image())
    made.left = left
    return made


def receive(disk: SimDisk) -> None:
    """All parts beside the copy, and named."""
    place.clear(disk)
    for path, one in NEW.items():
        place.check_part(path)
        place.write_part(disk, path, one)
    place.ready(disk, list(NEW))


@pytest.mark.parametrize("seed", range(6))
def test_a_power_cut_at_any_moment_leaves_the_old_copy_or_the_new_one(seed: int) -> None:
    found = set()
    for left in itertools.count():
        disk = counted(old_copy(), left, seed)
        ended = False
        try:
            receive(disk)
            place.put_in_place(disk)
            ended = True
        except PowerCut:
            pass
        after = disk.power_cut()
        for again in itertools.count():
            # The next start is cut off as well, again and again.
            trying = counted(after, again, seed + again)
            try:
                place.put_in_place(trying)
            except PowerCut:
                after = trying.power_cut()
                continue
            break
        there = content(trying)
        if "log/seg-9" in there:
            assert there == NEW | KEPT
            found.add("new")
        else:
            assert there == OLD | KEPT
            found.add("old")
        if ended:
            break
    assert found == {"old", "new"}


def test_what_lies_beside_without_a_name_is_cleared_and_nothing_else() -> None:
    disk = old_copy()
    assert not place.put_in_place(disk)
    place.write_part(disk, "snapshots/b", b"half")
    assert not place.put_in_place(disk)
    assert content(disk) == OLD | KEPT


def test_a_directory_that_another_process_has_is_left_alone() -> None:
    disk = old_copy()
    receive(disk)
    held = disk.lock("LOCK")
    with pytest.raises(LogInUse):
        place.put_in_place(disk)
    held.release()
    assert place.put_in_place(disk)
    assert content(disk) == NEW | KEPT


@pytest.mark.parametrize(
    "path",
    ["REPLICA", "IDENTITY", "../x/seg", "log/", "log/.hidden", "log/a.install", "other/file"],
)
def test_a_part_is_never_what_a_disk_has_sworn_or_is(path: str) -> None:
    with pytest.raises(InvariantBroken):
        place.check_part(path)


def test_a_list_of_parts_that_cannot_be_read_or_kept_stops_the_start() -> None:
    disk = old_copy()
    receive(disk)
    disk.flip_bits("INSTALL", 9)
    with pytest.raises(InvariantBroken, match="names the parts"):
        place.put_in_place(disk)
    put(disk, "INSTALL", b"UEIN")
    with pytest.raises(InvariantBroken, match="names the parts"):
        place.put_in_place(disk)
    place.ready(disk, ["history/lost"])
    with pytest.raises(InvariantBroken, match="is there"):
        place.put_in_place(disk)


LIMITS = Limits(
    segment_bytes=12 * 1024, frame_bytes_max=4 * 1024, reserve_bytes=0, segments_prepared=0
)


def opened(disk: SimDisk, **more: Any) -> Log:
    options = LogOptions(
        shard=ShardId(0), epoch=Epoch(5), handlers=b"handlers", limits=LIMITS, **more
    )
    log = Log.open(disk, SimClock(), SimRandom(len(disk.list("log"))), SECRETS, options)
    log.start(lambda error: None, threads=False)
    return log


SECRETS = SimSecrets({"master": bytes(32), "chain": bytes(16)})


@pytest.mark.parametrize("keys", [{}, {"master_key": "master", "chain_key": "chain"}])
def test_a_log_begins_where_its_leaders_does_and_takes_its_frames(keys: dict[str, str]) -> None:
    leader = opened(SimDisk(1), **keys)
    for number in range(12):
        draft = FrameDraft(FrameKind.COMMANDS, Offset(number), 1, Instant(number), bytes(3000))
        leader.write([draft], lambda written: None)
    leader.retain(12, 12, {})
    base = leader.reader().first
    assert 0 < base.sequence < 12
    disk = SimDisk(2)
    copy = opened(disk, **keys)
    identity = copy.identity
    copy.close(clean=False)
    told = {"master_key": "", "chain_key": ""} | keys
    path, raw = place.base_part(SimRandom(3), KeyRing(SECRETS), identity, base, Instant(1), **told)
    place.write_part(disk, path, raw)
    place.ready(disk, [path])
    assert place.put_in_place(disk)
    for _ in range(2):  # As it is, and after a start that wrote nothing.
        copy = opened(disk, **keys)
        assert copy.recovered.end_sequence == base.sequence
        view = OpenLog(copy)
        assert view.epochs[0].position == view.end == base.sequence
        assert view.chain(base.sequence) == base.chain
        copy.close(clean=True)
    copy = opened(disk, **keys)
    frames = list(leader.reader().frames(int(base.sequence)))
    copy.copy(frames, lambda written: None)
    assert copy.durable == leader.durable
    assert copy.identity == identity
