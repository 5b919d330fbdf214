"""The files of a shard, for a candidate that decides its log again: with the scope ``feed``.

    GET /v1/feed/files?attempt=N&part=P&position=B    one answer of `replication.wire`

``part`` -1 asks what there is.  The files hold the commands of all tenants, as the feed does, and
as they are stored: encrypted where the log is.  Nothing can be changed here.
"""

from typing import Final

from aiohttp.web import BaseRequest

from ultraengine.edge.auth import require_feed
from ultraengine.edge.problems import Answer
from ultraengine.edge.routes import Route, Surface, is_loopback, query_pairs
from ultraengine.gateway.edge import Edge
from ultraengine.gateway.engine import Lend
from ultraengine.model.errors import Malformed
from ultraengine.replication.wire import encode_transfer
from ultraengine.shard.formats import FORMATS

PATH: Final = "/v1/feed/files"
MEDIA_TYPE: Final = "application/vnd.ultra.files"
FORMATS_HEADER: Final = "Ultra-Formats"
_NAMES: Final = ("attempt", "part", "position")


class Lent:
    """The handler."""

    def __init__(self, edge: Edge, lend: Lend) -> None:
        self._edge = edge
        self._lend = lend

    def add_to(self, surface: Surface) -> None:
        """Serve it."""
        route = Route(PATH, GET=self._get)
        del route.methods["HEAD"]  # Each question moves on.
        surface[PATH] = route

    async def _get(self, request: BaseRequest, _segments: list[str]) -> Answer:
        require_feed(self._edge.caller(request.headers, peer_is_loopback=is_loopback(request)))
        self._edge.require_intake()
        query = dict(query_pairs(request, set(_NAMES)))
        attempt, part, position = (_number(query, name) for name in _NAMES)
        answer = await self._lend(attempt, part, position)
        headers = ((FORMATS_HEADER, FORMATS), ("Cache-Control", "no-store"))
        return Answer(200, encode_transfer(answer), MEDIA_TYPE, headers)


def _number(query: dict[str, str], name: str) -> int:
    text = query.get(name, "")
    digits = text[1:] if name == "part" and text == "-1" else text
    if not (digits.isascii() and digits.isdecimal() and len(digits) < 19):
        raise Malformed(f"{name} is a number", pointer=f"/query/{name}")
    return int(text)
