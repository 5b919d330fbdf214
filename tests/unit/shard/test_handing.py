"""Slots that running shards hand over, message by message and batch by batch."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.unit.shard.test_shard import Rig

from ultraengine.execution.carried import ERAS_MAX, encode_parts
from ultraengine.execution.system import StepSlot
from ultraengine.log.damage import BelowRetention
from ultraengine.log.reader import LogReader, RecordedGroup
from ultraengine.model.errors import EngineError
from ultraengine.model.ids import ShardId, slot_of
from ultraengine.moving.record import (
    Activate,
    Attempt,
    Begin,
    Cancel,
    Message,
    Seal,
    SlotRecord,
    Stage,
    State,
    Stop,
)
from ultraengine.moving.wire import Batch
from ultraengine.shard.handing import driver
from ultraengine.shard.handing.driver import Handing
from ultraengine.shard.slot_index import SlotIndex, groups_at
from ultraengine.shard.slot_moves import encode_message

SLOT = slot_of("t", "k")
HERE, THERE = ShardId(0), ShardId(1)
FIRST = Attempt(0, 1)


class HandingRig(Rig):
    """A shard that hands slots over."""

    async def start(self, **more: Any) -> Any:
        shard = await super().start(**more)
        self.end = 0
        shard.on_recorded = self.recorded
        self.recorded(shard.log.recovered.recorded_end, 0)
        self.handing = Handing(shard, shard.log.reader(archived=True), lambda: self.end)
        return shard

    def recorded(self, end: int, _time: int) -> None:
        self.end = max(self.end, end)

    async def told(self, message: Message) -> SlotRecord:
        told = await self.handing.send(SLOT, message)
        assert told.refused is None
        return told.seen.record


async def opened(path: Path) -> HandingRig:
    rig = HandingRig(path)
    await rig.start()
    return rig


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[HandingRig]:
    (tmp_path / "one").mkdir()
    rig = await opened(tmp_path / "one")
    yield rig
    rig.handing.close()
    await rig.shard.stop()


@pytest.fixture
async def other(tmp_path: Path) -> AsyncIterator[HandingRig]:
    (tmp_path / "other").mkdir()
    rig = await opened(tmp_path / "other")
    rig.shard.machine.placement.moves.records[SLOT] = SlotRecord(state=State.ABSENT)
    yield rig
    rig.handing.close()
    await rig.shard.stop()


async def test_a_slot_is_copied_sealed_and_taken(rig: HandingRig, other: HandingRig) -> None:
    first = await rig.add()
    await rig.add()
    await rig.told(Begin(FIRST, THERE))
    await other.told(Stage(FIRST, HERE))
    await rig.shard.rest()
    batch = await rig.handing.read(SLOT, 0)
    fed = await other.handing.feed(SLOT, FIRST, batch)
    assert fed.seen.position == batch.end
    assert fed.seen.digest == b""
    await rig.add()
    sealed = await rig.told(Seal(FIRST))
    assert (await rig.add()).outcome == "refused"
    await rig.shard.rest()
    rest = await rig.handing.read(SLOT, batch.end)
    assert rest.end == rig.handing.look(SLOT).seen.position
    await other.handing.feed(SLOT, FIRST, rest)
    assert other.handing.look(SLOT).seen.digest == sealed.digest
    owned = await other.told(Activate(FIRST, sealed.digest))
    assert (owned.state, owned.era) == (State.OWNED, 1)
    assert await other.value() == 3
    (again,) = await other.send(other.admit(str(first.id)))
    assert again.duplicate
    assert again.offset == first.offset
    assert set(other.handing.records()) == {SLOT}


async def test_what_changes_nothing_is_not_logged(rig: HandingRig) -> None:
    await rig.told(Begin(FIRST, THERE))
    await rig.shard.rest()
    end = rig.shard.machine.log_end
    assert (await rig.told(Begin(FIRST, THERE))).state is State.EXPORTING
    refused = await rig.handing.send(SLOT, Cancel(FIRST))
    assert refused.refused == "other state"
    seen = await rig.handing.feed(SLOT, FIRST, Batch(0, 1, 0, encode_parts(())))
    assert seen.seen.record.state is State.EXPORTING
    assert rig.shard.machine.log_end == end


async def test_a_batch_that_does_not_go_on_is_not_logged(other: HandingRig) -> None:
    await other.told(Stage(FIRST, HERE))
    nothing = encode_parts(())
    end = other.shard.machine.log_end
    for attempt, batch in (
        (Attempt(0, 2), Batch(0, 5, 0, nothing)),
        (FIRST, Batch(1, 5, 0, nothing)),
        (FIRST, Batch(0, 0, 0, nothing)),
    ):
        assert (await other.handing.feed(SLOT, attempt, batch)).seen.position == 0
    assert other.shard.machine.log_end == end
    large = bytes(other.shard.limits.frame_bytes_max)
    with pytest.raises(EngineError, match="half of frame_bytes_max") as refused:
        await other.handing.feed(SLOT, FIRST, Batch(0, 5, 0, large))
    assert refused.value.code == "TOO_LARGE"


async def test_a_move_that_cannot_come_to_anything_is_not_begun(rig: HandingRig) -> None:
    with pytest.raises(EngineError, match="here already"):
        await rig.handing.send(SLOT, Begin(FIRST, HERE))
    records = rig.shard.machine.placement.moves.records
    last = Attempt(ERAS_MAX - 1, 0)
    records[SLOT] = SlotRecord(state=State.OWNED, attempt=last)
    with pytest.raises(EngineError, match="at most 64 owners"):
        await rig.handing.send(SLOT, Begin(last.next, THERE))
    del records[SLOT]
    machine = rig.shard.machine
    machine.durable = msgspec.structs.replace(machine.durable, local=False)
    with pytest.raises(EngineError, match="durability async"):
        await rig.handing.send(SLOT, Begin(FIRST, THERE))


async def test_only_what_is_handed_over_is_read(rig: HandingRig) -> None:
    with pytest.raises(EngineError, match="not handed over") as refused:
        await rig.handing.read(SLOT, 0)
    assert refused.value.code == "MALFORMED"
    await rig.told(Begin(FIRST, THERE))
    batch = await rig.handing.read(SLOT, 0)
    assert batch.parts == encode_parts(())
    assert batch.end == rig.shard.executor.applied_end
    assert (await rig.told(Stop(FIRST))).state is State.OWNED


async def test_a_log_that_was_cut_hands_over_what_it_still_has(
    rig: HandingRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    await rig.add()
    await rig.told(Begin(FIRST, THERE))
    await rig.shard.rest()
    await rig.handing.read(SLOT, 0)
    monkeypatch.setattr(rig.handing, "_index", SlotIndex(1))
    with pytest.raises(EngineError, match="the log begins at 1") as refused:
        await rig.handing.read(SLOT, 0)
    assert refused.value.code == "TOO_OLD"


class CutLog:
    """A log of which the first offsets are gone."""

    def __init__(self, reader: LogReader, first: int) -> None:
        self._reader = reader
        self._first = first

    def groups(self, from_offset: int, to_offset: int | None = None) -> Iterator[RecordedGroup]:
        if from_offset < self._first:
            raise BelowRetention(first_sequence=1, first_offset=self._first)
        return self._reader.groups(from_offset, to_offset)


async def test_an_index_begins_where_the_log_does(rig: HandingRig) -> None:
    await rig.add()
    await rig.told(Begin(FIRST, THERE))
    await rig.shard.rest()
    cut: Any = CutLog(rig.shard.log.reader(), 1)
    handing = Handing(rig.shard, cut, lambda: rig.end)
    with pytest.raises(EngineError, match="the log begins at 1"):
        await handing.read(SLOT, 0)
    handing.close()


async def test_a_shard_that_does_not_serve_logs_no_step(rig: HandingRig) -> None:
    await rig.shard.pause()
    with pytest.raises(EngineError, match="paused") as refused:
        await rig.handing.send(SLOT, Begin(FIRST, THERE))
    assert refused.value.code == "SHARD_UNAVAILABLE"
    await rig.shard.resume()


async def test_a_step_that_is_not_executed_in_time_may_be_logged(
    rig: HandingRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver, "LOGGED_S", 0.0)
    await rig.shard.hold()
    with pytest.raises(EngineError) as unknown:
        await rig.handing.send(SLOT, Begin(FIRST, THERE))
    assert unknown.value.code == "OUTCOME_UNKNOWN"
    rig.shard.release()
    await rig.shard.rest()
    assert rig.handing.look(SLOT).seen.record.state is State.EXPORTING


async def test_a_step_that_nobody_waits_for_is_carried_out(rig: HandingRig) -> None:
    step = StepSlot(SLOT, is_first_owner=True, message=encode_message(Begin(FIRST, THERE)))
    rig.shard.log_own(step)
    await rig.shard.rest()
    assert rig.handing.look(SLOT).seen.record.state is State.EXPORTING


async def test_steps_of_one_slot_come_one_after_the_other(rig: HandingRig) -> None:
    both = await asyncio.gather(
        rig.handing.send(SLOT, Begin(FIRST, THERE)), rig.handing.send(SLOT, Seal(FIRST))
    )
    assert [one.seen.record.state for one in both] == [State.EXPORTING, State.SEALED]


async def test_an_index_knows_the_groups_of_a_slot(rig: HandingRig) -> None:
    for key in ("k", "other", "k", "k"):
        await rig.add(key=key)
    await rig.shard.rest()
    reader = rig.shard.log.reader()
    index = SlotIndex(0)
    index.extend(reader.groups(0))
    index.extend(reader.groups(0))
    end = rig.shard.executor.applied_end
    assert index.end == end
    everything = [int(group.header.base_offset) for group in reader.groups(0)]
    mine = [everything[at] for at in (1, 3, 4)]
    assert list(index.bases(SLOT, 0, end)) == mine
    assert list(index.bases(SLOT, mine[1], end)) == mine[1:]
    assert list(index.bases(SLOT, mine[1], mine[2])) == [mine[1]]
    assert list(index.bases(SLOT, end, end)) == [mine[2]]
    assert list(index.bases(SLOT + 1, 0, end)) == []
    reads: list[int] = []

    def read(base: int) -> Any:
        reads.append(base)
        return reader.groups(base)

    found = [group.header.base_offset for group in groups_at(mine, read)]
    assert found == mine
    assert reads == [mine[0], mine[1]]
