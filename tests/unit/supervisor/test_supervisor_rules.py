"""What a directory may be started as, what a shard's process is told, and when it starts again."""

import asyncio
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ultraengine.config import Config
from ultraengine.model.errors import InvariantBroken
from ultraengine.model.ids import ShardId
from ultraengine.model.limits import DEFAULT_LIMITS, Limits
from ultraengine.router.shard_map import ShardMap
from ultraengine.shard.ownership import read_ownership
from ultraengine.supervisor.child.driver import ChildProcess, ProcessView, exit_name
from ultraengine.supervisor.driver import make_place, open_directory
from ultraengine.supervisor.environment import environment, shard_config
from ultraengine.supervisor.layout import (
    Found,
    Layout,
    LayoutRefused,
    decode_layout,
    encode_layout,
    settle,
    to_run,
)
from ultraengine.supervisor.projecting.driver import worker_arguments
from ultraengine.supervisor.restarts import LONGEST_S, STABLE_S, delay_s, failures_after
from ultraengine_adapters.local.disk import LocalDisk

UID = "0f" * 16


def whole(count: int, *, has_log: bool = True) -> tuple[bytes, dict[ShardId, Found]]:
    layout = Layout(UID, ShardMap.even(count))
    shards = layout.shard_map.shards
    return encode_layout(layout), {s: Found(layout.ownership(s), has_log) for s in shards}


# --- the projection worker beside an engine ---------------------------------------------------


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("127.0.0.1", "http://127.0.0.1:9000"),
        ("0.0.0.0", "http://127.0.0.1:9000"),  # noqa: S104  (compared, not listened on)
        ("::", "http://[::1]:9000"),
        ("::1", "http://[::1]:9000"),
    ],
)
def test_a_worker_is_told_where_its_engine_is_near(host: str, address: str, tmp_path: Path) -> None:
    arguments = worker_arguments(Config(data=tmp_path, domains=("a.b:C",)), host, 9000)
    assert arguments[arguments.index("--engine") + 1] == address
    assert arguments[arguments.index("--target") + 1] == f"sqlite:///{tmp_path}/sql/projection.db"
    assert arguments[arguments.index("--domain") + 1] == "a.b:C"
    assert "--end-with-input" in arguments
    assert "--extensions" not in arguments


def test_a_worker_has_the_extensions_of_its_engine(tmp_path: Path) -> None:
    arguments = worker_arguments(Config(data=tmp_path, extensions="a.b:E"), "127.0.0.1", 9000)
    assert arguments[arguments.index("--extensions") + 1] == "a.b:E"


async def test_a_process_that_ends_is_started_again_until_it_is_stopped() -> None:
    child = ChildProcess("child", ["--version"], environment(Config(), {}, Path()), {})
    assert child.view == ProcessView(None, 0, None)
    task = asyncio.create_task(child.run())
    async with asyncio.timeout(120):
        while child.view.restarts < 2:  # noqa: ASYNC110  (a process ends by itself)
            await asyncio.sleep(0.01)
    assert child.view.last_exit == "exit code 0 (OK)"
    await child.stop(10.0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert child.view.pid is None


# --- directories ------------------------------------------------------------------------------


def test_a_new_directory_gets_as_many_shards_as_are_asked_for_and_one_by_default() -> None:
    assert settle(None, {}, None, UID) == (None, False)
    assert settle(None, {}, 1, UID) == (None, False)
    assert settle(None, {}, 3, UID) == (Layout(UID, ShardMap.even(3)), True)


@pytest.mark.parametrize("wanted", [None, 3])
def test_a_directory_is_started_with_the_shards_that_it_has(wanted: int | None) -> None:
    content, found = whole(3)
    layout, is_new = settle(content, found, wanted, "00" * 16)
    assert layout is not None
    assert (layout.engine_uid, layout.shard_map, is_new) == (UID, ShardMap.even(3), False)


@pytest.mark.parametrize(("wanted", "runs"), [(None, 3), (1, 3), (2, 3), (4, 4)])
def test_another_number_of_shards_runs_beside_those_that_have_slots(
    wanted: int | None, runs: int
) -> None:
    content, found = whole(3)
    layout, is_new = settle(content, found, wanted, UID)
    assert layout is not None
    assert not is_new
    assert to_run(layout, found, wanted) == tuple(range(runs))


def test_shards_that_were_left_empty_run_until_their_directory_is_removed() -> None:
    _, found = whole(3)
    layout = Layout(UID, ShardMap.even(2, version=9))
    assert to_run(layout, found, None) == (0, 1, 2)
    del found[ShardId(2)]
    assert to_run(layout, found, None) == (0, 1)


def test_a_new_shard_does_not_take_over_the_log_of_another_engine() -> None:
    content, found = whole(2)
    other = Layout("aa" * 16, ShardMap.even(3)).ownership(ShardId(2))
    found[ShardId(2)] = Found(other, has_log=True)
    layout, _ = settle(content, found, 3, UID)
    assert layout is not None
    assert to_run(layout, found, None) == (0, 1)
    with pytest.raises(LayoutRefused, match="shard-0002 holds a log of another engine"):
        to_run(layout, found, 3)


def test_a_directory_of_one_shard_stays_one_until_more_are_wanted() -> None:
    found = {ShardId(0): Found(None, has_log=True)}
    assert settle(None, found, None, UID) == (None, False)
    assert settle(None, found, 1, UID) == (None, False)
    alone = Layout(UID, ShardMap.even(1))
    assert settle(None, found, 2, UID) == (alone, True)
    halfway = {ShardId(0): Found(alone.ownership(ShardId(0)), has_log=True)}
    for wanted in (None, 2):
        assert settle(None, halfway, wanted, "00" * 16) == (alone, True)


def test_a_directory_that_was_being_made_is_made_again() -> None:
    _, found = whole(3, has_log=False)
    assert settle(None, found, 3, UID) == (Layout(UID, ShardMap.even(3)), True)
    assert settle(None, found, 2, UID) == (Layout(UID, ShardMap.even(2)), True)
    assert settle(None, found, None, UID) == (Layout(UID, ShardMap.even(1)), True)


def test_logs_without_the_map_that_they_belong_to_are_not_started() -> None:
    _, found = whole(3)
    with pytest.raises(LayoutRefused, match="holds shard-0000, shard-0001, shard-0002 and no SHAR"):
        settle(None, found, 3, UID)
    with pytest.raises(LayoutRefused, match="no SHARDS"):
        settle(None, {ShardId(0): found[ShardId(0)]}, None, UID)
    with pytest.raises(LayoutRefused, match="no SHARDS"):
        settle(None, {ShardId(1): Found(None, has_log=True)}, None, UID)


def test_a_lost_shard_is_not_replaced_by_an_empty_one() -> None:
    content, found = whole(3)
    without = {shard: one for shard, one in found.items() if shard != 1}
    with pytest.raises(LayoutRefused, match="shard-0001 is missing"):
        settle(content, without, 3, UID)
    with pytest.raises(LayoutRefused, match="shard-0001 is missing or has no SLOTS"):
        settle(content, {**found, ShardId(1): Found(None, has_log=True)}, 3, UID)


def test_shards_of_another_engine_are_not_mixed_in() -> None:
    content, found = whole(3)
    for other in (
        Layout("aa" * 16, ShardMap.even(3)).ownership(ShardId(1)),
        Layout(UID, ShardMap.even(3)).ownership(ShardId(2)),
    ):
        mixed = {**found, ShardId(1): Found(other, has_log=True)}
        with pytest.raises(LayoutRefused, match="shard-0001 belongs to another"):
            settle(content, mixed, 3, UID)


def test_what_a_shard_owned_at_first_may_be_older_than_the_map() -> None:
    content, found = whole(3)
    first = Layout(UID, ShardMap.even(2)).ownership(ShardId(1))
    layout, _ = settle(content, {**found, ShardId(1): Found(first, has_log=True)}, 3, UID)
    assert layout is not None
    assert layout.shard_map == ShardMap.even(3)


@pytest.mark.parametrize("wanted", [0, -1, 65])
def test_a_machine_has_so_many_shards(wanted: int) -> None:
    with pytest.raises(LayoutRefused, match="1 to 64"):
        settle(None, {}, wanted, UID)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{}",
        encode_layout(Layout("zz" * 16, ShardMap.even(2))),
        encode_layout(Layout("0f", ShardMap.even(2))),
        encode_layout(Layout(UID, ShardMap(0, ()))),
    ],
)
def test_a_file_that_cannot_be_read_is_no_layout(content: bytes) -> None:
    with pytest.raises(LayoutRefused, match="SHARDS cannot be read"):
        decode_layout(content)


def test_a_directory_is_made_once_and_found_again(tmp_path: Path) -> None:
    made = open_directory(tmp_path, 2)
    assert made is not None
    assert (tmp_path / "shard-0001" / "SLOTS").exists()
    (tmp_path / "shard-0001" / "IDENTITY").touch()
    (tmp_path / "notes").mkdir()
    again = open_directory(tmp_path, None)
    assert again is not None
    assert (again.layout, again.shards) == (made.layout, made.shards)
    grown = open_directory(tmp_path, 3)
    assert grown is not None
    assert (grown.layout, grown.shards, grown.wanted) == (made.layout, (0, 1, 2), 3)
    assert read_ownership(LocalDisk(tmp_path / "shard-0002")) == made.layout.ownership(ShardId(2))
    (tmp_path / "shard-0000" / "SLOTS").write_bytes(b"")
    with pytest.raises(InvariantBroken):
        open_directory(tmp_path, 2)
    assert open_directory(tmp_path / "other", None) is None


# --- processes --------------------------------------------------------------------------------


def test_a_shard_reads_from_its_environment_what_its_front_meant(tmp_path: Path) -> None:
    limits = Limits(tenant_commands_per_s=5.0, segment_bytes=64 * 2**20, reply_wait_s=2.5)
    config = Config(
        data=tmp_path / "d",
        domains=("a.b:C", "d.e:F"),
        durability="group",
        compress=True,
        archive=str(tmp_path / "archive"),
        compaction="time",
        api_keys=tmp_path / "keys",
        tracing=True,
        limits=limits,
        dev=True,
    )
    shard = shard_config(config, ShardId(3), socket=tmp_path / "3.sock", hop_key=tmp_path / "hop")
    inherited = {"HOME": "/h", "ULTRA_PORT": "9", "ULTRA_LIMIT_DRAIN_S": "1", "PYTHONPATH": "/p"}
    variables = environment(shard, inherited, Path("/mine"))
    assert Config.from_env(variables) == shard
    assert (variables["HOME"], variables["PYTHONPATH"]) == ("/h", "/mine:/p")
    assert (shard.shard, shard.api_keys, shard.tracing) == (3, None, False)
    assert shard.archive == str(tmp_path / "archive" / "shard-0003")
    assert shard.limits.tenant_commands_per_s == 0
    assert shard.limits.reply_wait_s == 2.5
    assert shard.limits.batch_bytes_max > limits.batch_bytes_max


def test_what_is_not_set_is_not_handed_on(tmp_path: Path) -> None:
    config = shard_config(Config(), ShardId(0), socket=tmp_path / "s", hop_key=tmp_path / "k")
    variables = environment(config, {}, Path("/mine"))
    assert config.archive is None
    assert variables["PYTHONPATH"] == "/mine"
    assert sorted(name for name in variables if name.startswith("ULTRA_")) == [
        "ULTRA_END_WITH_INPUT",
        "ULTRA_HOP_KEY",
        "ULTRA_LIMIT_BATCH_BYTES_MAX",
        "ULTRA_SOCKET",
    ]
    assert msgspec.structs.replace(config.limits, batch_bytes_max=DEFAULT_LIMITS.batch_bytes_max)


@given(st.integers(0, 10_000))
def test_a_process_that_keeps_failing_is_started_ever_more_slowly_and_never_given_up(
    failures: int,
) -> None:
    assert 0 < delay_s(failures) <= delay_s(failures + 1) <= LONGEST_S
    assert failures_after(failures, 0.0) == failures + 1
    assert failures_after(failures, STABLE_S) == 0


def test_an_exit_is_named_by_what_it_means() -> None:
    assert exit_name(71) == "exit code 71 (LOG_DAMAGED)"
    assert exit_name(-9) == "killed by SIGKILL"
    assert exit_name(3) == "exit code 3"
    assert exit_name(-200) == "killed by signal 200"


@pytest.mark.parametrize("depth", [0, 100])
def test_sockets_are_where_their_paths_are_short_and_for_this_user_alone(
    tmp_path: Path, depth: int
) -> None:
    temporary = tmp_path / ("x" * depth)
    temporary.mkdir(exist_ok=True)
    place = make_place(temporary)
    try:
        assert len(str(place / "4095.sock")) < 108
        assert place.stat().st_mode & 0o777 == 0o700
    finally:
        place.rmdir()


def test_the_shards_behind_a_front_have_its_keys_and_nobody_else_has() -> None:
    inherited = {"ULTRA_SECRET_DISK_2025": "hex:06", "ULTRA_SECRET_DISK_2026": "hex:07"}
    config = Config(master_key="disk-2026")
    shard = environment(config, inherited, Path("/mine"), secrets=True)
    assert inherited.items() <= shard.items()
    assert not inherited.keys() & environment(config, inherited, Path("/mine")).keys()
