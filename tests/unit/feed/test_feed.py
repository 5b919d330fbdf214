"""The feed of a shard in this process, and its contract."""

from collections.abc import AsyncIterator

import pytest

from ultraengine.feed.source import FeedSource
from ultraengine.testing.feed_sources import FeedSourceSuite, StoredFeed


class TestFeed(FeedSourceSuite):
    @pytest.fixture
    async def source(self, stored: StoredFeed) -> AsyncIterator[FeedSource]:
        yield stored.feed
        await stored.feed.close()
