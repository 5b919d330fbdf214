"""The fuzz suite, against a front before two shards: the API is the same."""

from collections.abc import AsyncIterator

import pytest
from tests.unit.gateway.routed_world import RoutedServed, RoutedServing
from tests.unit.gateway.test_fuzz import *  # noqa: F403  (the same tests, other fixtures)


@pytest.fixture(name="serving")
async def fronts() -> AsyncIterator[RoutedServing]:
    start = RoutedServing()
    yield start
    await start.stop()


@pytest.fixture(name="served")
async def front(serving: RoutedServing) -> RoutedServed:
    return await serving()
