"""SQLite keeps the contract of targets."""

from pathlib import Path

import pytest

from ultraengine.model.projection import ColumnType, Row, Table
from ultraengine.projection.sqlite.dialect import SqliteDialect
from ultraengine.projection.sqlite.driver import SqliteTarget
from ultraengine.projection.sqlite.store.driver import connect
from ultraengine.testing.projection_targets import TargetContract

NUMBERS = {ColumnType.AMOUNT, ColumnType.TOTAL}


class TestSqliteTarget(TargetContract):
    @pytest.fixture(autouse=True)
    def directory(self, tmp_path: Path) -> None:
        self.path = tmp_path / "target.db"

    async def make(self) -> SqliteTarget:
        return SqliteTarget("here", f"sqlite:///{self.path}")

    async def unreachable(self) -> SqliteTarget:
        return SqliteTarget("nowhere", f"sqlite:///{self.path}/no/such/file.db")

    async def read(self, relation: str, table: Table) -> list[Row]:
        connection = connect(f"file:{self.path}?mode=ro", uri=True)
        try:
            there = connection.execute("SELECT 1 FROM sqlite_schema WHERE name = ?", (relation,))
            if there.fetchone() is None:
                raise LookupError(relation)
            dialect = SqliteDialect()
            columns, name = dialect.names(table.names), dialect.quote(relation)
            rows = connection.execute(f"SELECT {columns} FROM {name}").fetchall()
        finally:
            connection.close()
        kinds = [column.type for column in table.columns]
        return [tuple(map(plain, kinds, row)) for row in rows]


def plain(kind: ColumnType, value: object) -> object:
    if value is None:
        return None
    if kind is ColumnType.BOOLEAN:
        return bool(value)
    return int(str(value)) if kind in NUMBERS else value
