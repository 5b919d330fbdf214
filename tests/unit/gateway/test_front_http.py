"""The HTTP suite of one engine, against a front before two shards: the API is the same."""

from collections.abc import AsyncIterator

import pytest
from tests.unit.gateway.routed_world import RoutedServed, RoutedServing
from tests.unit.gateway.test_http import *  # noqa: F403  (the same tests, other fixtures)

# It breaks the status of the engine, which is the front's own here.
del test_a_bug_in_a_handler_is_an_answer_that_says_no_more_than_its_kind  # noqa: F821
# Samples have a label more (test_front.py).
del test_metrics_count_requests_and_commands  # noqa: F821
# It expects two submissions where single commands are gathered (test_front.py).
del test_more_requests_than_can_be_answered_at_once_are_turned_away  # noqa: F821


@pytest.fixture(name="serving")
async def fronts() -> AsyncIterator[RoutedServing]:
    start = RoutedServing()
    yield start
    await start.stop()


@pytest.fixture(name="served")
async def front(serving: RoutedServing) -> RoutedServed:
    return await serving()
