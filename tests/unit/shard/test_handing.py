"""Slots that running shards hand over, message by message and batch by batch."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.unit.shard.test_shard import Rig

from ultraengine.domains.ledger import DOMAIN as LEDGER
from ultraengine.domains.ledger.queries import QUERIES
from ultraengine.execution.carried import ERAS_MAX, encode_parts
from ultraengine.execution.system import STEP_SLOT, StepSlot, system_data
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
from ultraengine.shard.slot_moves import encode_message, sealed_position

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


async def handed_over(source: HandingRig, destination: HandingRig) -> None:
    await source.told(Begin(FIRST, THERE))
    await destination.told(Stage(FIRST, HERE))
    sealed = await source.told(Seal(FIRST))
    await source.shard.rest()
    batch = await source.handing.read(SLOT, 0)
    await destination.handing.feed(SLOT, FIRST, batch)
    await destination.told(Activate(FIRST, sealed.digest))


async def pay(rig: HandingRig, amount: str) -> int:
    rig.count += 1
    transfer = {"id": f"t-{amount}", "from": "bank", "to": "shop", "amount": amount}
    data = msgspec.json.encode({"transfers": [transfer]})
    paying = rig.admit(f"pay-{amount}", type="ledger.create_transfers", data=data)
    (reply,) = await rig.send(paying)
    assert reply.outcome == "accepted"
    return int(reply.offset or 0)


async def balance(rig: HandingRig, **at: Any) -> str:
    spec = next(one for one in QUERIES if one.path == "{key}/accounts/{id}")
    params = spec.params(id="shop", **at)
    answer: Any = await rig.shard.query(spec, "ledger", "t", "k", params)
    return str(answer.value.balance)


async def test_an_offset_that_does_not_say_whose_it_is_is_no_point_to_read_as_of(
    tmp_path: Path,
) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    source, destination = (HandingRig(path, domains=(LEDGER,)) for path in (here, there))
    await source.start()
    await destination.start()
    destination.shard.machine.placement.moves.records[SLOT] = SlotRecord(state=State.ABSENT)
    accounts = [{"id": name, "asset": "EUR/2", "min_balance": None} for name in ("bank", "shop")]
    data = msgspec.json.encode({"accounts": accounts})
    await source.send(source.admit("open", type="ledger.open_accounts", data=data))
    before = await pay(source, "1")
    assert await balance(source, at_offset=before) == "1"
    await handed_over(source, destination)
    after = await pay(destination, "2")
    for offset in (before, after, (1 << 40) - 1):
        with pytest.raises(EngineError, match="ask by time") as refused:
            await balance(destination, at_offset=offset)
        assert (refused.value.code, refused.value.pointer) == ("MALFORMED", "/at_offset")
    position = 1 << 40 | after
    assert await balance(destination, at_offset=position) == "3"
    assert await balance(destination, at_offset=position - 1) == "1"
    assert await balance(destination, at_time="2200-01-01T00:00:00Z") == "3"
    for rig in (source, destination):
        rig.handing.close()
        await rig.shard.stop()


def test_every_read_of_the_ledger_as_of_an_offset_says_so() -> None:
    asking = {spec.path for spec in QUERIES if "at_offset" in spec.params.__struct_fields__}
    assert {spec.path for spec in QUERIES if spec.as_of is not None} == asking
    assert len(asking) == 3


async def test_an_activation_says_whose_log_is_to_be_read_before(
    rig: HandingRig, other: HandingRig
) -> None:
    await rig.add()
    await handed_over(rig, other)
    sealed = sealed_position(rig.handing.records()[SLOT])
    await other.shard.rest()
    steps = [
        system_data(command)
        for group in other.shard.log.reader(archived=True).groups(0, other.end)
        for command in group.commands
        if command.type == STEP_SLOT
    ]
    assert [step.after for step in steps] == [None, (HERE, sealed)]
    assert sealed > 0


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


@pytest.mark.parametrize("kept", ["snapshot", "checkpoint"])
async def test_an_image_after_a_copy_was_dropped_is_a_whole_one(
    rig: HandingRig, other: HandingRig, kept: str
) -> None:
    await rig.add(3)
    await rig.told(Begin(FIRST, THERE))
    await other.told(Stage(FIRST, HERE))
    await rig.shard.rest()
    await other.handing.feed(SLOT, FIRST, await rig.handing.read(SLOT, 0))
    for _ in range(2):  # The second one alone would be an increment.
        await other.send(other.admit(f"more-{other.count}", key="elsewhere"))
        other.count += 1
        await other.snapshots.take()
    assert other.snapshot_driver.increments == 1, "else the test tells nothing"
    await other.told(Cancel(FIRST))
    if kept == "snapshot":
        await other.snapshots.take()
    else:
        await other.shard.rest()
        assert other.memory.checkpoint(other.snapshots.position())
    assert other.snapshot_driver.increments == 0
