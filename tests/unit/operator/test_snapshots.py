"""Snapshots are carried out once, whatever fails and whoever dies; an engine goes after them."""

import asyncio
import contextlib
import random
from collections.abc import Callable
from typing import Any

import pytest
from tests.unit.operator.backed import LOCATION, MemoryShards
from tests.unit.operator.memory import MemoryCluster, SilentShards, engine
from tests.unit.operator.rounds import KEY, conditions

from ultraengine_operator import names
from ultraengine_operator.backups import Ask, Image, Said
from ultraengine_operator.cluster import KINDS, Content, Refused
from ultraengine_operator.drivers.backups import PARALLEL, PAUSES_S, Backups
from ultraengine_operator.drivers.loop import Loop, NotLeading
from ultraengine_operator.events import Told
from ultraengine_operator.observed import Observed
from ultraengine_operator.plan import Settings
from ultraengine_operator.rollout import timestamp_s
from ultraengine_operator.snapshots import SeenSnapshot, asks, read_snapshot

BACKUP = {"location": LOCATION}
ROUNDS_MAX = 60


class World:
    """A cluster with an engine, shards that can be backed up, and an operator."""

    def __init__(self) -> None:
        self.cluster = MemoryCluster()
        self.shards = MemoryShards()
        self.slept: list[float] = []
        self.rested = asyncio.Event()
        """While it is clear, a pause between two attempts takes longer."""
        self.rested.set()
        self.told: list[tuple[str, str]] = []
        self.start()

    def start(self, **options: Any) -> None:
        """Another operator; the one before it is dead."""
        self.heard = asyncio.Event()
        """Set when there is news of a backup."""
        self.backups = Backups(self.shards, lambda _key: self.heard.set(), sleep=self._sleep)
        self.loop = Loop(
            self.cluster, SilentShards(), Settings(), backups=self.backups, told=self._tell,
            clock=lambda: timestamp_s(self.cluster.now), **options,
        )  # fmt: skip

    async def kill(self) -> None:
        await self.backups.close()

    async def _sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        await asyncio.sleep(0)
        await self.rested.wait()

    def _tell(self, about: Content, told: Told) -> None:
        self.told.append((about["name"], told.reason))

    async def round(self, **world: Any) -> None:
        await self.loop.relist()
        for key in self.loop.concerned():
            await self.loop.reconcile(key)
        self.cluster.controllers(**world)
        for _ in range(5):
            await asyncio.sleep(0)

    async def until(self, holds: Callable[[], bool], **world: Any) -> None:
        for _ in range(ROUNDS_MAX):
            if holds():
                return
            await self.round(**world)
        raise AssertionError(f"not within {ROUNDS_MAX} rounds")

    async def engine(self, **spec: Any) -> None:
        await engine(self.cluster, **{"backup": BACKUP, **spec})
        await self.until(self.is_ready)

    def is_ready(self) -> bool:
        found = self.cluster.objects["UltraEngine", *KEY]
        status = found.get("status", {})
        is_new = status.get("observedGeneration") == found["metadata"]["generation"]
        return is_new and conditions(self.cluster)["Ready"] == ("True", "AsWished")

    async def ask(self, name: str = "now", of: str = "shop", **spec: Any) -> None:
        metadata = {"name": name, "namespace": "default"}
        content = {"apiVersion": names.API_VERSION, "kind": "Snapshot", "metadata": metadata,
                   "spec": {"engine": of, **spec}}  # fmt: skip
        await self.cluster.create(KINDS["Snapshot"], content)

    def status(self, name: str = "now") -> dict[str, Any]:
        found: dict[str, Any] = self.cluster.objects["Snapshot", "default", name].get("status", {})
        return found

    def stands(self, name: str = "now") -> dict[str, tuple[str, str]]:
        found = self.status(name).get("conditions", ())
        return {one["type"]: (one["status"], one["reason"]) for one in found}

    async def until_ready(self, name: str = "now", **world: Any) -> None:
        wanted = {"Ready": ("True", "BackedUp")}
        await self.until(lambda: self.stands(name) == wanted, **world)

    async def until_reason(self, reason: str, kind: str = "Stalled", name: str = "now") -> None:
        await self.until(lambda: self.stands(name).get(kind) == ("True", reason))

    async def delete(self) -> None:
        await self.cluster.delete(KINDS["UltraEngine"], *KEY, uid=None)

    @property
    def is_gone(self) -> bool:
        return ("UltraEngine", *KEY) not in self.cluster.objects


async def test_every_shard_is_backed_up_once_and_never_again() -> None:
    world = World()
    await world.engine(shards=3)
    await world.ask()
    await world.until_ready()
    found = world.status()["shards"]
    assert [one["shard"] for one in found] == [0, 1, 2]
    assert found[2] == {
        "shard": 2, "offset": "1", "offsetEnd": "2", "stateHash": "cafe", "location": LOCATION,
        "manifest": "2/backups/1", "verifiedAt": "2026-01-01T00:00:00Z",
    }  # fmt: skip
    before = world.cluster.writes
    for _ in range(3):
        await world.round()
    await world.kill()
    world.start()
    for _ in range(3):
        await world.round()
    assert world.shards.asked == {0: 1, 1: 1, 2: 1}
    assert world.cluster.writes == before
    assert ("now", "BackedUp") in world.told


async def test_one_shard_alone_is_backed_up_when_one_is_named() -> None:
    world = World()
    await world.engine(shards=3)
    await world.ask(shard=1)
    await world.until_ready()
    assert world.shards.asked == {1: 1}


async def test_an_answer_stays_when_the_engine_is_gone_and_another_request_is_answered_anew() -> (
    None
):
    world = World()
    await world.engine(shards=1)
    await world.ask()
    await world.until_ready()
    answered = world.status()
    await world.ask("later")
    await world.until_ready("later")
    assert world.shards.asked == {0: 2}
    await world.delete()
    for _ in range(4):
        await world.round()
    assert world.is_gone
    assert world.status() == answered


async def test_an_operator_killed_before_any_write_of_an_answer_ends_where_others_do() -> None:
    class Killed(Exception):
        pass

    kills = 0
    for survived in range(30):
        world = World()
        await world.engine(shards=2)
        await world.ask()
        left = survived

        def die() -> None:
            nonlocal left
            left -= 1
            if left == -1:
                raise Killed

        world.cluster.before_write = die
        try:
            await world.until_ready()
        except Killed:
            kills += 1
        else:
            break
        world.cluster.before_write = lambda: None
        await world.kill()
        world.start()
        await world.until_ready()
        assert [one["shard"] for one in world.status()["shards"]] == [0, 1]
        # Who is asked twice sends nothing twice; more often he is not asked for one kill.
        assert max(world.shards.asked.values()) <= 2
    assert kills >= 2


async def test_after_a_kill_shards_that_have_answered_are_not_asked_again() -> None:
    world = World()
    world.shards.broken[1] = "the store is away"
    world.rested.clear()
    await world.engine(shards=2)
    await world.ask()
    await world.until(lambda: bool(world.status().get("shards")))
    await world.until(lambda: world.stands()["Ready"] == ("False", "BackupFailed"))
    await world.kill()
    del world.shards.broken[1]
    world.start()
    await world.until_ready()
    assert world.shards.asked[0] == 1


async def test_what_fails_is_tried_again_with_growing_pauses_and_then_given_up_for_good() -> None:
    world = World()
    world.shards.broken[0] = "the store is away"
    await world.engine(shards=1)
    await world.ask()
    await world.until_reason("BackupFailed")
    assert world.slept == list(PAUSES_S)
    assert world.shards.asked[0] == len(PAUSES_S) + 1
    message = world.status()["conditions"][0]["message"]
    assert "shard 0, 6 attempts: the store is away" in message
    assert "Reconciling" not in world.stands()
    del world.shards.broken[0]
    await world.kill()
    world.start()
    for _ in range(4):
        await world.round()
    assert world.stands()["Stalled"] == ("True", "BackupFailed")
    await world.ask("again")
    await world.until_ready("again")


async def test_a_shard_that_comes_back_between_two_attempts_is_backed_up() -> None:
    world = World()
    world.shards.away.add(0)
    world.rested.clear()
    await world.engine(shards=1)
    await world.ask()
    await world.until(lambda: world.stands().get("Ready") == ("False", "ShardUnreachable"))
    assert world.stands()["Reconciling"] == ("True", "ShardUnreachable")
    world.shards.away.clear()
    world.rested.set()
    await world.until_ready()


async def test_a_shard_that_does_not_serve_is_waited_for_without_an_attempt() -> None:
    world = World()
    await engine(world.cluster, shards=1, backup=BACKUP)
    await world.ask()
    for _ in range(10):
        await world.round(broken=lambda _image: True)
    assert world.stands() == {
        "Ready": ("False", "ShardUnreachable"), "Reconciling": ("True", "ShardUnreachable"),
    }  # fmt: skip
    assert not world.shards.asked
    await world.cluster.delete(KINDS["Pod"], "default", "shop-shard-0-0", uid=None)
    await world.until_ready()


@pytest.mark.parametrize(
    ("reason", "of", "shard"),
    [
        ("EngineNotFound", "other", None),
        ("ShardNotFound", "shop", 1),
        ("BackupNotConfigured", "shop", None),
    ],
)
async def test_what_is_missing_is_named_and_the_request_is_carried_out_when_it_comes(
    reason: str, of: str, shard: int | None
) -> None:
    world = World()
    wish: dict[str, Any] = {} if reason == "BackupNotConfigured" else {"backup": BACKUP}
    await engine(world.cluster, **{"shards": 1, **wish})
    await world.until(world.is_ready)
    asked: dict[str, Any] = {} if shard is None else {"shard": shard}
    await world.ask(**{"of": of, **asked})
    await world.until_reason(reason)
    before = world.cluster.writes
    await world.round()
    assert (world.cluster.writes, dict(world.shards.asked)) == (before, {})
    await engine(world.cluster, name=of, shards=2, backup=BACKUP)
    await world.until_ready()


async def test_a_shard_that_was_not_restarted_with_its_place_yet_is_asked_until_it_was() -> None:
    world = World()
    world.shards.placeless.add(0)
    await world.engine(shards=1)
    await world.ask()
    await world.until(lambda: len(world.slept) > 2 * len(PAUSES_S))
    assert world.stands()["Reconciling"] == ("True", "BackupNotConfigured")
    world.shards.placeless.clear()
    await world.until_ready()


async def test_an_engine_that_cannot_be_read_or_rendered_is_no_engine_without_shards() -> None:
    world = World()
    await engine(world.cluster, shards=1, backup=BACKUP, image=None)
    await world.ask()
    await world.until_reason("ImageMissing")
    await engine(world.cluster, shards=0, backup=BACKUP)
    await world.until_reason("SpecInvalid")
    assert not world.shards.asked


async def test_a_slow_backup_holds_up_neither_its_engine_nor_another_one() -> None:
    world = World()
    await world.engine(shards=PARALLEL + 2)
    await engine(world.cluster, name="other", shards=1, backup=BACKUP)
    world.shards.open.clear()
    await world.ask()
    await world.ask("theirs", of="other")
    await world.until(lambda: world.shards.running == PARALLEL + 1)
    await engine(world.cluster, shards=PARALLEL + 2, backup=BACKUP, image="ultraengine:2")
    await world.until(world.is_ready)
    assert world.stands()["Reconciling"] == ("True", "BackingUp")
    assert world.shards.running_max == PARALLEL + 1
    world.shards.open.set()
    await world.until_ready()
    await world.until_ready("theirs")


async def test_a_request_that_is_deleted_is_waited_for_no_more() -> None:
    world = World()
    await world.engine(shards=1)
    world.shards.open.clear()
    await world.ask()
    await world.until(lambda: world.shards.running == 1)
    await world.cluster.delete(KINDS["Snapshot"], "default", "now", uid=None)
    await world.until(lambda: world.shards.running == 0)
    assert world.backups.told(KEY) == ()


async def test_an_answer_is_not_given_to_another_request_of_the_same_name() -> None:
    world = World()
    await world.engine(shards=1)
    await world.ask()
    world.shards.open.clear()
    await world.until(lambda: world.shards.running == 1)
    world.shards.open.set()
    await world.heard.wait()
    await world.cluster.delete(KINDS["Snapshot"], "default", "now", uid=None)
    await world.ask()
    with pytest.raises(Refused, match="has been modified"):
        await world.loop.reconcile(KEY)
    assert world.status() == {}
    await world.until_ready()
    assert world.status()["shards"][0]["offset"] == "2"


async def test_a_paused_engine_is_backed_up_and_nothing_of_it_is_changed() -> None:
    world = World()
    await world.engine(shards=1)
    await engine(world.cluster, shards=2, backup=BACKUP, reconciliation="Paused")
    await world.ask(shard=0)
    await world.until_ready()
    assert ("StatefulSet", "default", "shop-shard-1") not in world.cluster.objects


async def test_a_standby_and_the_operator_of_other_engines_ask_nobody() -> None:
    world = World()
    await world.engine(shards=1)
    await world.ask()
    await world.ask("lost", of="nobody")
    world.start(leading=lambda: False)
    await world.loop.relist()
    for key in world.loop.concerned():
        with contextlib.suppress(NotLeading):
            await world.loop.reconcile(key)
    assert (world.status(), world.status("lost")) == ({}, {})
    world.start(selector="team=b")
    await world.loop.relist()
    await world.loop.reconcile(KEY)
    assert (world.status(), dict(world.shards.asked)) == ({}, {})


async def test_a_failure_that_nobody_has_thought_of_is_told_too() -> None:
    class Broken(MemoryShards):
        async def back_up(self, namespace: str, engine: str, shard: int, *, last: bool) -> Image:
            raise LookupError("no such thing")

    world = World()
    world.shards = Broken()
    world.start()
    await world.engine(shards=1)
    await world.ask()
    await world.until_reason("BackupFailed")
    assert "LookupError: no such thing" in world.status()["conditions"][0]["message"]


async def test_an_engine_goes_after_a_last_backup_of_shards_that_take_nothing_any_more() -> None:
    world = World()
    await world.engine(shards=2, deletionPolicy="Snapshot")
    world.shards.open.clear()
    await world.delete()
    await world.until(lambda: world.shards.running == 2)
    await world.round()
    assert conditions(world.cluster)["Ready"] == ("False", "Deleting")
    assert world.shards.paused == {0, 1}
    await world.ask()
    await world.until_reason("EngineNotFound")
    world.shards.open.set()
    await world.until(lambda: world.is_gone)
    assert world.shards.asked == {0: 1, 1: 1}
    assert ("PersistentVolumeClaim", "default", "data-shop-shard-0-0") in world.cluster.objects


async def test_a_killed_operator_is_followed_by_one_that_backs_up_and_lets_go() -> None:
    world = World()
    await world.engine(shards=2, deletionPolicy="Snapshot")
    world.shards.broken[1] = "the store is away"
    await world.delete()
    failed = ("True", "BackupFailed")
    await world.until(lambda: conditions(world.cluster).get("Stalled") == failed)
    await world.kill()
    del world.shards.broken[1]
    world.start()
    await world.until(lambda: world.is_gone)


async def test_a_shard_that_is_away_is_waited_for_until_the_deadline() -> None:
    world = World()
    await world.engine(shards=2, deletionPolicy="Snapshot")
    pod = world.cluster.objects["Pod", "default", "shop-shard-1-0"]
    await world.cluster.replace(KINDS["Pod"], {**pod, "status": {}})
    await world.delete()
    for _ in range(5):
        await world.round()
    assert conditions(world.cluster)["Stalled"] == ("True", "ShardUnreachable")
    assert world.shards.asked == {0: 1}
    world.cluster.now = "2026-01-01T00:10:01Z"
    await world.until(lambda: world.is_gone)
    assert ("PersistentVolumeClaim", "default", "data-shop-shard-1-0") in world.cluster.objects


async def test_an_engine_without_shards_has_nothing_to_back_up() -> None:
    world = World()
    made = await engine(world.cluster, shards=1, deletionPolicy="Snapshot", backup=BACKUP)
    held = {**{one: made["metadata"][one] for one in ("name", "namespace", "uid")},
            "finalizers": [names.FINALIZER]}  # fmt: skip
    content = {"apiVersion": names.API_VERSION, "kind": "UltraEngine", "metadata": held}
    await world.cluster.apply(KINDS["UltraEngine"], content, manager=names.MANAGER)
    await world.delete()
    await world.until(lambda: world.is_gone)


def test_what_is_asked_does_not_depend_on_the_order_in_which_requests_are_seen() -> None:
    image = Image(shard=1, verified_at="2026-01-01T00:00:00Z")
    found = [
        SeenSnapshot("a", "u1", 1, None, (image,), is_over=False),
        SeenSnapshot("b", "u2", 1, 2, (), is_over=False),
        SeenSnapshot("c", "u3", 1, None, (), is_over=True),
        SeenSnapshot("d", "u0", 1, None, (), is_over=False),
        SeenSnapshot("e", "u4", 1, 9, (), is_over=False),
    ]
    for seed in range(20):
        random.Random(seed).shuffle(found)
        assert asks(found, (0, 1, 2), away=(2,)) == (Ask("u0", 0), Ask("u0", 1), Ask("u1", 0))


def test_an_image_that_was_not_read_back_is_none() -> None:
    content = {
        "metadata": {"name": "now", "uid": "u1"}, "spec": {"engine": "shop"},
        "status": {"shards": [{"shard": 1}, {"shard": 0, "verifiedAt": "t"}]},
    }  # fmt: skip
    seen = read_snapshot(content)
    assert [one.shard for one in seen.images] == [0]
    assert not seen.is_over
    assert Observed(backups=(Said(Ask("u", 0)),)) != Observed()
