"""A directory of lines keeps what of the contract is for every target."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

from ultraengine.model.errors import InvariantBroken
from ultraengine.model.ids import Epoch, Instant, Offset
from ultraengine.model.projection import Row, Table
from ultraengine.projection.lines.driver import LinesTarget, confirmed_lines
from ultraengine.projection.lines.lines import rows_of
from ultraengine.projection.target import (
    START,
    Checkpoint,
    Moved,
    RowRefused,
    TargetUnavailable,
)
from ultraengine.testing.projection_sets import (
    NOW,
    SHARD,
    AnyTargetContract,
    at,
    batch_of,
    facts,
    moved,
)
from ultraengine.testing.projection_tables import (
    DAILY,
    DAY_US,
    FACT,
    PROBE,
    STATE,
    VISIT,
    MemoryTables,
    fact,
    random_step,
)


class TestLinesTarget(AnyTargetContract):
    @pytest.fixture(autouse=True)
    def directory(self, tmp_path: Path) -> None:
        self.root = tmp_path / "lines"

    async def make(self) -> LinesTarget:
        return LinesTarget("here", f"lines:///{self.root}")

    async def unreachable(self) -> LinesTarget:
        return LinesTarget("nowhere", f"lines:///{self.root}/no/such/parent")

    async def read(self, relation: str, table: Table) -> list[Row]:
        projection, _, rest = relation.partition("_")
        directory = self.root / f"{projection}__{rest.rpartition('__')[2]}"
        if not (directory / table.name).exists():
            raise LookupError(relation)
        return rows_of(table, confirmed_lines(directory, table))


@pytest.fixture
async def target(tmp_path: Path) -> AsyncIterator[LinesTarget]:
    target = LinesTarget("here", f"lines:///{tmp_path / 'lines'}")
    await target.open()
    yield target
    await target.close()


@pytest.fixture
def build(tmp_path: Path) -> Path:
    return tmp_path / "lines" / "probe__v1_b1"


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


@pytest.mark.parametrize("url", ["lines:///", "lines://host/x", "sqlite:///x"])
def test_a_url_names_a_directory(url: str) -> None:
    with pytest.raises(InvariantBroken, match="lines:///directory"):
        LinesTarget("x", url)


async def test_rows_are_lines_by_the_day_of_their_booking(target: LinesTarget, build: Path) -> None:
    of = await target.create(PROBE, 1, NOW)
    await target.write(of, PROBE, facts(fact(1, amount=10**30)), moved(0, 1))
    tomorrow = Checkpoint(Offset(2), Epoch(1), Instant(NOW + DAY_US))
    change = ("change", "state", ("t", "a"), {"paid": 5, "note": None})
    put = ("put", "known", ("t", "é"), None)
    await target.write(of, PROBE, batch_of(change, put), [Moved(SHARD, at(1), tomorrow)])
    (line,) = lines(build / "fact" / "2026-01-01.jsonl")
    assert (line["n"], line["amount"], line["time"]) == (1, str(10**30), NOW + 1)
    assert lines(build / "state" / "2026-01-02.jsonl") == [
        {"_op": "change", "tenant": "t", "name": "a", "paid": "5", "note": None}
    ]
    assert lines(build / "known" / "2026-01-02.jsonl") == [
        {"_op": "put", "tenant": "t", "name": "é"}
    ]
    schema = json.loads((build / "schema.json").read_bytes())
    assert [table["name"] for table in schema["tables"]] == [table.name for table in PROBE.tables]


@pytest.mark.parametrize("seed", range(3))
async def test_a_reader_that_folds_lines_has_what_a_database_would_have(
    target: LinesTarget, build: Path, seed: int
) -> None:
    random, known = Random(seed), set[Any]()
    of = await target.create(PROBE, 1, NOW)
    expected = MemoryTables(PROBE.tables)
    for number in range(6):
        batch = batch_of(*(random_step(random, known) for _ in range(12)))
        expected.write(batch)
        await target.write(of, PROBE, batch, moved(number, number + 1))
    for table in (STATE, DAILY):
        assert rows_of(table, confirmed_lines(build, table)) == expected.rows(table.name)


async def test_what_a_crash_has_left_is_cut(target: LinesTarget, build: Path) -> None:
    of = await target.create(PROBE, 1, NOW)
    await target.write(of, PROBE, facts(fact(1)), moved(0, 1))
    file = build / "fact" / "2026-01-01.jsonl"
    whole = file.read_bytes()
    file.write_bytes(whole + whole + b'{"torn')
    (build / "visit" / "2026-01-01.jsonl").write_bytes(whole)
    assert list(confirmed_lines(build, FACT)) == [whole]
    await target.open()
    assert file.read_bytes() == whole
    assert list((build / "visit").iterdir()) == []
    file.write_bytes(whole + b'{"torn')
    await target.write(of, PROBE, facts(fact(2)), moved(1, 2))
    assert [line["n"] for line in lines(file)] == [1, 2]


async def test_a_file_that_lost_lines_is_damage_and_one_taken_away_is_none(
    target: LinesTarget, build: Path
) -> None:
    of = await target.create(PROBE, 1, NOW)
    await target.write(of, PROBE, facts(fact(1), fact(2)), moved(0, 1))
    file = build / "fact" / "2026-01-01.jsonl"
    whole = file.read_bytes()
    file.write_bytes(whole[:-1])
    with pytest.raises(TargetUnavailable, match="its checkpoint says"):
        await target.write(of, PROBE, facts(fact(3)), moved(1, 2))
    file.unlink()
    assert (await target.checksums(of, [FACT]))["fact"].rows == 0
    await target.write(of, PROBE, facts(fact(3)), moved(1, 2))
    assert [line["n"] for line in lines(file)] == [3]
    assert (await target.checksums(of, [FACT, STATE])).keys() == {"fact"}


async def test_a_damaged_checkpoint_is_unavailable(target: LinesTarget, build: Path) -> None:
    of = await target.create(PROBE, 1, NOW)
    (build / "checkpoint.json").write_text("{torn")
    with pytest.raises(TargetUnavailable, match=r"checkpoint\.json"):
        await target.positions(of)


async def test_a_row_that_no_line_holds_is_refused(target: LinesTarget, build: Path) -> None:
    of = await target.create(PROBE, 1, NOW)
    for row in (fact(1)[:-1], fact(1, text="\ud800"), fact(1, json=object())):
        with pytest.raises(RowRefused, match="table fact"):
            await target.write(of, PROBE, facts(fact(5), row), moved(0, 1))
    assert await target.positions(of) == {}
    assert list((build / "fact").iterdir()) == []


async def test_a_directory_that_went_away_is_unavailable(
    target: LinesTarget, tmp_path: Path
) -> None:
    (tmp_path / "lines").rename(tmp_path / "elsewhere")
    with pytest.raises(TargetUnavailable, match="lines"):
        await target.sets()
    (tmp_path / "elsewhere").rename(tmp_path / "lines")
    assert await target.sets() == []


async def test_the_link_shows_the_set_that_serves(target: LinesTarget, build: Path) -> None:
    link = build.parent / "probe"
    first = await target.create(PROBE, 1, NOW)
    second = await target.create(PROBE, 2, NOW)
    for of in (first, second, first):
        await target.serve(of, PROBE, NOW)
        assert link.resolve().name == f"probe__{of.suffix}"


async def test_aggregates_are_left_to_the_reader(target: LinesTarget) -> None:
    assert not target.exactly_once
    of = await target.create(PROBE, 1, NOW)
    await target.write(of, PROBE, batch_of(("put", "daily", ("t", "a", 0, 1, 1), None)),
                       moved(0, 1))  # fmt: skip
    assert await target.refresh(of, PROBE, 5) == 0


async def test_files_of_days_past_their_keep_go(target: LinesTarget, build: Path) -> None:
    of = await target.create(PROBE, 1, NOW)
    before = START
    for number, days in enumerate((-40, -31, 0)):
        after = Checkpoint(Offset(number + 1), Epoch(1), Instant(NOW + days * DAY_US))
        visit = ("append", "visit", ("t", number, after.time, 0), None)
        rows = batch_of(visit, ("append", "fact", fact(number), None))
        await target.write(of, PROBE, rows, [Moved(SHARD, before, after)])
        before = after
    for _ in range(2):
        await target.keep(of, PROBE, NOW)
        assert sorted(file.name for file in (build / "visit").iterdir()) == [
            "2025-12-01.jsonl", "2026-01-01.jsonl",
        ]  # fmt: skip
        assert len(list((build / "fact").iterdir())) == 3
    assert len(rows_of(VISIT, confirmed_lines(build, VISIT))) == 2
