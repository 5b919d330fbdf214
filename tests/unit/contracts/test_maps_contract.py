"""What every implementation of the coordinators' `Maps` does; the one on a real API server is in
`tests/e2e/api`."""

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from tests.unit.operator.memory import MemoryCluster

from ultraengine.model.ids import ShardId
from ultraengine.ports import OutcomeUnknown
from ultraengine.rebalancing.driver import MapFile, Maps
from ultraengine.router.shard_map import MapRefused, ShardMap
from ultraengine_operator.cluster import KINDS, Content, Refused
from ultraengine_operator.drivers.maps import ConfigMapMaps

FIRST = ShardMap.even(2)
ONE = ShardId(1)


def config_map(shard_map: ShardMap = FIRST, *, name: str = "shop-shardmap") -> Content:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": "default", "labels": {"of": "somebody"}},
        "data": {"map.json": shard_map.encode().decode()},
    }


class MapsContract:
    """Subclasses give several coordinators their views of one place with the first map."""

    @pytest.fixture
    def two(self, tmp_path: Path) -> Sequence[Maps]:
        raise NotImplementedError

    async def test_what_was_published_is_read(self, two: Sequence[Maps]) -> None:
        ours, theirs = two
        assert await ours.read() == FIRST
        second = FIRST.moved(0, ONE)
        assert await ours.swap(second)
        assert await ours.read() == second
        assert await theirs.read() == second
        assert await theirs.swap(second.moved(1, ONE))

    async def test_a_swap_lands_on_the_version_before_it_alone(self, two: Sequence[Maps]) -> None:
        ours, theirs = two
        second = FIRST.moved(0, ONE)
        assert not await ours.swap(second.moved(1, ONE))
        await ours.read()
        await theirs.read()
        assert await theirs.swap(second)
        assert not await ours.swap(FIRST.moved(5, ONE))
        assert not await ours.swap(FIRST)
        assert await ours.read() == second

    async def test_of_many_swaps_at_once_exactly_one_lands(self, two: Sequence[Maps]) -> None:
        for maps in two:
            await maps.read()
        wishes = [FIRST.moved(slot, ONE) for slot in range(8)]
        landed = await asyncio.gather(
            *(two[number % 2].swap(wish) for number, wish in enumerate(wishes))
        )
        assert landed.count(True) == 1
        assert await two[0].read() == wishes[landed.index(True)]


class TestMapFile(MapsContract):
    @pytest.fixture
    def two(self, tmp_path: Path) -> Sequence[Maps]:
        path = tmp_path / "map.json"
        path.write_bytes(FIRST.encode())
        return [MapFile(path), MapFile(path)]


class Faulty(MemoryCluster):
    """Refuses patches as told; `after`: once they are done."""

    def __init__(self) -> None:
        super().__init__()
        self.faults: list[Refused] = []
        self.after = False

    async def merge(self, *arguments: object, **more: object) -> Content:
        if self.faults and not self.after:
            raise self.faults.pop()
        done = await super().merge(*arguments, **more)  # type: ignore[arg-type]  # Handed on.
        if self.faults:
            raise self.faults.pop()
        return done


class TestConfigMap(MapsContract):
    @pytest.fixture
    async def cluster(self) -> Faulty:
        cluster = Faulty()
        await cluster.create(KINDS["ConfigMap"], config_map())
        return cluster

    @pytest.fixture
    def two(self, cluster: Faulty) -> Sequence[Maps]:
        return [ConfigMapMaps(cluster, "default", "shop") for _ in range(2)]

    async def test_what_else_is_in_the_object_stays(
        self, cluster: Faulty, two: Sequence[Maps]
    ) -> None:
        assert await two[0].swap(FIRST.moved(0, ONE))
        found = cluster.objects["ConfigMap", "default", "shop-shardmap"]
        assert found["metadata"]["labels"] == {"of": "somebody"}

    async def test_a_map_that_was_made_anew_is_not_the_one_that_was_read(
        self, cluster: Faulty, two: Sequence[Maps]
    ) -> None:
        await two[0].read()
        await cluster.delete(KINDS["ConfigMap"], "default", "shop-shardmap", uid=None)
        with pytest.raises(FileNotFoundError):
            await two[1].read()
        assert not await two[0].swap(FIRST.moved(0, ONE))
        again = await cluster.create(KINDS["ConfigMap"], config_map())
        assert again["metadata"]["uid"]
        assert await two[0].swap(FIRST.moved(0, ONE)), "it is read again, and then it is the same"

    async def test_a_uid_alone_tells_an_object_that_was_made_anew(
        self, cluster: Faulty, two: Sequence[Maps]
    ) -> None:
        await two[0].read()
        found = cluster.objects["ConfigMap", "default", "shop-shardmap"]
        found["metadata"]["uid"] = "another"
        assert not await two[0].swap(FIRST.moved(0, ONE))
        cluster.faults = [Refused(422, "for another reason")]
        with pytest.raises(PermissionError):
            await two[1].swap(FIRST.moved(0, ONE))

    async def test_one_that_was_labelled_meanwhile_is_read_again(
        self, cluster: Faulty, two: Sequence[Maps]
    ) -> None:
        await two[0].read()
        label = {"metadata": {"labels": {"a": "b"}}}
        await cluster.merge(KINDS["ConfigMap"], "default", "shop-shardmap", label)
        assert not await two[0].swap(FIRST.moved(0, ONE))
        assert await two[0].swap(FIRST.moved(0, ONE))

    @pytest.mark.parametrize("landed", [False, True])
    @pytest.mark.parametrize("status", [0, 500, 504])
    async def test_a_swap_without_an_answer_says_that_nothing_is_known(
        self, cluster: Faulty, two: Sequence[Maps], status: int, *, landed: bool
    ) -> None:
        cluster.faults, cluster.after = [Refused(status, "as told")], landed
        with pytest.raises(OutcomeUnknown):
            await two[0].swap(FIRST.moved(0, ONE))
        assert ((await two[0].read()).version == 2) is landed

    @pytest.mark.parametrize(("status", "error"), [(403, PermissionError), (429, ConnectionError)])
    async def test_a_refused_swap_was_not_done(
        self, cluster: Faulty, two: Sequence[Maps], status: int, error: type[OSError]
    ) -> None:
        cluster.faults = [Refused(status, "as told")]
        with pytest.raises(error) as refused:
            await two[0].swap(FIRST.moved(0, ONE))
        assert not isinstance(refused.value, OutcomeUnknown)
        assert await two[0].read() == FIRST

    async def test_a_read_that_fails_says_whether_it_may_pass(self) -> None:
        class Silent(MemoryCluster):
            status = 0

            async def get(self, *_: object) -> None:
                raise Refused(self.status, "as told")

        cluster = Silent()
        maps = ConfigMapMaps(cluster, "default", "shop")
        with pytest.raises(ConnectionError):
            await maps.read()
        cluster.status = 403
        with pytest.raises(PermissionError):
            await maps.read()

    async def test_what_is_no_map_is_refused(self, cluster: Faulty, two: Sequence[Maps]) -> None:
        wrong: Callable[[dict[str, str]], None] = cluster.objects[
            "ConfigMap", "default", "shop-shardmap"
        ]["data"].update
        wrong({"map.json": "{}"})
        with pytest.raises(MapRefused):
            await two[0].read()
        cluster.objects["ConfigMap", "default", "shop-shardmap"]["data"] = {}
        with pytest.raises(MapRefused, match="has no map"):
            await two[0].read()
