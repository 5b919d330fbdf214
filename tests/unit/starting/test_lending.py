"""What a shard lends is enough to decide its log again, and one candidate at a time is lent to."""

import asyncio
from pathlib import Path

import pytest
from tests.unit.shard.test_shard import Rig

from ultraengine.log.segment import HEADER_BYTES
from ultraengine.log.survey import segment_paths
from ultraengine.model.errors import EngineError
from ultraengine.replication.installing.offer import OFFER, Offered, Piece, Withdrawn
from ultraengine.starting.borrowing.parts import check_part
from ultraengine.starting.lending.driver import Lending
from ultraengine.starting.lending.stock import LentFiles
from ultraengine_adapters.local.clock import SystemClock
from ultraengine_adapters.local.disk import LocalDisk
from ultraengine_adapters.local.secrets import FileSecrets

KEYS = FileSecrets(None, {})


@pytest.fixture
async def place(tmp_path: Path) -> Path:
    """The directory of a shard with three segments and a snapshot in the last."""
    made = Rig(tmp_path / "from")
    for number in range(3):
        await made.start()
        for delta in range(4):
            await made.add(delta + number)
        await made.shard.rest()
        if number == 2:
            await made.snapshots.take()
        await made.shard.stop()
    return tmp_path / "from"


def files(place: Path) -> LentFiles:
    return LentFiles(LocalDisk(place), KEYS)


def lending(place: Path, **options: float) -> Lending:
    return Lending(LocalDisk(place), KEYS, SystemClock(), 0, **options)


async def test_a_whole_log_is_lent_without_any_state(place: Path) -> None:
    segments = [path for _, path in segment_paths(LocalDisk(place))]
    good = (place / segments[-1]).stat().st_size
    with (place / segments[-1]).open("ab") as being_written:
        being_written.write(b"half a frame" + bytes(4_096))
    taken = files(place).take()
    assert taken is not None
    paths = [check_part(one.part) for one in taken.parts]
    assert paths == ["IDENTITY", *segments]
    for one in taken.parts:
        content = one.read(0, one.part.size + 1)
        assert len(content) == one.part.size
        assert (place / one.part.path).read_bytes().startswith(content)
    # Of the segment that is written there is what is good, and nothing behind it.
    assert HEADER_BYTES < taken.parts[-1].part.size == good
    taken.close()


async def test_a_log_that_begins_late_is_lent_with_the_oldest_state_and_the_history(
    place: Path,
) -> None:
    segments = [path for _, path in segment_paths(LocalDisk(place))]
    (place / segments[0]).unlink()
    taken = files(place).take()
    assert taken is not None
    paths = [check_part(one.part) for one in taken.parts]
    assert [path for path in paths if path.startswith("log/")] == segments[1:]
    assert sum(path.endswith(".full") for path in paths) == 1
    assert any(path.startswith("history/") for path in paths)
    assert paths[-1] == "snapshots/MANIFEST"
    taken.close()


async def test_nothing_is_lent_where_no_state_leads_to_the_log(place: Path) -> None:
    (place / segment_paths(LocalDisk(place))[0][1]).unlink()
    manifest = place / "snapshots" / "MANIFEST"
    manifest.write_bytes(b"no manifest")
    with pytest.raises(OSError, match="checksum"):
        files(place).take()
    manifest.unlink()
    with pytest.raises(FileNotFoundError):
        files(place).take()
    with pytest.raises(FileNotFoundError):
        files(place.parent).take()
    assert files(place).prove("", 0)


async def test_a_segment_without_a_good_header_is_told(place: Path) -> None:
    last = place / segment_paths(LocalDisk(place))[-1][1]
    last.write_bytes(b"\0" * 8_192)
    with pytest.raises(OSError, match="log/"):
        files(place).take()
    with pytest.raises(EngineError) as caught:
        await lending(place).ask(1, OFFER, 0)
    assert caught.value.code == "SHARD_UNAVAILABLE"


async def lent(from_: Lending, attempt: int) -> dict[str, bytes]:
    """Everything that one candidate is given."""
    offered = await from_.ask(attempt, OFFER, 0)
    assert isinstance(offered, Offered)
    found: dict[str, bytes] = {}
    for number, part in enumerate(offered.parts):
        content = b""
        while True:
            piece = await from_.ask(attempt, number, len(content))
            assert isinstance(piece, Piece)
            content += piece.data
            if piece.digest:
                break
        found[part.path] = content
    return found


async def test_one_candidate_at_a_time_is_lent_to(place: Path) -> None:
    shard = lending(place)
    assert isinstance(await shard.ask(1, OFFER, 0), Offered)
    with pytest.raises(EngineError) as caught:
        await shard.ask(2, OFFER, 0)
    assert (caught.value.code, caught.value.problem.retryable) == ("OVERLOADED", True)
    first = await lent(shard, 1)
    # Who has everything makes room for the next one.
    assert await lent(shard, 2) == first
    assert isinstance(await shard.ask(2, 0, 0), Withdrawn)
    shard.close()


async def test_who_asks_out_of_turn_is_told_to_begin_anew(place: Path) -> None:
    shard = lending(place)
    await shard.ask(1, OFFER, 0)
    assert isinstance(await shard.ask(1, 2, 77), Withdrawn)
    shard.close()


async def test_who_asks_no_more_is_not_waited_for(place: Path) -> None:
    shard = lending(place, idle_s=0.01)
    await shard.ask(1, OFFER, 0)
    while True:
        try:
            assert isinstance(await shard.ask(2, OFFER, 0), Offered)
            break
        except EngineError:
            await asyncio.sleep(0.005)
    shard.close()
