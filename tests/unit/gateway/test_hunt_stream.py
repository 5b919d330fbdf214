"""A stream whose subscription cannot go on."""

from collections.abc import AsyncIterator
from typing import Any

from tests.unit.gateway.conftest import Serving, add
from tests.unit.gateway.test_stream import opened


class BrokenFeed:
    """A feed over a log that cannot be read."""

    async def outcomes(self, _from_offset: int) -> AsyncIterator[Any]:
        """Fails at the first step."""
        raise ArithmeticError
        yield


async def test_a_subscription_that_breaks_says_so_and_the_stream_goes_on(serving: Serving) -> None:
    served = await serving(feed=True)
    feed = served.gateway.edge.feed
    served.gateway.edge.feed = BrokenFeed()
    client = await opened(served)
    await client.say({"op": "subscribe", "from": 0})
    told = await client.next()
    assert (told["op"], told["code"]) == ("error", "INTERNAL")
    served.gateway.edge.feed = feed
    await client.say(add("a"))
    assert (await client.next())["outcome"] == "accepted"
    await client.subscribe(0)
    assert (await client.next())["op"] == "event"
