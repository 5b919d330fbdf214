"""What the tests of reads over SQL share."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.unit.domains.ledger.conftest import LedgerBench
from tests.unit.query.serving import Served, serve
from tests.unit.query.world import Asking, Tables, small, sqlite_reader


@pytest.fixture
def bench() -> LedgerBench:
    """An empty ledger."""
    return LedgerBench()


@pytest.fixture
async def tables(tmp_path: Path) -> AsyncIterator[Tables]:
    """Empty tables in a file."""
    made = Tables(tmp_path / "tables.db")
    await made.open()
    yield made
    await made.close()


@pytest.fixture
async def get(tables: Tables) -> AsyncIterator[Asking]:
    """Asks the tables."""
    reader = sqlite_reader(tables.path)
    await reader.open()
    yield Asking(reader)
    await reader.close()


@pytest.fixture
async def served(bench: LedgerBench, tables: Tables) -> AsyncIterator[Served]:
    """A process over a small ledger of the tenant `default`, and the ledger's bench."""
    small(bench, "default")
    await tables.follow(bench)
    made = await serve(tables.path)
    yield made
    await made.end()
