"""The suite of the quick HTTP server, against a front before two shards: the API is the same."""

from collections.abc import AsyncIterator

import pytest
from tests.unit.gateway.routed_world import RoutedServed, RoutedServing
from tests.unit.gateway.test_quick import *  # noqa: F403  (the same tests, other fixtures)

# It breaks the counting of commands, which the shards do here.
del test_a_failure_of_ours_is_an_answer_and_the_connection_goes_on  # noqa: F821


@pytest.fixture(name="serving")
async def fronts() -> AsyncIterator[RoutedServing]:
    start = RoutedServing()
    yield start
    await start.stop()


@pytest.fixture(name="served")
async def front(serving: RoutedServing) -> RoutedServed:
    return await serving()
