"""A trial that is killed in its middle: run by `test_databases` with a target's URL."""

import asyncio
import sys

from ultraengine.advice.driver import open_database
from ultraengine.domains.ledger.tables import TRANSFER
from ultraengine.model.limits import DEFAULT_ADVICE_LIMITS


async def until_killed(url: str) -> None:
    """Copies a table, makes an index there, says so, and waits."""
    database = open_database(url)
    await database.open()
    (of,) = await database.sets()
    async with database.copy(of, TRANSFER, DEFAULT_ADVICE_LIMITS) as copy:
        await copy.add(("tenant", "book", "code"))
        sys.stdout.write("indexed\n")
        sys.stdout.flush()
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(until_killed(sys.argv[1]))
