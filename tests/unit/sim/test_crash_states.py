"""That the enumeration of crash states leaves none out and comes to the point."""

import random
from itertools import pairwise

from ultraengine.testing.crash_states import CrashState, crash_states
from ultraengine.testing.sim_disk import SimDisk


def recorded(*, sectors: int) -> SimDisk:
    """One durable file of zeros, then a note, a write of so many sectors, another note."""
    disk = SimDisk(record=True)
    file = disk.open("x", create=True, write=True)
    file.pwrite(bytes(512 * sectors), 0)
    file.sync()
    disk.sync_directory("")
    disk.note("before")
    file.pwrite(b"n" * 512 * sectors, 0)
    file.sync()
    disk.note("after")
    return disk


def states(disk: SimDisk, seed: int = 1) -> list[CrashState]:
    return list(crash_states(disk.trace, random.Random(seed)))


def content(state: CrashState) -> bytes:
    return SimDisk(image=state.image.copy()).open("x").pread(1 << 20, 0)


def sectors_of(found: bytes) -> set[bytes]:
    return {found[at : at + 512] for at in range(0, len(found), 512)}


def test_every_subset_of_a_few_sectors_is_there_exactly_once() -> None:
    found = [content(s) for s in states(recorded(sectors=4)) if s.notes == ("before",)]
    whole = [c for c in found if sectors_of(c) <= {bytes(512), b"n" * 512}]
    assert len(whole) == len(set(whole)) == 16


def test_each_sector_is_also_torn() -> None:
    found = [content(s) for s in states(recorded(sectors=3)) if s.notes == ("before",)]
    torn_at = {
        at // 512
        for c in found
        for at in range(0, len(c), 512)
        if c[at : at + 512] not in {bytes(512), b"n" * 512}
    }
    assert torn_at == {0, 1, 2}


def test_of_many_sectors_every_prefix_and_every_single_one_is_there() -> None:
    found = {content(s) for s in states(recorded(sectors=20)) if s.notes == ("before",)}
    for end in range(21):
        assert (b"n" * 512 * end).ljust(20 * 512, b"\0") in found
    for one in range(20):
        assert bytes(512 * one) + b"n" * 512 + bytes(512 * (19 - one)) in found


def test_what_was_noted_is_durable_in_every_state_that_knows_the_note() -> None:
    after = [s for s in states(recorded(sectors=3)) if s.notes == ("before", "after")]
    assert {content(s) for s in after} == {b"n" * 1536}


def test_states_come_in_the_order_of_the_trace_from_its_beginning() -> None:
    found = states(recorded(sectors=2))
    assert found[0].length == 0
    assert all(a.length <= b.length for a, b in pairwise(found))
    assert found[-1].length == len(recorded(sectors=2).trace)


def test_the_same_seed_gives_the_same_states() -> None:
    def digests(seed: int) -> list[bytes]:
        return [s.image.digest() for s in states(recorded(sectors=12), seed)]

    assert digests(3) == digests(3)
    assert digests(3) != digests(4)


def test_a_run_may_begin_on_what_another_one_left() -> None:
    first = recorded(sectors=1)
    second = SimDisk(record=True, image=first.image())
    second.rename("x", "y")
    found = crash_states(second.trace, random.Random(1), base=first.image())
    names = {tuple(path for path, _ in state.image.walk()) for state in found}
    assert names == {("x",), ("y",)}
