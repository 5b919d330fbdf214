"""A subscriber that the log runs away from."""

from collections.abc import Iterator
from typing import Any, cast

import pytest

from ultraengine.feed.driver import Feed
from ultraengine.log.damage import BelowRetention
from ultraengine.log.reader import LogReader
from ultraengine.model.errors import EngineError


class CutLog:
    """A log whose old end is removed while somebody reads it."""

    def groups(self, _from_offset: int, _to_offset: int) -> Iterator[Any]:
        raise BelowRetention(first_sequence=9, first_offset=70)
        yield


async def test_a_subscriber_whose_offset_was_cut_meanwhile_is_told_so() -> None:
    feed = Feed(cast("LogReader", CutLog()), lambda: 0)
    feed.publish(100)
    with pytest.raises(EngineError) as caught:
        await anext(feed.groups(5))
    assert (caught.value.code, caught.value.pointer) == ("TOO_OLD", "/from")
    assert "70" in caught.value.detail
    feed.close()
