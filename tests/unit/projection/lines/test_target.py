"""A directory of lines keeps what of the contract is for every target."""

from pathlib import Path

import pytest

from ultraengine.model.projection import Row, Table
from ultraengine.projection.lines.driver import LinesTarget, confirmed_lines
from ultraengine.projection.lines.lines import rows_of
from ultraengine.testing.projection_sets import AnyTargetContract


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
