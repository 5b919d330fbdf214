"""SQLite keeps the contract of targets."""

from pathlib import Path

import pytest

from ultraengine.model.projection import Row, Table
from ultraengine.projection.sqlite.driver import SqliteTarget
from ultraengine.testing.projection_targets import TargetContract
from ultraengine.testing.sqlite_rows import read_rows


class TestSqliteTarget(TargetContract):
    @pytest.fixture(autouse=True)
    def directory(self, tmp_path: Path) -> None:
        self.path = tmp_path / "target.db"

    async def make(self) -> SqliteTarget:
        return SqliteTarget("here", f"sqlite:///{self.path}")

    async def unreachable(self) -> SqliteTarget:
        return SqliteTarget("nowhere", f"sqlite:///{self.path}/no/such/file.db")

    async def read(self, relation: str, table: Table) -> list[Row]:
        return read_rows(self.path, relation, table)
