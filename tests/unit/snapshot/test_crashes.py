"""A crash at any moment leaves the newest good snapshot usable.

Every run is recorded on a simulated disk, and each disk that a power cut could leave, after
each operation of the run, is started from.
"""

import asyncio
import random
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from ultraengine.snapshot.errors import SnapshotFailed
from ultraengine.testing.crash_states import crash_states
from ultraengine.testing.sim_disk import SimDisk
from ultraengine.testing.sim_faults import Raises

Content = dict[tuple[int, str], bytes]


class Recorded:
    """A driver at work, with what each cut should hold and what was promised."""

    def __init__(self, harness: Any, **options: Any) -> None:
        self.disk = SimDisk(record=True)
        self.bench = harness(self.disk, compress=False, **options)
        self.contents: dict[int, Content] = {}
        self.driver = self.bench.driver

    def change(self, seed: int) -> None:
        self.bench.put(seed % 3, f"n{seed}", str(seed).encode())
        self.contents[self.bench.sequence] = self.bench.image.content()

    def take(self, kind: str = "auto") -> None:
        self.bench.take(kind)
        self.disk.note(self.bench.sequence)

    def check(self, harness: Any, *, states_min: int) -> None:
        """Start from every disk a power cut may leave."""
        count = 0
        for state in crash_states(self.disk.trace, random.Random(7), samples=16):
            promised = max((note for note in state.notes if isinstance(note, int)), default=0)
            after = harness(SimDisk(image=state.image))
            position, report = after.restart(check_state_hash=True)
            assert report.damaged == {}, state
            assert after.alarms in ([], [("snapshot.manifest_rebuilt", {"entries": 1})]), state
            found = 0 if position is None else position.sequence_end
            assert found >= promised, state
            assert after.image.content() == self.contents.get(found, {}), state
            listed = {entry.file for entry in after.driver.entries}
            assert set(after.disk.list("snapshots")) - {"MANIFEST"} == listed, state
            count += 1
        assert count >= states_min


def test_a_crash_during_the_first_snapshot(harness: Any) -> None:
    run = Recorded(harness)
    run.driver.recover()
    run.change(1)
    run.take()
    run.check(harness, states_min=20)


def test_a_crash_during_increments_and_the_next_full_image(harness: Any) -> None:
    run = Recorded(harness, increments_max=1, fulls_kept=1)
    run.driver.recover()
    for seed in range(4):
        run.change(seed)
        run.take()
    assert [entry.full for entry in run.driver.entries] == [True, False]
    run.check(harness, states_min=100)


@pytest.mark.parametrize("folded", [False, True])
async def test_a_crash_while_a_chain_is_merged(harness: Any, folded: bool) -> None:
    options: dict[str, Any] = {"new_image": None} if folded else {}
    run = Recorded(harness, fulls_kept=1, **options)
    run.driver.recover()
    for seed in range(3):
        run.change(seed)
        run.take()
    merged = await run.driver.compact("inline")
    run.disk.note("merged")
    assert merged.new
    assert run.driver.entries == (merged.entry,)
    run.change(9)
    run.take()
    assert not run.driver.newest.full
    run.check(harness, states_min=100)


def test_a_crash_while_a_damaged_snapshot_is_set_aside(harness: Any) -> None:
    run = Recorded(harness)
    run.driver.recover()
    run.change(1)
    run.take()
    run.change(2)
    run.take("full")
    older, newer = (entry for entry in run.driver.entries)
    run.disk.flip_bits(f"snapshots/{newer.file}", 330)
    base = run.disk.kill().image()
    disk = SimDisk(record=True, image=base.copy())
    _, report = harness(disk).restart()
    assert report.chain == (older,)
    states = 0
    for state in crash_states(disk.trace, random.Random(7), base=base.crashed(lambda s: s.length)):
        after = harness(SimDisk(image=state.image))
        position, again = after.restart()
        assert again.chain == (older,)
        assert position is not None
        assert after.image.content() == run.contents[position.sequence_end]
        kept = {*after.disk.list("snapshots"), *after.disk.list("broken")}
        assert newer.file in kept or f"snapshot-{newer.file}" in kept
        states += 1
    assert states >= 3


_KINDS = ["auto", "full", "increment"]
_CHANGE = st.tuples(st.integers(0, 5), st.sampled_from("abc"), st.none() | st.binary(max_size=40))


class AnySequence(RuleBasedStateMachine):
    """Mutate, snapshot, merge, crash and load in any order, beside a plain dictionary."""

    harness: Any = None

    @initialize(
        folds=st.booleans(),
        increments_max=st.integers(1, 4),
        fulls_kept=st.integers(1, 3),
        encrypted=st.booleans(),
    )
    def start(self, folds: bool, increments_max: int, fulls_kept: int, encrypted: bool) -> None:
        self.bench = self.harness(
            SimDisk(),
            increments_max=increments_max,
            increments_share_max=10.0,
            fulls_kept=fulls_kept,
            scratch_bytes=50,
            block_bytes=100,
            master_key="snapshots" if encrypted else None,
            **({"new_image": None} if folds else {}),
        )
        self.bench.driver.recover()
        self.model: Content = {}
        self.at: dict[int, Content] = {0: {}}
        self.safe = 0

    @rule(changes=st.lists(_CHANGE, min_size=1, max_size=6))
    def change(self, changes: list[tuple[int, str, bytes | None]]) -> None:
        for slot, name, value in changes:
            if value is None:
                self.bench.remove(slot, name)
                self.model.pop((slot, name), None)
            else:
                self.bench.put(slot, name, value)
                self.model[slot, name] = value
            self.at[self.bench.sequence] = dict(self.model)

    @rule(changes=st.lists(_CHANGE, min_size=1, max_size=3), kind=st.sampled_from(_KINDS))
    def change_and_snapshot(self, changes: list[tuple[int, str, bytes | None]], kind: str) -> None:
        self.change(changes)
        self.snapshot(kind)

    @rule(kind=st.sampled_from(_KINDS))
    def snapshot(self, kind: str) -> None:
        self.bench.take(kind)
        self.safe = self.bench.sequence

    @rule(call=st.sampled_from(["pwrite", "sync", "rename", "sync_directory", "open", "pread"]))
    def snapshot_that_fails(self, call: Any) -> None:
        """An error of the disk; every full snapshot makes each of these calls."""
        self.bench.disk.inject(Raises(5), call)
        with pytest.raises(SnapshotFailed):
            self.bench.take("full")

    @precondition(lambda self: self.bench.driver.increments > 0)
    @rule()
    def merge(self) -> None:
        async def compact() -> None:
            await self.bench.driver.compact("inline")

        asyncio.run(compact())
        assert self.bench.driver.increments == 0

    @rule(power=st.booleans())
    def crash(self, power: bool) -> None:
        disk = self.bench.disk
        self.bench.disk = disk.power_cut() if power else disk.kill()
        position, report = self.bench.restart(check_state_hash=True)
        found = 0 if position is None else position.sequence_end
        assert report.damaged == {}
        assert found >= self.safe
        assert self.bench.image.content() == self.at[found]
        self.model = dict(self.at[found])
        self.safe = found

    @invariant()
    def what_is_listed_is_bounded_and_all_there_is(self) -> None:
        bench = self.bench
        listed = {entry.file for entry in bench.driver.entries}
        assert listed <= set(bench.disk.list("snapshots"))
        fulls = [entry.sequence_end for entry in bench.driver.entries if entry.full]
        assert len(set(fulls)) <= bench.options["fulls_kept"]
        assert all(fulls.count(position) <= 2 for position in fulls)
        assert bench.driver.increments <= bench.options["increments_max"]


def test_any_sequence_of_changes_snapshots_merges_and_crashes(harness: Any) -> None:
    class Machine(AnySequence):
        pass

    Machine.harness = harness
    run_state_machine_as_test(
        Machine, settings=settings(max_examples=50, stateful_step_count=40, deadline=None)
    )
