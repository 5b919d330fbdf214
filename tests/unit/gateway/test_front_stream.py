"""The suite of streams, against a front before two shards: the API is the same."""

from collections.abc import AsyncIterator

import pytest
from tests.unit.gateway.routed_world import RoutedServed, RoutedServing
from tests.unit.gateway.test_stream import *  # noqa: F403  (the same tests, other fixtures)

# A front has more to say (test_front.py).
del test_a_stream_begins_with_what_the_client_must_know  # noqa: F821
# Order is per shard: what is refused at the front does not wait for a shard.
del test_commands_alone_and_in_arrays_are_answered_in_their_order  # noqa: F821
# Likewise (test_front.py).
del test_a_tenant_above_its_quota_is_refused_singly  # noqa: F821
# It expects two submissions where a lane makes one.
del test_replies_wait_for_those_of_earlier_frames  # noqa: F821
# It counts what the engine took while the hop was under way (test_front.py).
del test_who_spends_more_than_its_credit_is_closed_with_4008  # noqa: F821
# Likewise: a lane holds back what waits.
del test_no_more_is_read_while_too_many_bytes_are_unanswered  # noqa: F821
# A front's events are of one shard, which is named (test_front.py).
del test_events_come_from_the_offset_asked_for_and_go_on  # noqa: F821
# A front's events are of one shard, which is named (test_front.py).
del test_a_subscription_below_the_log_is_told_so_and_may_try_again  # noqa: F821
# A front's events are of one shard, which is named (test_front.py).
del test_a_subscriber_sees_its_own_tenant_and_what_it_may_read  # noqa: F821
# A front's events are of one shard, which is named (test_front.py).
del test_a_subscriber_to_whom_nothing_is_sent_is_told_where_it_stands  # noqa: F821
# A front's events are of one shard, which is named (test_front.py).
del test_a_subscription_may_be_to_some_domains_alone  # noqa: F821
# A front's events are of one shard, which is named (test_front.py).
del test_a_stream_has_one_subscription  # noqa: F821
# It subscribes without a shard (test_front.py drains).
del test_a_draining_gateway_answers_what_it_took_then_says_goodbye  # noqa: F821
# A front has.
del test_one_shard_has_no_events_of_another  # noqa: F821
# A subscription without a shard is another mistake here (test_front.py).
del test_odd_protocol_objects_are_answered_and_the_stream_goes_on  # noqa: F821


@pytest.fixture(name="serving")
async def fronts() -> AsyncIterator[RoutedServing]:
    start = RoutedServing()
    yield start
    await start.stop()


@pytest.fixture(name="served")
async def front(serving: RoutedServing) -> RoutedServed:
    return await serving()
