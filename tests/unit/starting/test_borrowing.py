"""What a candidate gets is whole and is what was offered, or it begins anew, or it says that it has
nothing."""

import time
from collections.abc import AsyncIterator, Callable
from hashlib import blake2b
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from ultraengine.gateway.lent import FORMATS_HEADER, PATH
from ultraengine.log.segment import GENESIS
from ultraengine.replication.installing.offer import (
    DIGEST_BYTES,
    OFFER,
    Offered,
    Part,
    Piece,
    Transfer,
    Withdrawn,
)
from ultraengine.replication.wire import encode_transfer
from ultraengine.starting.borrowing.driver import Borrowing, TimeIsUp
from ultraengine.starting.borrowing.parts import NotLent, check_part

CONTENT = {"IDENTITY": b"who", "log/cmd-1.seg": b"abcdef", "snapshots/1.full": b""}
Answer = Transfer | int | bytes


class Shard:
    """Lends `CONTENT` in pieces of four bytes, and answers some questions as a test says."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, int]] = []
        self.instead: Callable[[int, int], Answer | None] = lambda _part, _position: None
        self.parts = tuple(Part(path, len(data)) for path, data in CONTENT.items())

    async def answer(self, request: web.Request) -> web.Response:
        attempt, part, position = (
            int(request.query[name]) for name in ("attempt", "part", "position")
        )
        self.asked.append((part, position))
        found = self.instead(part, position) or self.plain(attempt, part, position)
        if isinstance(found, int):
            return web.Response(status=found, text="no")
        content = found if isinstance(found, bytes) else encode_transfer(found)
        return web.Response(body=content, headers={FORMATS_HEADER: "directory=1"})

    def plain(self, attempt: int, part: int, position: int) -> Transfer:
        if part == OFFER:
            return Offered(attempt, GENESIS, 0, self.parts)
        data = list(CONTENT.values())[part]
        chunk = data[position : position + 4]
        whole = position + len(chunk) == len(data)
        digest = blake2b(data, digest_size=DIGEST_BYTES).digest() if whole else b""
        return Piece(attempt, part, position, chunk, digest)


@pytest.fixture
async def shard() -> Shard:
    return Shard()


@pytest.fixture
async def url(shard: Shard) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_get(PATH, shard.answer)
    async with TestServer(app) as server:
        yield str(server.make_url("/"))


def borrowing(url: str, place: Path, within_s: float = 60.0) -> Borrowing:
    return Borrowing(url, {}, place, deadline_s=time.monotonic() + within_s)


def once(answer: Answer, at: tuple[int, int]) -> Callable[[int, int], Answer | None]:
    """The first question at this place gets another answer."""
    left = [answer]

    def instead(part: int, position: int) -> Answer | None:
        return left.pop() if (part, position) == at and left else None

    return instead


async def test_every_file_arrives_as_it_was_offered(url: str, tmp_path: Path) -> None:
    made = borrowing(url, tmp_path)
    assert await made.run() == 9
    assert {path: (tmp_path / path).read_bytes() for path in CONTENT} == CONTENT
    assert made.formats == "directory=1"


@pytest.mark.parametrize("answer", [503, 429, b"no transfer", Offered(1, GENESIS, 0, ())])
async def test_a_question_is_asked_until_it_is_answered(
    shard: Shard, url: str, tmp_path: Path, answer: Answer
) -> None:
    shard.instead = once(answer, (1, 4))
    await borrowing(url, tmp_path).run()
    assert shard.asked.count((1, 4)) == 2
    assert shard.asked.count((OFFER, 0)) == 1
    assert (tmp_path / "log/cmd-1.seg").read_bytes() == b"abcdef"


@pytest.mark.parametrize(
    "answer",
    [
        Withdrawn(1, "another leads"),
        Piece(1, 1, 4, b"xx", b"0" * DIGEST_BYTES),
        Piece(1, 1, 0, b"out of turn"),
        Piece(1, 1, 4, b""),
        Piece(1, 1, 4, b"too long to be it"),
    ],
)
async def test_what_is_not_what_was_offered_is_begun_anew(
    shard: Shard, url: str, tmp_path: Path, answer: Answer
) -> None:
    shard.instead = once(answer, (1, 4))
    await borrowing(url, tmp_path).run()
    assert shard.asked.count((OFFER, 0)) == 2
    assert (tmp_path / "log/cmd-1.seg").read_bytes() == b"abcdef"


async def test_a_shard_that_lends_nothing_is_not_asked_again(
    shard: Shard, url: str, tmp_path: Path
) -> None:
    shard.instead = lambda _part, _position: 404
    with pytest.raises(NotLent, match="404"):
        await borrowing(url, tmp_path).run()
    assert shard.asked == [(OFFER, 0)]


async def test_when_time_is_up_it_is_said_what_was_waited_for(
    shard: Shard, url: str, tmp_path: Path
) -> None:
    shard.instead = lambda _part, _position: 503
    with pytest.raises(TimeIsUp, match="503"):
        await borrowing(url, tmp_path, within_s=0.2).run()


@pytest.mark.parametrize(
    "path", ["../IDENTITY", "/etc/passwd", "log/../x", "log/.hidden", "SLOTS", "log/a/b", "log/"]
)
async def test_no_other_path_is_written(shard: Shard, url: str, tmp_path: Path, path: str) -> None:
    shard.parts = (Part(path, 3),)
    with pytest.raises(NotLent):
        await borrowing(url, tmp_path / "in").run()
    assert not (tmp_path / "in").exists()


async def test_a_file_is_offered_once(shard: Shard, url: str, tmp_path: Path) -> None:
    shard.parts = (Part("IDENTITY", 3), Part("IDENTITY", 3))
    with pytest.raises(NotLent, match="twice"):
        await borrowing(url, tmp_path).run()
    with pytest.raises(NotLent):
        check_part(Part("IDENTITY", -1))
