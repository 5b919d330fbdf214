"""Slots that a shard hands over, for who has the hop key and the scope ``admin``.

    GET  /admin/v1/slots                          what is logged, of all slots that ever moved
    GET  /admin/v1/slots/{slot}                   what this shard says of one
    POST /admin/v1/slots/{slot}                   one message of the protocol
    GET  /admin/v1/slots/{slot}/copy?from=N       the next batch of its content
    POST /admin/v1/slots/{slot}/copy              log a batch

Bodies are msgpack: `moving.record.Message`, and `moving.wire`.
"""

from collections.abc import Callable
from typing import Any, Final

import msgspec
import structlog
from aiohttp.web import BaseRequest

from ultraengine.edge.codec import MSGPACK
from ultraengine.edge.problems import Answer
from ultraengine.edge.routes import Route, Surface, query_pairs, read_body
from ultraengine.gateway.admin import admin_caller
from ultraengine.gateway.edge import Edge
from ultraengine.gateway.engine import Slots
from ultraengine.gateway.envelope import DECODE_ERRORS, malformed
from ultraengine.model.errors import EngineError, Malformed
from ultraengine.model.ids import SLOT_COUNT
from ultraengine.moving.record import Message
from ultraengine.moving.wire import PATH, Fed

OVERHEAD_BYTES: Final = 4_096
"""Of a batch beside its parts."""

_audit = structlog.get_logger("ultraengine.audit")
_MESSAGE: Final = msgspec.msgpack.Decoder(Message)
_FED: Final = msgspec.msgpack.Decoder(Fed)


class HandedSlots:
    """The handlers."""

    def __init__(self, edge: Edge, slots: Slots) -> None:
        self._edge = edge
        self._slots = slots

    def add_to(self, surface: Surface) -> None:
        """Serve them."""
        surface[PATH] = Route(PATH, GET=self._all)
        below = Route(f"{PATH}/{{slot}}", GET=self._get, POST=self._post)
        surface.prefix(f"{PATH}/", below)

    async def _all(self, request: BaseRequest, _segments: list[str]) -> Answer:
        admin_caller(self._edge, request)
        return _answer(self._slots.records())

    async def _get(self, request: BaseRequest, segments: list[str]) -> Answer:
        admin_caller(self._edge, request)
        slot, is_copy = _slot_of(segments)
        if not is_copy:
            query_pairs(request, set())
            return _answer(self._slots.look(slot))
        position = dict(query_pairs(request, {"from"})).get("from", "")
        if not (position.isascii() and position.isdecimal() and len(position) < 19):
            raise Malformed("from is an offset of this shard", pointer="/query/from")
        return _answer(await self._slots.read(slot, int(position)))

    async def _post(self, request: BaseRequest, segments: list[str]) -> Answer:
        caller = admin_caller(self._edge, request)
        slot, is_copy = _slot_of(segments)
        bytes_max = self._edge.limits.frame_bytes_max + OVERHEAD_BYTES
        raw = await read_body(request, bytes_max, "frame_bytes_max")
        if is_copy:
            fed = _decoded(_FED.decode, raw)
            return _answer(await self._slots.feed(slot, fed.attempt, fed.batch))
        message = _decoded(_MESSAGE.decode, raw)
        answered = await self._slots.send(slot, message)
        _audit.info(
            "slot.told",
            slot=slot,
            message=type(message).__name__,
            state=answered.seen.record.state.value,
            refused=answered.refused,
            principal=caller.principal,
        )
        return _answer(answered)


def _answer(content: Any) -> Answer:
    return Answer(200, MSGPACK.encode(content), MSGPACK.media_type)


def _decoded(decode: Callable[[bytes], Any], raw: bytes) -> Any:
    try:
        return decode(raw)
    except DECODE_ERRORS as error:
        raise malformed(error) from error


def _slot_of(segments: list[str]) -> tuple[int, bool]:
    """The slot of a path below `PATH`, and whether its copy is meant."""
    number, *rest = segments
    known = rest in ([], ["copy"]) and number.isascii() and number.isdecimal()
    if not known or len(number) > 4 or int(number) >= SLOT_COUNT:
        raise EngineError("there is no such path", code="NOT_FOUND")
    return int(number), bool(rest)
