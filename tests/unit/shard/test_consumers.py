"""Consumer slots of a shard: logged, recovered, in snapshots, and what they hold back."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.unit.shard.test_shard import LIMITS, SHARD, Rig

from ultraengine.execution.system import DropConsumer, MoveConsumer, system_data
from ultraengine.feed.driver import Feed
from ultraengine.feed.source import Consumer
from ultraengine.log.driver import Log
from ultraengine.model.errors import EngineError
from ultraengine.model.ids import Offset
from ultraengine.model.limits import MIB
from ultraengine.shard.consuming.driver import GIVEN_UP, ConsumerSlots
from ultraengine.shard.image import CONSUMERS_SCHEMA, ENGINE_SCHEMA, ExecutorImage
from ultraengine.shard.snapshotting.driver import BEYOND_THE_CAP, DEDUPE
from ultraengine.shard.validation import validate
from ultraengine.snapshot.image import SHARD_WIDE, Section


class ConsumingRig(Rig):
    """A shard whose consumers have slots."""

    async def start(self, **more: Any) -> Any:
        shard = await super().start(**more)
        self.slots = ConsumerSlots(shard)
        self.snapshots._slots = self.slots
        shard.metrics.consumers = self.slots.offsets
        return shard

    async def confirm(self, name: str, offset: int) -> None:
        self.slots.confirm(name, Offset(offset))
        await self.shard.rest()

    async def until_logged(self, name: str, offset: int) -> None:
        while self.logged.get(name) != offset:  # noqa: ASYNC110  (nobody tells of it)
            await asyncio.sleep(0.05)

    @property
    def logged(self) -> Mapping[str, int]:
        return self.shard.executor.consumers

    def own_commands(self) -> list[Any]:
        """Moves and drops in the log."""
        groups = self.shard.log.reader().groups(self.shard.log.first_offset)
        return [
            system_data(command)
            for group in groups
            for command in group.commands
            if command.type.startswith(("system.move", "system.drop"))
        ]

    async def fill(self, segments: int) -> None:
        """Write so many segments full."""
        opened = self.shard.log
        assert isinstance(opened, Log)
        while opened._appender.rolls < segments:
            await self.send(*(self.admit(f"f{self.count}-{n}", key="x" * 100) for n in range(200)))
            self.count += 1


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[ConsumingRig]:
    rig = ConsumingRig(tmp_path)
    await rig.start()
    yield rig
    rig.slots.close()
    await rig.shard.stop()


async def test_a_confirmation_is_a_command_of_the_log(rig: ConsumingRig) -> None:
    await rig.add()
    await rig.confirm("mail", 2)
    assert rig.logged == {"mail": 2}
    assert rig.own_commands() == [MoveConsumer("mail", 2)]
    rig.slots.forget("mail")
    rig.slots.forget("mail")
    await rig.shard.rest()
    assert rig.logged == {}
    assert rig.own_commands()[1:] == [DropConsumer("mail", GIVEN_UP)]


async def test_many_confirmations_are_few_commands_and_the_last_one_is_kept(
    rig: ConsumingRig,
) -> None:
    for _ in range(30):
        await rig.add()
    for offset in range(31):
        await rig.confirm("mail", offset)
    assert [one.offset for one in rig.own_commands()] == [0]
    assert dict(rig.slots.offsets()) == {"mail": 30}
    await rig.until_logged("mail", 30)
    assert [one.offset for one in rig.own_commands()] == [0, 30]


async def test_at_a_stop_what_waits_is_left_to_who_goes_on(rig: ConsumingRig) -> None:
    await rig.add()
    await rig.confirm("mail", 1)
    await rig.confirm("mail", 2)
    assert rig.slots.consumers() == [Consumer("mail", Offset(2))]
    rig.slots.close()
    rig.slots.close()
    await asyncio.sleep(1.2)
    assert rig.logged == {"mail": 1}


async def test_slots_outlive_a_kill_and_a_snapshot(tmp_path: Path) -> None:
    rig = ConsumingRig(tmp_path)
    await rig.start()
    await rig.add()
    await rig.confirm("mail", 1)
    await rig.confirm("books", 2)
    await rig.kill()
    await rig.start()
    assert rig.logged == {"mail": 1, "books": 2}
    await rig.snapshots.take()
    rig.slots.forget("books")
    await rig.shard.rest()
    await rig.kill()
    await rig.start()
    assert rig.logged == {"mail": 1}
    await rig.snapshots.take()
    await rig.kill()
    shard = await rig.start()
    assert rig.logged == {"mail": 1}
    assert shard.status().replayed <= 1, "it came from the snapshot"
    await shard.stop()


async def test_while_a_shard_is_paused_confirmations_wait(rig: ConsumingRig) -> None:
    await rig.add()
    await rig.shard.pause("for a while")
    await rig.confirm("mail", 1)
    assert rig.logged == {}
    assert dict(rig.slots.offsets()) == {"mail": 1}
    await rig.shard.resume()
    await rig.until_logged("mail", 1)


async def test_an_idle_log_stays_idle_under_a_consumer_that_confirms_all_it_sees(
    rig: ConsumingRig,
) -> None:
    await rig.add()
    end = -1
    for _ in range(5):
        end = rig.shard.executor.applied_end
        rig.slots._moves._moved_at.clear()  # As if a second had passed.
        await rig.confirm("mail", end)
    assert rig.shard.executor.applied_end == end
    assert len(rig.own_commands()) == 1
    await rig.add()
    rig.slots._moves._moved_at.clear()
    await rig.confirm("mail", rig.shard.executor.applied_end)
    assert len(rig.own_commands()) == 2


async def test_the_log_keeps_what_a_slot_has_not_confirmed(rig: ConsumingRig) -> None:
    await rig.add()
    await rig.confirm("mail", 0)
    await rig.fill(3)
    await rig.snapshots.take()
    held = await rig.snapshots.cut_log()
    assert held is not None
    assert (held.limited_by, held.first_offset) == ("mail", 0)
    rig.slots._moves._moved_at.clear()
    await rig.confirm("mail", rig.shard.executor.applied_end)
    free = await rig.snapshots.cut_log()
    assert free is not None
    assert free.limited_by == DEDUPE, "the ids hold it still, as without consumers"
    assert rig.logged.keys() == {"mail"}


async def test_beyond_the_cap_the_slot_is_dropped_with_an_alarm(tmp_path: Path) -> None:
    limits = msgspec.structs.replace(LIMITS, retention_bytes_max=2 * MIB)
    rig = ConsumingRig(tmp_path, limits=limits)
    shard = await rig.start()
    await rig.add()
    await rig.confirm("mail", 1)
    await rig.confirm("quick", 1)
    await rig.fill(4)
    rig.slots._moves._moved_at.clear()
    await rig.confirm("quick", shard.executor.applied_end)
    alarms = shard.status().alarms
    await rig.snapshots.take()
    await shard.rest()
    assert list(rig.logged) == ["quick"]
    assert rig.own_commands()[-1] == DropConsumer("mail", BEYOND_THE_CAP)
    assert shard.status().alarms > alarms
    families = {family.name: family for family in shard.metrics.collect()}
    assert families["ultra_consumers_dropped"].samples[0].value == 1
    (sample,) = families["ultra_consumer_offset"].samples
    assert (sample.labels["consumer"], sample.value) == ("quick", rig.logged["quick"])
    await rig.kill()
    await rig.start()
    assert list(rig.logged) == ["quick"]
    await rig.shard.stop()


async def test_the_status_shows_every_slot_with_its_lag(rig: ConsumingRig) -> None:
    for _ in range(4):
        await rig.add()
    await rig.confirm("mail", 3)
    status = rig.shard.status()
    (slot,) = status.consumers
    assert (slot.name, slot.offset, slot.lag) == ("mail", 3, status.applied_end - 3)
    assert status.first_offset == 0


async def test_a_position_that_is_not_durable_is_refused(rig: ConsumingRig) -> None:
    feed = Feed(rig.shard.log.reader(), SHARD, slots=rig.slots)
    rig.shard.on_recorded = feed.publish
    await rig.add()
    await rig.shard.rest()
    end = rig.shard.executor.applied_end
    with pytest.raises(EngineError) as caught:
        await feed.confirm(SHARD, "mail", Offset(end + 1))
    assert (caught.value.code, caught.value.pointer) == ("MALFORMED", "/offset")
    await feed.confirm(SHARD, "mail", Offset(end))
    await rig.shard.rest()
    assert rig.logged == {"mail": end}
    await feed.close()


async def test_replays_decide_the_same_about_slots(rig: ConsumingRig) -> None:
    await rig.add()
    await rig.confirm("mail", 2)
    rig.slots.forget("mail")
    await rig.add()
    await rig.shard.rest()
    report = validate(
        rig.memory.scratch(sequence_max=0),
        rig.shard.log.reader(),
        from_offset=0,
        to_offset=None,
    )
    assert report.equal
    assert report.compared == rig.shard.executor.applied_end


def shared(rig: ConsumingRig) -> Section:
    sections = rig.memory.image.slot_sections(SHARD_WIDE, full=True)
    return next(one for one in sections if one.name == "shard")


async def test_without_slots_a_snapshot_is_one_that_older_releases_read(
    rig: ConsumingRig,
) -> None:
    section = shared(rig)
    assert section.schema == ENGINE_SCHEMA
    assert len(msgspec.msgpack.decode(section.chunk)) == 2
    await rig.add()
    await rig.confirm("mail", 1)
    section = shared(rig)
    assert section.schema == CONSUMERS_SCHEMA
    assert msgspec.msgpack.decode(section.chunk)[2] == {"mail": 1}


@pytest.mark.parametrize("chunk", [[[], {}], [[], {}, {}]])
async def test_a_section_without_slots_says_that_there_are_none(
    rig: ConsumingRig, chunk: Any
) -> None:
    """Also in an increment, after a base that had some."""
    executor = rig.memory.scratch(sequence_max=0)
    executor.consumers["old"] = 5
    image = ExecutorImage(executor, executor.dedupe)  # type: ignore[arg-type]
    image.load(Section(SHARD_WIDE, "shard", ENGINE_SCHEMA, msgspec.msgpack.encode(chunk)))
    assert executor.consumers == {}
