"""PostgreSQL keeps the contract of targets."""

from datetime import date, datetime
from pathlib import Path
from typing import Any

import pytest
from tests.servers.postgres import connection

from ultraengine.model.projection import ColumnType, Row, Table
from ultraengine.projection.postgres.dialect import PostgresDialect
from ultraengine.projection.postgres.driver import PostgresTarget
from ultraengine.projection.postgres.statements import instant
from ultraengine.testing.projection_targets import TargetContract

NUMBERS = {ColumnType.AMOUNT, ColumnType.TOTAL}


class TestPostgresTarget(TargetContract):
    @pytest.fixture(autouse=True)
    def database(self, postgres_url: str, tmp_path: Path) -> None:
        self.url = postgres_url
        self.nowhere = f"postgresql://nobody@/nothing?host={tmp_path}"

    async def make(self) -> PostgresTarget:
        return PostgresTarget("here", self.url)

    async def unreachable(self) -> PostgresTarget:
        return PostgresTarget("nowhere", self.nowhere)

    async def read(self, relation: str, table: Table) -> list[Row]:
        dialect = PostgresDialect()
        async with connection(self.url) as database:
            if await database.fetchval("SELECT to_regclass($1)", relation) is None:
                raise LookupError(relation)
            rows = await database.fetch(
                f"SELECT {dialect.names(table.names)} FROM {dialect.quote(relation)}"
            )
        kinds = [column.type for column in table.columns]
        return [tuple(map(plain, kinds, row)) for row in rows]


def plain(kind: ColumnType, value: Any) -> object:
    """As projections give it."""
    if isinstance(value, datetime):
        return instant(value)
    if isinstance(value, date):
        return value.toordinal() - date(1970, 1, 1).toordinal()
    return int(value) if kind in NUMBERS and value is not None else value
