"""The newest shard map that somebody has told this shard, for gateways that ask.

    PUT /admin/v1/map            whoever swaps maps tells it to all shards
    GET /admin/v1/map?after=V    the map, or null while none newer than V is known

A hint, kept in memory alone: a shard owns what its log says, whatever a map names, and whoever has
lost the hint reads what is published.  But that may reach a gateway late (a file that is mounted
from a ConfigMap is a minute behind), and the shards are who it asks anyway.
"""

from typing import Final

from aiohttp.web import BaseRequest

from ultraengine.edge.codec import JSON
from ultraengine.edge.problems import Answer
from ultraengine.edge.routes import Route, Surface, query_pairs, read_body
from ultraengine.gateway.admin import admin_caller
from ultraengine.gateway.edge import Edge
from ultraengine.model.errors import Malformed
from ultraengine.moving.wire import MAP_PATH
from ultraengine.router.shard_map import MapRefused, ShardMap

MAP_BYTES_MAX: Final = 256 * 1024
"""More than a map in which every slot is a range of its own."""


class KnownMap:
    """The handlers, and the map."""

    def __init__(self, edge: Edge) -> None:
        self._edge = edge
        self._version = 0
        self._content = b"null"

    def add_to(self, surface: Surface) -> None:
        """Serve it."""
        surface[MAP_PATH] = Route(MAP_PATH, GET=self._get, PUT=self._put)

    async def _get(self, request: BaseRequest, _segments: list[str]) -> Answer:
        admin_caller(self._edge, request)
        after = dict(query_pairs(request, {"after"})).get("after", "0")
        if not (after.isascii() and after.isdecimal() and len(after) < 19):
            raise Malformed("after is a version of the map", pointer="/query/after")
        is_newer = self._version > int(after)
        return Answer(200, self._content if is_newer else b"null", JSON.media_type)

    async def _put(self, request: BaseRequest, _segments: list[str]) -> Answer:
        admin_caller(self._edge, request)
        content = await read_body(request, MAP_BYTES_MAX, "frame_bytes_max")
        try:
            shard_map = ShardMap.decode(content)
        except MapRefused as error:
            raise Malformed(str(error)) from error
        if shard_map.version > self._version:
            self._version, self._content = shard_map.version, shard_map.encode()
        return Answer(200, JSON.encode({"version": self._version}), JSON.media_type)
