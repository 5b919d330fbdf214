"""The MySQL target on a real MariaDB: the contract, and what is particular to it."""

from collections.abc import Sequence
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any, ClassVar

import pytest
from tests.servers.mariadb import MariadbServer, connection

from ultraengine.model.projection import Column, ColumnType, Row, Table
from ultraengine.projection.mysql.driver import MysqlTarget
from ultraengine.projection.mysql.values import EPOCH, EPOCH_DAY
from ultraengine.projection.target import Target
from ultraengine.testing.projection_targets import TargetContract


def given(column: Column, value: Any) -> Any:
    """A value as a projection gave it."""
    if value is None:
        return None
    if column.type is ColumnType.BOOLEAN:
        return {0: False, 1: True}[value]
    if isinstance(value, datetime):
        return (value - EPOCH) // timedelta(microseconds=1)
    if isinstance(value, date):
        return (value - EPOCH_DAY).days
    if isinstance(value, Decimal):
        assert value == int(value)
        return int(value)
    return value


async def read(server: MariadbServer, database: str, relation: str, table: Table) -> list[Row]:
    async with connection(server, database) as plain:
        names = await plain.run(
            "SELECT table_name FROM information_schema.tables"
            f" WHERE table_schema = '{database}' AND table_name = '{relation}'"
        )
        if not names:
            raise LookupError(relation)
        columns = ", ".join(f"`{name}`" for name in table.names)
        rows: Sequence[Any] = await plain.run(f"SELECT {columns} FROM `{relation}`")
    return [
        tuple(given(column, value) for column, value in zip(table.columns, row, strict=True))
        for row in rows
    ]


class TestMysqlTarget(TargetContract):
    """With MariaDB's bulk command."""

    options: ClassVar[dict[str, str]] = {}

    @pytest.fixture(autouse=True)
    def _database(self, mariadb_server: MariadbServer, mariadb_database: str) -> None:
        self.server, self.database = mariadb_server, mariadb_database

    async def make(self) -> Target:
        return MysqlTarget("probe", self.server.url(self.database, **self.options))

    async def unreachable(self) -> Target:
        return MysqlTarget("probe", f"mysql://root@/{self.database}?socket=/nowhere/at/all")

    async def read(self, relation: str, table: Table) -> list[Row]:
        return await read(self.server, self.database, relation, table)


class TestMysqlTargetWithoutTheBulkCommand(TestMysqlTarget):
    """As MySQL has it: long lists of parameters."""

    options: ClassVar = {"bulk": "0"}
