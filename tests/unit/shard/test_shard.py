"""A whole shard over a real log in a directory: groups, stops, kills, full disks, halts."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from prometheus_client import CollectorRegistry

from ultraengine.domains.counter import DOMAIN
from ultraengine.execution.history_files.driver import HistoryFile
from ultraengine.execution.pipeline import EvolveFailed
from ultraengine.execution.registry import Admitted, Registry
from ultraengine.feed.driver import Feed
from ultraengine.log.retention import TimeRetention
from ultraengine.model.domain import Accepted, Domain
from ultraengine.model.errors import EngineError
from ultraengine.model.ids import ShardId
from ultraengine.model.limits import DEFAULT_LIMITS, MIB, Limits
from ultraengine.model.policy import FlushRule
from ultraengine.model.reply import DurabilityName, Reply
from ultraengine.ports import Disk, DiskFull, File, ObjectStore
from ultraengine.reply.waiters import Ticket
from ultraengine.shard.driver import Shard
from ultraengine.shard.memory import ShardMemory
from ultraengine.shard.metrics import ShardMetrics
from ultraengine.shard.opening import ShardOptions, World, open_shard
from ultraengine.shard.recovery import OtherHandlers
from ultraengine.shard.snapshotting.driver import Snapshots
from ultraengine.shard.validation import validate
from ultraengine.snapshot.driver import Mode, SnapshotDriver
from ultraengine.snapshot.errors import SnapshotRefused
from ultraengine.snapshot.schedule import EveryCommands
from ultraengine.snapshot.store import SnapshotOptions
from ultraengine_adapters.local.clock import SystemClock
from ultraengine_adapters.local.disk import LocalDisk
from ultraengine_adapters.local.random import SystemRandom
from ultraengine_adapters.local.secrets import FileSecrets

LIMITS = msgspec.structs.replace(
    DEFAULT_LIMITS,
    segment_bytes=MIB,
    frame_bytes_max=256 * 1024,
    group_bytes_max=64 * 1024,
    reserve_bytes=MIB,
    min_offset_wait_s=0.2,
    drain_s=5.0,
)
SHARD = ShardId(0)


class Rig:
    """Starts, kills and restarts one shard in one directory."""

    def __init__(
        self,
        path: Path,
        *,
        domains: Sequence[Domain] = (DOMAIN,),
        policy: DurabilityName = "sync",
        limits: Limits = LIMITS,
        disk: Disk | None = None,
        mode: Mode = "inline",
        archive: ObjectStore | None = None,
        eager: bool = False,
    ) -> None:
        self.archive = archive
        self.eager = eager
        self.disk: Disk = disk or LocalDisk(path)
        self.domains = domains
        self.policy: DurabilityName = policy
        self.limits = limits
        self.mode: Mode = mode
        self.wait_s = 0.005
        self.fatal: list[BaseException] = []
        self.count = 0

    async def start(self, *, decide_again: str | None = None) -> Shard:
        self.registry = Registry(self.domains, limits=self.limits)
        secrets = FileSecrets(None, {})
        world = World(self.disk, SystemClock(), SystemRandom(), secrets, self.archive)
        self.snapshot_driver = SnapshotDriver(
            self.disk,
            world.clock,
            SnapshotOptions(shard=SHARD),
            random=world.random,
            secrets=world.secrets,
            quiesce=lambda: self.shard.log.quiet(),  # noqa: PLW0108  (made later)
        )
        memory = self.memory = ShardMemory(
            self.disk,
            self.registry,
            SHARD,
            self.limits,
            history=HistoryFile(self.disk, SHARD, self.registry.decoders),
            snapshots=self.snapshot_driver,
            spawn=lambda work: work(),
        )
        options = ShardOptions(
            shard=SHARD,
            rule=FlushRule(
                name=self.policy,
                wait_s=self.wait_s,
                group_bytes_max=self.limits.group_bytes_max,
                reply_before_flush=self.policy == "async",
            ),
            limits=self.limits,
            decide_again=decide_again,
            compaction=None if self.archive is None else TimeRetention(),
            eager_outcomes=self.eager,
        )
        parts = await asyncio.to_thread(
            open_shard,
            world,
            self.registry,
            memory,
            ShardMetrics(CollectorRegistry(), SHARD),
            options,
        )
        self.shard = Shard(parts, on_fatal=self.fatal.append)
        self.shard.upkeep = memory.upkeep
        self.snapshots = Snapshots(
            self.shard,
            self.snapshot_driver,
            memory.image,
            memory.history,
            EveryCommands(10**9),
            self.mode,
            spilled=memory,
        )
        self.shard.start()
        await self.shard.rest()
        return self.shard

    async def kill(self) -> None:
        """The process is gone: nothing is flushed, the lock falls."""
        shard = self.shard
        await asyncio.to_thread(lambda: shard.log.close(clean=False))
        shard.reads.close()

    def admit(self, id: str, delta: int = 1, key: str = "k", **more: Any) -> Admitted:
        data = msgspec.json.encode({"delta": delta})
        return self.registry.admit(
            id=id,
            type=more.pop("type", "counter.add"),
            key=key,
            data=more.pop("data", data),
            codec="json",
            tenant="t",
            principal="p",
            scopes=frozenset({"*:write"}),
            **more,
        )

    async def send(self, *admitted: Admitted) -> list[Reply]:
        done = asyncio.get_running_loop().create_future()
        ticket = Ticket(len(admitted), lambda _ticket: done.set_result(None))
        self.shard.submit(admitted, ticket)
        await asyncio.wait_for(done, 20)
        return [reply for reply in ticket.answers if reply is not None]

    async def add(self, delta: int = 1, key: str = "k") -> Reply:
        self.count += 1
        (reply,) = await self.send(self.admit(f"n-{self.count}", delta, key))
        return reply

    async def value(self, key: str = "k", **more: Any) -> int:
        (spec,) = DOMAIN.queries
        params = spec.params()
        answer = await self.shard.query(spec, "counter", "t", key, params, **more)
        return int(getattr(answer.value, "value"))  # noqa: B009  (typed as an object)


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    rig = Rig(tmp_path)
    await rig.start()
    yield rig
    await rig.shard.stop()


def code_of(reply: Reply) -> str:
    assert reply.error is not None
    return reply.error.code


async def test_commands_of_one_turn_share_a_group_and_are_answered_in_order(rig: Rig) -> None:
    flushes = rig.shard.status().flushes
    replies = await asyncio.gather(*(rig.send(rig.admit(f"a{n}")) for n in range(50)))
    assert [reply.offset for (reply,) in replies] == list(range(1, 51))
    assert rig.shard.status().flushes - flushes <= 3
    assert await rig.value() == 50


async def test_what_was_acknowledged_is_there_after_a_kill(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    await rig.start()
    for delta in range(1, 11):
        assert (await rig.add(delta)).outcome == "accepted"
    await rig.kill()
    shard = await rig.start()
    assert await rig.value() == 55
    assert shard.epoch == 2
    assert (await rig.add()).offset == 12
    await shard.stop()


async def test_a_retry_after_a_kill_gets_the_first_reply(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    await rig.start()
    (first,) = await rig.send(rig.admit("pay", 5))
    await rig.kill()
    await rig.start()
    (again,) = await rig.send(rig.admit("pay", 5))
    assert again.duplicate
    assert (again.offset, again.epoch, again.time, again.version, again.result) == (
        first.offset,
        first.epoch,
        first.time,
        first.version,
        {"value": 5},
    )
    (other,) = await rig.send(rig.admit("pay", 6))
    assert code_of(other) == "IDEMPOTENCY_MISMATCH"
    assert await rig.value() == 5
    await rig.shard.stop()


async def test_outcomes_are_recorded_at_idle_and_a_stop_leaves_nothing_to_decide_again(
    tmp_path: Path,
) -> None:
    rig = Rig(tmp_path)
    shard = await rig.start()
    await rig.add()
    await asyncio.sleep(0.2)
    assert rig.shard.machine.unrecorded == {}
    await rig.add()
    await shard.stop()

    class Newer(type(DOMAIN)):  # type: ignore[misc]
        version = DOMAIN.version + 1

    rig.domains = (Newer(),)
    await rig.start()
    assert await rig.value() == 2
    await rig.shard.stop()


async def test_other_handlers_do_not_decide_what_a_client_may_have_been_told(
    tmp_path: Path,
) -> None:
    class Newer(type(DOMAIN)):  # type: ignore[misc]
        version = DOMAIN.version + 1

    rig = Rig(tmp_path)
    await rig.start()
    await rig.add(7)
    await rig.kill()  # The last outcome was not recorded yet.
    rig.domains = (Newer(),)
    with pytest.raises(OtherHandlers) as refused:
        await rig.start()
    with pytest.raises(OtherHandlers):
        await rig.start(decide_again="00" * 8)
    await rig.start(decide_again=str(refused.value.facts["logged"]))
    assert await rig.value() == 7
    await rig.shard.stop()


async def test_a_paused_shard_refuses_new_commands_answers_retries_and_resumes(rig: Rig) -> None:
    await rig.send(rig.admit("a"))
    await rig.shard.pause("maintenance")
    retry, fresh = await rig.send(rig.admit("a"), rig.admit("b"))
    assert retry.duplicate
    assert code_of(fresh) == "PAUSED"
    assert fresh.error is not None
    assert "maintenance" in fresh.error.detail
    assert rig.shard.status().state == "paused"
    await rig.shard.resume()
    assert (await rig.send(rig.admit("b")))[0].outcome == "accepted"


async def test_a_draining_shard_answers_what_it_accepted(rig: Rig) -> None:
    waiting = [asyncio.create_task(rig.send(rig.admit(f"d{n}"))) for n in range(20)]
    await asyncio.sleep(0)
    await rig.shard.drain()
    replies = [reply for task in waiting for reply in await task]
    assert {reply.outcome for reply in replies} == {"accepted"}
    assert code_of(await rig.add()) == "DRAINING"


async def test_reads_wait_for_an_offset_and_say_so_when_it_does_not_come(rig: Rig) -> None:
    waiting = asyncio.create_task(rig.value(min_offset=1))
    await asyncio.sleep(0)
    await rig.add(9)
    assert await waiting == 9
    assert await rig.value(min_offset=1) == 9
    with pytest.raises(EngineError) as caught:
        await rig.value(min_offset=99)
    assert caught.value.code == "WAIT_TIMEOUT"


async def test_an_outcome_can_be_asked_for(rig: Rig) -> None:
    await rig.send(rig.admit("known", 3))
    for key in ("k", None):
        answer = await rig.shard.outcome("t", key, "known")
        assert answer.state == "done"
        assert answer.reply is not None
        assert answer.reply.result == {"value": 3}
    assert (await rig.shard.outcome("t", "k", "never")).state == "unknown"
    assert (await rig.shard.outcome("t", "elsewhere", "known")).state == "unknown"
    task = asyncio.create_task(rig.send(rig.admit("flying")))
    await asyncio.sleep(0)
    assert (await rig.shard.outcome("t", "k", "flying")).state == "in_flight"
    await task


@pytest.mark.parametrize("policy", ["group", "async"])
async def test_other_policies_answer_and_name_themselves(
    tmp_path: Path, policy: DurabilityName
) -> None:
    rig = Rig(tmp_path, policy=policy)
    await rig.start()
    replies = await asyncio.gather(*(rig.send(rig.admit(f"a{n}")) for n in range(10)))
    durable = replies[0][0].durable
    assert durable is not None
    assert (durable.policy, durable.local) == (policy, policy == "group")
    await rig.shard.stop()
    await rig.start()
    assert await rig.value() == 10
    await rig.shard.stop()


class SmallDisk:
    """A disk that is full beyond a number of bytes written."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        self.full = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._disk, name)

    def open(self, path: str, *, create: bool = False, write: bool = False) -> File:
        if create and self.full and "log/" in path:
            raise DiskFull(28, "No space left on device", path)
        return self._disk.open(path, create=create, write=write)


async def test_a_full_disk_turns_the_shard_read_only_and_it_recovers(tmp_path: Path) -> None:
    disk = SmallDisk(LocalDisk(tmp_path))
    rig = Rig(tmp_path, disk=disk)
    await rig.start()
    accepted = 0
    disk.full = True
    for _ in range(400):
        reply = (await rig.send(*(rig.admit(f"x{accepted}-{n}-{'y' * 90}") for n in range(100))))[0]
        if reply.outcome != "accepted":
            break
        accepted += 100
    assert code_of(reply) == "READ_ONLY"
    assert rig.shard.status().state == "read_only"
    assert await rig.value() == accepted
    disk.full = False
    for _ in range(100):
        await asyncio.sleep(0.1)
        if rig.shard.status().state == "serving":
            break
    assert (await rig.add()).outcome == "accepted"
    await rig.kill()
    await rig.start()
    assert await rig.value() == accepted + 1
    await rig.shard.stop()


class Fragile(type(DOMAIN)):  # type: ignore[misc]
    """A counter whose ``evolve`` fails on one sum."""

    def evolve(self, state: Any, event: Any, at: Any) -> None:
        if event.value == 13:
            raise ArithmeticError("thirteen")
        super().evolve(state, event, at)


async def test_a_failing_evolve_halts_with_the_offset_and_a_logged_skip_goes_on(
    tmp_path: Path,
) -> None:
    rig = Rig(tmp_path, domains=(Fragile(),))
    await rig.start()
    await rig.add(12)
    reply = await rig.add(1)
    assert code_of(reply) == "OUTCOME_UNKNOWN"
    status = rig.shard.status()
    assert status.state == "halted"
    assert "offset=2" in status.reason
    assert code_of(await rig.add(1)) == "SHARD_UNAVAILABLE"
    with pytest.raises(EngineError):
        await rig.value()
    with pytest.raises(EngineError):
        await rig.shard.rest()
    await rig.shard.stop()
    with pytest.raises(EvolveFailed):
        await rig.start()


async def test_a_policy_that_raises_halts_the_shard(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    await rig.start()

    class Broken:
        def choose(self, waiting: Sequence[Any], count_max: int) -> Sequence[int]:
            raise LookupError

    rig.shard.machine._scheduling = Broken()
    assert code_of(await rig.add()) == "SHARD_UNAVAILABLE"  # It was never logged.
    assert rig.shard.status().state == "halted"
    await rig.shard.stop()


async def test_a_poison_command_is_answered_and_alarms(tmp_path: Path) -> None:
    class Raising(type(DOMAIN)):  # type: ignore[misc]
        @property
        def commands(self) -> Iterable[Any]:
            def decide(state: Any, data: Any, context: Any) -> Accepted:
                raise RuntimeError("a bug in the domain")

            return [msgspec.structs.replace(spec, decide=decide) for spec in DOMAIN.commands]

    rig = Rig(tmp_path, domains=(Raising(),))
    await rig.start()
    reply = await rig.add()
    assert (reply.outcome, code_of(reply)) == ("rejected", "INTERNAL")
    assert rig.shard.status().alarms == 1
    assert rig.shard.status().state == "serving"
    await rig.shard.stop()


class BrokenDisk(SmallDisk):
    """A disk whose sync fails once it is told to."""

    def __init__(self, disk: Disk) -> None:
        super().__init__(disk)
        self.failing = False

    def open(self, path: str, *, create: bool = False, write: bool = False) -> File:
        return _BrokenFile(self._disk.open(path, create=create, write=write), self)


class _BrokenFile:
    def __init__(self, file: File, disk: BrokenDisk) -> None:
        self._file, self._disk = file, disk

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def sync(self) -> None:
        if self._disk.failing:
            raise OSError(5, "Input/output error")
        self._file.sync()


async def test_a_shard_that_is_ended_reads_and_writes_nothing_from_then_on(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    await rig.start()
    await rig.add(5)
    assert await rig.value() == 5
    under_way = asyncio.ensure_future(rig.add(1))
    await asyncio.sleep(0)
    why = RuntimeError("another replica may lead")
    rig.shard.end(why, f"it leads no more: {why}")
    with pytest.raises(EngineError, match="leads no more") as refused:
        await rig.value()
    assert refused.value.code == "SHARD_UNAVAILABLE"
    assert code_of(await under_way) in {"SHARD_UNAVAILABLE", "OUTCOME_UNKNOWN"}
    assert code_of(await rig.add(1)) == "SHARD_UNAVAILABLE"
    assert rig.fatal == [why]
    await rig.kill()


async def test_a_failed_sync_ends_the_process_and_acknowledges_nothing(tmp_path: Path) -> None:
    disk = BrokenDisk(LocalDisk(tmp_path))
    rig = Rig(tmp_path, disk=disk)
    await rig.start()
    await rig.add(5)
    disk.failing = True
    reply = await rig.add(1)
    assert code_of(reply) == "OUTCOME_UNKNOWN"
    assert reply.error is not None
    assert reply.error.location == "/v1/commands/n-2?key=k"
    assert len(rig.fatal) == 1
    assert code_of(await rig.add(1)) == "SHARD_UNAVAILABLE"
    disk.failing = False
    await rig.kill()
    await rig.start()
    assert await rig.value() >= 5
    await rig.shard.stop()


@pytest.mark.parametrize("mode", ["inline", "cooperative", "fork"])
async def test_a_snapshot_under_load_and_its_tail_give_the_same_state(
    tmp_path: Path, mode: Mode
) -> None:
    rig = Rig(tmp_path, mode=mode)
    await rig.start()
    loads = [
        asyncio.create_task(rig.send(*(rig.admit(f"{n}-{m}", m, f"k{n % 7}") for m in range(40))))
        for n in range(20)
    ]
    taken = await rig.snapshots.take()
    assert taken.entry.offset_end > 0
    await asyncio.gather(*loads)
    await rig.snapshots.take()
    await rig.send(rig.admit("after", 1000, "k0"))
    before = [await rig.value(f"k{n}") for n in range(7)]
    await rig.kill()
    shard = await rig.start()
    assert [await rig.value(f"k{n}") for n in range(7)] == before
    assert shard.status().replayed < 100
    assert shard.status().snapshot_offset is not None
    (retry,) = await rig.send(rig.admit("3-7", 7, "k3"))
    assert retry.duplicate
    await shard.stop()


async def test_a_replay_validation_finds_equal_and_names_the_first_difference(
    tmp_path: Path,
) -> None:
    rig = Rig(tmp_path)
    await rig.start()
    for delta in (1, 2, 3):
        await rig.add(delta)
    await rig.shard.rest()
    reader = rig.shard.log.reader()
    report = validate(rig.memory.scratch(sequence_max=0), reader, from_offset=0, to_offset=None)
    assert report.equal
    assert report.compared == 4
    await rig.shard.stop()

    class Different(type(DOMAIN)):  # type: ignore[misc]
        @property
        def commands(self) -> Iterable[Any]:
            def decide(state: Any, data: Any, context: Any) -> Any:
                if data.delta == 2:
                    return Accepted((), None)
                return DOMAIN.commands[0].decide(state, data, context)  # type: ignore[misc]

            return [msgspec.structs.replace(spec, decide=decide) for spec in DOMAIN.commands]

    rig.domains = (Different(),)
    await rig.start()
    reader = rig.shard.log.reader()
    report = validate(rig.memory.scratch(sequence_max=0), reader, from_offset=1, to_offset=4)
    assert (report.equal, report.first_difference) == (False, 2)
    assert report.command_type == "counter.add@1"
    assert report.recorded is not None
    assert report.recorded != report.decided
    await rig.shard.stop()


async def test_the_feed_gives_every_outcome_once_from_any_offset(rig: Rig) -> None:
    feed = Feed(rig.shard.log.reader(), SHARD)
    rig.shard.on_recorded = feed.publish
    seen: list[int] = []

    async def follow() -> None:
        async for batch in feed.outcomes(3):
            seen.extend(outcome.offset for outcome in batch)

    follower = asyncio.create_task(follow())
    for _ in range(5):
        await rig.send(*(rig.admit(f"f{rig.count}-{n}") for n in range(3)))
        rig.count += 1
    await rig.shard.rest()
    for _ in range(100):
        await asyncio.sleep(0.01)
        if len(seen) == 13:
            break
    assert seen == list(range(3, 16))
    await feed.close()
    await follower
    with pytest.raises(EngineError):
        await anext(feed.outcomes(-1))


async def test_an_override_is_logged(rig: Rig) -> None:
    await rig.shard.skip(41, "because")
    await rig.shard.rest()
    assert 41 in rig.shard.executor.skipped


async def test_increments_are_merged_before_a_start_has_to_load_many(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    await rig.start()
    # A full image that several increments are small beside.
    await rig.send(*(rig.admit(f"many-{n}", 1, f"many-{n}") for n in range(500)))
    chains = []
    for number in range(8):
        await rig.add(1, f"k{number % 3}")
        await rig.snapshots.take()
        chains.append(rig.snapshot_driver.increments)
    assert chains == [0, 1, 2, 3, 0, 1, 2, 3]
    await rig.kill()
    await rig.start()
    assert [await rig.value(f"k{n}") for n in range(3)] == [3, 3, 2]
    await rig.shard.stop()


async def test_a_snapshot_of_another_log_is_refused(tmp_path: Path) -> None:
    one, other = Rig(tmp_path / "one"), Rig(tmp_path / "other")
    for rig, delta in ((one, 1), (other, 2)):
        await rig.start()
        await rig.add(delta)
        await rig.snapshots.take()
        await rig.shard.stop()
    shutil.rmtree(tmp_path / "one" / "snapshots")
    shutil.copytree(tmp_path / "other" / "snapshots", tmp_path / "one" / "snapshots")
    with pytest.raises(SnapshotRefused):
        await one.start()


@pytest.mark.parametrize("mode", ["fork", "cooperative", "inline"])
async def test_ids_that_were_spilled_are_in_snapshots_too(tmp_path: Path, mode: Mode) -> None:
    limits = msgspec.structs.replace(LIMITS, dedup_entries_max=200)
    rig = Rig(tmp_path, limits=limits, mode=mode)
    await rig.start()
    for number in range(8):
        await rig.send(*(rig.admit(f"s{number}-{n}") for n in range(100)))
    for _ in range(200):
        rig.memory.upkeep()
    assert rig.memory.is_spilled
    await rig.snapshots.take()
    assert rig.memory.troubles() == []
    await rig.kill()
    shutil.rmtree(tmp_path / "dedup")
    await rig.start()
    assert rig.shard.status().replayed < 10
    for name in ("s0-0", "s3-50", "s7-99"):
        (retry,) = await rig.send(rig.admit(name))
        assert retry.duplicate, name
    assert await rig.value() == 800
    await rig.shard.stop()
