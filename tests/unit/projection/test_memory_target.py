"""The target in memory keeps the contract of targets: what is true beside it is true beside all."""

import pytest

from ultraengine.model.projection import Row, Table
from ultraengine.testing.memory_target import MemoryDatabase, MemoryTarget
from ultraengine.testing.projection_targets import TargetContract


class TestMemoryTarget(TargetContract):
    @pytest.fixture(autouse=True)
    def database_of_this_test(self) -> None:
        self.database = MemoryDatabase()

    async def make(self) -> MemoryTarget:
        return MemoryTarget("here", self.database)

    async def unreachable(self) -> MemoryTarget:
        away = MemoryDatabase()
        away.away = True
        return MemoryTarget("nowhere", away)

    async def read(self, relation: str, table: Table) -> list[Row]:
        return self.database.rows(relation)
