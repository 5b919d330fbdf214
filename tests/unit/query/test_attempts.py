"""Whatever becomes of an attempt, the next one is let through once the database is back."""

import asyncio
from typing import TypeVar

import pytest

from ultraengine.domains.ledger.domain import DOMAIN
from ultraengine.model.errors import EngineError
from ultraengine.model.ids import Instant
from ultraengine.model.limits import DEFAULT_LIMITS
from ultraengine.query.cursor import Cursors
from ultraengine.query.driver import SqlReads
from ultraengine.query.metrics import QueryMetrics
from ultraengine.query.reader import ReaderUnavailable, Talk
from ultraengine.query.readers.sqlite.dialect import SqliteReadDialect
from ultraengine.testing.sim_clock import SimClock
from ultraengine_adapters.local.random import SystemRandom

T = TypeVar("T")
LEDGER = DOMAIN.projections[0]


class Moody:
    """A `Reader` of a database that is away, hangs, has a fault of ours, or is there and empty."""

    dialect = SqliteReadDialect()

    def __init__(self) -> None:
        self.mood = "away"
        self.asked = asyncio.Event()

    async def open(self) -> None:
        """Nothing."""

    async def close(self) -> None:
        """Nothing."""

    async def run(self, tenant: str, talk: "Talk[T]", timeout_s: float) -> T:
        """As the mood is."""
        self.asked.set()
        if self.mood == "away":
            raise ReaderUnavailable("away")
        if self.mood == "hangs":
            await asyncio.Event().wait()
        if self.mood == "fault":
            raise ZeroDivisionError
        next(talk)
        try:
            talk.send([(LEDGER.version, 1, None, None, None)])
        except StopIteration as ended:
            found: T = ended.value
            return found
        raise AssertionError("a look asks once")


@pytest.mark.parametrize("mood", ["hangs", "fault"])
async def test_an_attempt_that_ends_without_a_verdict_does_not_bar_the_way(mood: str) -> None:
    clock, reader = SimClock(Instant(0)), Moody()
    reads = SqlReads(
        reader,
        limits=DEFAULT_LIMITS,
        cursors=Cursors(b"s" * 32),
        clock=clock,
        random=SystemRandom(),
        metrics=QueryMetrics(),
    )
    with pytest.raises(EngineError):
        await reads.look(LEDGER)
    clock.advance(60.0)
    reader.mood = mood
    reader.asked.clear()
    attempt = asyncio.create_task(reads.look(LEDGER))
    await reader.asked.wait()
    attempt.cancel()
    with pytest.raises((asyncio.CancelledError, ZeroDivisionError)):
        await attempt
    reader.mood = "there"
    assert (await reads.look(LEDGER)).build == 1
    await reads.close()
