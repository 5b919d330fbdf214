"""The map that a front of this machine goes by when a shard says WRONG_SHARD."""

from pathlib import Path

import msgspec
import pytest

from ultraengine.config import Config
from ultraengine.router.shard_map import ShardMap
from ultraengine.supervisor.driver import Machine, open_directory
from ultraengine.supervisor.layout import PATH, LayoutRefused, write_layout
from ultraengine_adapters.local.disk import LocalDisk


async def test_it_is_what_the_directory_says_now(tmp_path: Path) -> None:
    data, place = tmp_path / "data", tmp_path / "run"
    place.mkdir()
    data.mkdir()
    directory = open_directory(data, 2)
    assert directory is not None
    layout = directory.layout
    machine = Machine(Config(data=data, dev=True), directory, place)
    disk = LocalDisk(data)
    found = machine._newest_map()
    assert found is not None
    assert found[0] == layout.shard_map
    assert sorted(found[1]) == [0, 1]
    for count, version in ((2, 2), (3, 3)):
        shard_map = ShardMap.even(count, version=version)
        write_layout(disk, msgspec.structs.replace(layout, shard_map=shard_map))
        if count == 2:
            found = machine._newest_map()
            assert found is not None
            assert machine.links.adopt(*found)
            assert machine.links.shard_map.version == 2
        else:
            with pytest.raises(LayoutRefused, match="do not run here"):
                machine._newest_map()
    disk.remove(PATH)
    assert machine._newest_map() is None
    await machine.links.close()
