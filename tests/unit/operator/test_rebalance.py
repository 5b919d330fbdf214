"""Slots follow `spec.shards`: what is wished and said, and an operator that dies at any step."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from tests.unit.operator.memory import MemoryCluster, SilentShards, engine
from tests.unit.operator.rounds import KEY, conditions
from tests.unit.rebalancing.logs import AskedLogs, Logs

from ultraengine.model.errors import EngineError
from ultraengine.model.ids import SLOT_COUNT, ShardId
from ultraengine.moving.record import Activate, Begin, Message, Seal, Stop
from ultraengine.rebalancing.driver import Mover
from ultraengine.router.shard_map import ShardMap
from ultraengine_operator import names
from ultraengine_operator.cluster import KINDS
from ultraengine_operator.drivers.loop import Loop
from ultraengine_operator.drivers.maps import ConfigMapMaps
from ultraengine_operator.drivers.rebalancer import Rebalancer
from ultraengine_operator.observed import Observed
from ultraengine_operator.plan import Settings
from ultraengine_operator.reasons import Reason
from ultraengine_operator.rebalance import QUIET, STUCK_S, Told, Wish, judged
from ultraengine_operator.rollout import timestamp_s

ROUNDS_MAX = 50
MAP = ("ConfigMap", "default", "shop-shardmap")


class World:
    """A cluster with one engine, its shards' logs, and an operator that can be killed."""

    def __init__(self, first: ShardMap) -> None:
        self.cluster = MemoryCluster()
        self.logs = Logs(first)
        self.asked: list[tuple[ShardId, ...]] = []
        self.start()

    def start(self) -> None:
        """Another operator; the one before it is dead."""
        self.moves = Rebalancer(self._reach, lambda _key: None, sleep=self._sleep)
        self.loop = Loop(
            self.cluster, SilentShards(), Settings(), moves=self.moves,
            clock=lambda: timestamp_s(self.cluster.now),
        )  # fmt: skip

    @staticmethod
    async def _sleep(_seconds: float) -> None:
        await asyncio.sleep(0.001)

    @asynccontextmanager
    async def _reach(self, key: tuple[str, str], shards: Sequence[ShardId]) -> AsyncIterator[Mover]:
        self.asked.append(tuple(shards))
        yield Mover(AskedLogs(self.logs, shards), ConfigMapMaps(self.cluster, *key))

    @property
    def map(self) -> ShardMap:
        return ShardMap.decode(self.cluster.objects[MAP]["data"][names.MAP_KEY].encode())

    @property
    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = self.cluster.objects["UltraEngine", *KEY]["status"]
        return found

    async def publish(self, shard_map: ShardMap) -> None:
        content = {"data": {names.MAP_KEY: shard_map.encode().decode()}}
        await self.cluster.merge(KINDS["ConfigMap"], "default", MAP[2], content)

    async def round(self, **world: Any) -> None:
        await self.loop.relist()
        await self.loop.reconcile(KEY)
        self.cluster.controllers(**world)
        await asyncio.sleep(0.0)
        for _ in range(10):  # A round costs more than many steps of a move.
            if self.moves.is_moving(KEY):
                await asyncio.sleep(0.02)

    async def until(self, holds: Callable[[], bool], **world: Any) -> None:
        idle = 0
        while not holds():
            assert idle < ROUNDS_MAX, f"not within {ROUNDS_MAX} idle rounds: {self.status}"
            await self.round(**world)
            # How much is moved between two rounds is a matter of the machine.
            idle += not self.moves.is_moving(KEY)

    def is_settled(self) -> bool:
        """As wished, and nobody is at work."""
        found = self.cluster.objects["UltraEngine", *KEY]
        wished = found["metadata"]["generation"]
        if "status" not in found or self.moves.is_moving(KEY):
            return False
        is_new = found["status"]["observedGeneration"] == wished
        return is_new and conditions(self.cluster).get("Ready") == ("True", "AsWished")

    async def settle(self, **spec: Any) -> None:
        await engine(self.cluster, **spec)
        await self.round()
        await self.until(self.is_settled)


async def served(shards: int, first: ShardMap | None = None) -> World:
    """An engine that serves, with a map in which few slots are not where four shards want them."""
    first = ShardMap.even(shards) if first is None else first
    world = World(first)
    await world.settle(shards=shards)
    if first != ShardMap.even(shards):
        await world.publish(ShardMap(world.map.version + 1, first.ranges))
        world.start()
    return world


def nearly_even(slots: int) -> ShardMap:
    """Two shards have the slots of four, and moving was interrupted before the last few."""
    return ShardMap.even(4).moved_all({2048 + n: ShardId(n % 2) for n in range(slots)})


async def test_slots_move_to_new_shards_and_back_before_these_go() -> None:
    world = await served(2)
    await world.settle(shards=4)
    sizes = [world.map.owners.count(ShardId(n)) for n in range(4)]
    assert sizes == [SLOT_COUNT // 4] * 4
    assert all(
        world.logs.serving(slot, 4) == [world.map.owners[slot]] for slot in range(SLOT_COUNT)
    )
    shard = world.cluster.objects["Shard", "default", "shop-shard-3"]
    assert shard["status"]["slots"] == 1024
    await world.settle(shards=2)
    assert world.map.shards == (0, 1)
    assert not [key for key in world.cluster.objects if key[2].startswith("shop-shard-3")]
    assert ("PersistentVolumeClaim", "default", "data-shop-shard-3-0") in world.cluster.objects
    assert conditions(world.cluster) == {
        "Ready": ("True", "AsWished"), "Available": ("True", "Serving")
    }  # fmt: skip
    assert "rebalance" not in world.status


async def test_an_operator_killed_at_any_step_is_followed_by_one_that_ends_in_the_same_state() -> (
    None
):
    async def world_after(steps: int) -> tuple[World, bool]:
        world = await served(2, nearly_even(4))
        left = steps

        def step(*_: object) -> None:
            nonlocal left
            left -= 1
            if left < 0:
                raise asyncio.CancelledError  # As a task sees the end of its process.

        world.logs.before_send = step
        await engine(world.cluster, shards=4)
        for _ in range(60):
            await world.round()
            if left < 0 or world.is_settled():
                break
        world.moves.stop()
        world.logs.before_send = lambda *_: None
        was_killed = left < 0
        world.start()
        await world.settle(shards=4)
        return world, was_killed

    undisturbed, _ = await world_after(10_000)
    wanted = undisturbed.map.owners
    assert [wanted.count(ShardId(n)) for n in range(4)] == [SLOT_COUNT // 4] * 4
    kills = 0
    for steps in range(100):
        world, was_killed = await world_after(steps)
        assert [world.map.owners.count(ShardId(n)) for n in range(4)] == [SLOT_COUNT // 4] * 4
        for slot in range(2048, 2060):
            assert world.logs.serving(slot, 4) == [world.map.owners[slot]]
        if not was_killed:
            break
        kills += 1
    assert kills >= 4 * 5, "each slot takes at least five messages"


@pytest.mark.parametrize("step", [Seal, Activate])
async def test_setting_shards_back_turns_what_is_before_its_cutover(step: type[Message]) -> None:
    world = await served(2)
    held = asyncio.Event()

    def away(_slot: int, message: Message) -> None:
        if isinstance(message, step):
            held.set()
            raise EngineError("shard 2 is away", code="SHARD_UNAVAILABLE")

    world.logs.before_send = away
    await engine(world.cluster, shards=4)
    await world.until(held.is_set)
    await world.round()
    assert conditions(world.cluster)["Rebalancing"][0] == "True"
    world.logs.before_send = lambda *_: None
    await world.settle(shards=2)
    assert world.map.owners == ShardMap.even(2).owners
    assert all(
        world.logs.serving(slot, 4) == [world.map.owners[slot]] for slot in range(SLOT_COUNT)
    )
    assert not [key for key in world.cluster.objects if key[2].startswith("shop-shard-2")]


async def test_a_shard_whose_log_has_a_slot_stays_whatever_the_map_says() -> None:
    world = await served(2)
    begun = False

    def only_one(slot: int, message: Message) -> None:
        nonlocal begun
        if isinstance(message, Begin):
            if begun:
                raise EngineError("later", code="SHARD_UNAVAILABLE")
            begun = True

    world.logs.before_send = only_one
    refuse = world.cluster.before_write

    def no_maps() -> None:
        if any(world.logs.serving(slot, 3) == [2] for slot in range(1024, SLOT_COUNT)):
            raise asyncio.CancelledError

    await engine(world.cluster, shards=3)
    await world.until(lambda: ("Pod", "default", "shop-shard-2-0") in world.cluster.objects)
    world.cluster.before_write = no_maps
    for _ in range(20):
        try:
            await world.round()
        except asyncio.CancelledError:
            break
    owned = [slot for slot in range(SLOT_COUNT) if world.logs.serving(slot, 3) == [2]]
    assert len(owned) == 1
    assert ShardId(2) not in world.map.shards
    world.moves.stop()
    world.cluster.before_write = refuse
    world.logs.away = {ShardId(0), ShardId(1)}
    world.start()
    await engine(world.cluster, shards=2)
    for _ in range(20):
        await world.round()
    assert ("StatefulSet", "default", "shop-shard-2") in world.cluster.objects
    world.logs.away = set()
    world.logs.before_send = lambda *_: None
    await world.until(world.is_settled)
    assert world.logs.serving(owned[0], 3) == [world.map.owners[owned[0]]]
    assert ("StatefulSet", "default", "shop-shard-2") not in world.cluster.objects


async def test_new_shards_that_never_came_up_are_let_go_again() -> None:
    world = await served(2)
    await engine(world.cluster, shards=3)
    broken = {"broken": lambda _image: True}
    await world.until(
        lambda: ("Pod", "default", "shop-shard-2-0") in world.cluster.objects, **broken
    )
    await world.round(**broken)
    await world.round(**broken)
    assert conditions(world.cluster)["Ready"] == ("False", "ShardsNotReady")
    assert conditions(world.cluster)["Rebalancing"] == ("True", "RebalancingWaits")
    await engine(world.cluster, shards=2)
    await world.until(world.is_settled, **broken)
    assert ("StatefulSet", "default", "shop-shard-2") not in world.cluster.objects
    assert world.asked[-1] == (0, 1)


async def test_a_pause_leaves_no_slot_between_two_shards_and_begins_no_other() -> None:
    world = await served(8)
    begun: list[int] = []
    goes_on = asyncio.Event()

    def count(slot: int, message: Message) -> None:
        if isinstance(message, Begin):
            if len(begun) == 100 and not goes_on.is_set():
                raise EngineError("busy until the pause is seen", code="SHARD_UNAVAILABLE")
            begun.append(slot)

    world.logs.before_send = count
    await engine(world.cluster, shards=9)
    await world.until(lambda: len(begun) == 100)
    await engine(world.cluster, shards=9, reconciliation="Paused")
    await world.round()
    goes_on.set()
    await world.until(lambda: not world.moves.is_moving(KEY))
    assert 100 <= len(begun) < 455
    owners = world.map.owners
    assert all(world.logs.serving(slot, 9) == [owners[slot]] for slot in begun)
    await world.round()
    found = conditions(world.cluster)
    assert found["Ready"][0] == "False"
    assert "Rebalancing" not in found
    before = len(begun)
    await world.round()
    assert len(begun) == before
    await world.settle(shards=9)
    assert len(set(begun)) == 455


async def test_in_plan_mode_moves_are_listed_and_none_is_made() -> None:
    world = await served(2)
    await engine(world.cluster, shards=3, reconciliation="Plan")
    for _ in range(3):
        await world.round()
    moves = [line for line in world.status["plan"] if line.startswith("move")]
    assert moves == [
        "move 682 slots from shard 0 to shard 2",
        "move 683 slots from shard 1 to shard 2",
    ]
    assert world.logs.records == {}


async def test_a_slot_that_cannot_be_moved_stalls_with_its_reason_and_is_tried_again() -> None:
    world = await served(2, nearly_even(6))

    def refuse(_slot: int, message: Message) -> None:
        if isinstance(message, Seal):
            raise EngineError("a domain is missing", code="MALFORMED")

    world.logs.before_send = refuse
    await engine(world.cluster, shards=4)
    await world.until(lambda: "Stalled" in conditions(world.cluster))
    assert conditions(world.cluster)["Stalled"] == ("True", "SlotMoveFailed")
    (stalled,) = [one for one in world.status["conditions"] if one["type"] == "Stalled"]
    assert "a domain is missing" in stalled["message"]
    world.logs.before_send = lambda *_: None
    await world.settle(shards=4)


async def test_no_shard_is_emptied_that_a_projection_reads() -> None:
    books = {"name": "books", "targetSecretName": "db"}
    world = World(ShardMap.even(2))
    await world.settle(shards=2, projections=[books])
    await engine(world.cluster, shards=1, projections=[books])
    for _ in range(5):
        await world.round()
    assert conditions(world.cluster)["Stalled"] == ("True", "ProjectionsNeedShards")
    assert world.logs.records == {}
    assert ("StatefulSet", "default", "shop-shard-1") in world.cluster.objects


async def test_an_open_move_of_a_map_that_is_even_is_ended_after_a_start() -> None:
    world = await served(2)
    world.logs.before_send = lambda *_: None
    asked = AskedLogs(world.logs, [ShardId(0), ShardId(1)])
    attempt = (await asked.look(ShardId(0), 5)).record.attempt.next
    await asked.send(ShardId(0), 5, Begin(attempt, ShardId(1)))
    stopped: list[int] = []

    def heard(slot: int, message: Message) -> None:
        if isinstance(message, Stop):
            stopped.append(slot)

    world.logs.before_send = heard
    world.start()
    await world.round()
    await world.until(lambda: not world.moves.is_moving(KEY))
    # Shard 1 has no room for it by this wish: it stays where it was.
    assert stopped == [5]
    assert world.logs.serving(5, 2) == [0]


WISH = Wish(4, (0, 1, 2, 3), 2048)
TOLD = Told(4, 1024, 1024, 100.0, 160.0, (7, 8))


def test_progress_says_how_many_how_fast_and_how_long() -> None:
    found = judged(WISH, TOLD, "Active", 161.0)
    assert found.progress == {
        "slotsMoved": 1024, "slotsTotal": 2048, "progress": "1024/2048", "slotMoving": 7,
        "slotsPerMinute": 1024, "etaSeconds": "60",
    }  # fmt: skip
    assert (found.reason, found.problem) == (Reason.SLOTS_MOVING, None)
    first = Told(4, 0, 2048, 100.0, 100.0)
    assert judged(WISH, first, "Active", 100.0).progress == {
        "slotsMoved": 0, "slotsTotal": 2048, "progress": "0/2048"
    }  # fmt: skip


def test_it_stalls_when_no_slot_has_moved_for_a_named_time() -> None:
    assert judged(WISH, TOLD, "Active", 160.0 + STUCK_S).problem is None
    stuck = judged(WISH, TOLD, "Active", 161.0 + STUCK_S).problem
    assert stuck is not None
    assert stuck.reason is Reason.REBALANCING_STUCK
    waits = Told(4, 1, 9, 0.0, 0.0, waits_for="shard 3 is away")
    assert "shard 3 is away" in str(judged(WISH, waits, "Active", 1000.0).problem)
    assert judged(WISH, waits, "Active", 1.0).reason is Reason.REBALANCING_WAITS


def test_nothing_is_said_while_all_is_as_wished() -> None:
    met = Wish(2, (0, 1))
    assert judged(met, None, "Active", 0.0) == QUIET
    assert judged(met, Told(2, 5, 0, 0.0, 0.0), "Active", 0.0) == QUIET
    assert judged(Wish(2, (0, 1), emptying=(2,)), None, "Active", 0.0).is_moving
    assert not judged(WISH, TOLD, "Paused", 0.0).is_moving
    assert judged(WISH, Told(2, 9, 9, 0.0, 0.0), "Active", 0.0).progress is None
    assert Observed().emptied == ()
