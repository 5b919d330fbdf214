"""The files of a shard over HTTP: for who may read the feed, and nothing that is not understood."""

from typing import Any

import msgspec
import pytest
from tests.unit.gateway.conftest import Served, Serving

from ultraengine.edge.auth import KnownCaller
from ultraengine.gateway.engine import Operations
from ultraengine.gateway.hop import HopIdentity, hop_headers
from ultraengine.gateway.lent import FORMATS_HEADER, PATH
from ultraengine.model.errors import EngineError
from ultraengine.replication.installing.offer import Transfer, Withdrawn
from ultraengine.replication.wire import HEAD_BYTES, decode_head, decode_transfer
from ultraengine.shard.formats import FORMATS

SECRET = "hop-" * 10
CANDIDATE = KnownCaller("system", "candidate", frozenset({"feed"}))


async def lend(attempt: int, part: int, position: int) -> Transfer:
    if part == 9:
        raise EngineError("another candidate", code="OVERLOADED", retry_after_s=5.0)
    return Withdrawn(attempt, f"{part} {position}")


@pytest.fixture
async def lent(serving: Serving) -> Served:
    return await serving(operations=Operations(lend=lend), identity=HopIdentity(SECRET))


async def ask(served: Served, query: str, caller: KnownCaller = CANDIDATE) -> tuple[int, Any]:
    headers = dict(hop_headers(SECRET, caller))
    async with served.http.get(f"{PATH}{query}", headers=headers) as answer:
        content = await answer.read()
        if answer.status == 200:
            assert answer.headers[FORMATS_HEADER] == FORMATS
            return 200, decode_transfer(decode_head(content[:HEAD_BYTES]), content[HEAD_BYTES:])
        return answer.status, msgspec.json.decode(content)["code"]


async def test_a_question_is_answered_with_the_formats_of_this_build(lent: Served) -> None:
    assert await ask(lent, "?attempt=5&part=-1&position=0") == (200, Withdrawn(5, "-1 0"))
    assert await ask(lent, "?attempt=5&part=2&position=77") == (200, Withdrawn(5, "2 77"))
    assert await ask(lent, "?attempt=5&part=9&position=0") == (429, "OVERLOADED")


@pytest.mark.parametrize(
    "query",
    ["", "?attempt=1&part=0", "?attempt=-1&part=0&position=0", "?attempt=1&part=-2&position=0",
     "?attempt=1&part=0&position=x", "?attempt=1&part=0&position=0&more=1",
     "?attempt=1234567890123456789&part=0&position=0"],
)  # fmt: skip
async def test_what_is_not_understood_is_refused(lent: Served, query: str) -> None:
    assert await ask(lent, query) == (400, "MALFORMED")


async def test_only_who_may_read_the_feed_is_lent_to(lent: Served) -> None:
    other = KnownCaller("acme", "till", frozenset({"*:read", "*:write"}))
    assert await ask(lent, "?attempt=1&part=0&position=0", other) == (403, "FORBIDDEN")
    async with lent.http.get(PATH) as answer:
        assert answer.status == 401


async def test_an_engine_that_lends_nothing_has_no_such_path(serving: Serving) -> None:
    served = await serving(identity=HopIdentity(SECRET))
    assert await ask(served, "?attempt=1&part=0&position=0") == (404, "NOT_FOUND")
