"""What a client may send on a stream: commands, alone or in an array, and protocol objects.

Objects with ``op`` are protocol, all others are commands.  The common frame is decoded in
one call; only what that call refuses is looked at again, to say what is wrong with it.
"""

from typing import Annotated, Final

import msgspec

from ultraengine.edge.codec import CodecName
from ultraengine.gateway.envelope import (
    DECODE_ERRORS,
    Parsed,
    decode_batch,
    decode_element,
    malformed,
)
from ultraengine.model.errors import EngineError, Malformed
from ultraengine.model.limits import Limits

OFFSET_MAX: Final = 2**63 - 1
_ENGINE_OPS: Final = frozenset(
    {"hello", "credit", "subscribed", "event", "position", "error", "goaway"}
)
DOMAINS_MAX: Final = 64
"""Domains that one subscription may name."""
_JSON_SPACE: Final = b" \t\r\n"


class CommandFrame(msgspec.Struct, frozen=True, gc=False):
    """Commands in the order of the frame, bad ones as errors in their places."""

    parsed: list[Parsed]


DomainName = Annotated[str, msgspec.Meta(pattern="^[a-z][a-z0-9_]{0,31}$")]


class Subscribe(msgspec.Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    """Ask for the events of a shard from an offset on."""

    op: str
    from_: Annotated[int, msgspec.Meta(ge=0, le=OFFSET_MAX)] = msgspec.field(name="from")
    shard: Annotated[int, msgspec.Meta(ge=0)] | None = None
    """Of a front's shards: whose events; None where there is one."""
    domains: Annotated[tuple[DomainName, ...], msgspec.Meta(max_length=DOMAINS_MAX)] | None = None
    """Only the events of these domains; None: of all that the key may read."""


class _Named(msgspec.Struct, frozen=True, gc=False):
    op: str | None = None


_NAMED: Final = {
    "json": msgspec.json.Decoder(_Named).decode,
    "msgpack": msgspec.msgpack.Decoder(_Named).decode,
}
_SUBSCRIBE: Final = {
    "json": msgspec.json.Decoder(Subscribe).decode,
    "msgpack": msgspec.msgpack.Decoder(Subscribe).decode,
}
_SYNTAX: Final = {
    "json": msgspec.json.Decoder(msgspec.Raw).decode,
    "msgpack": msgspec.msgpack.Decoder(msgspec.Raw).decode,
}

Frame = CommandFrame | Subscribe | EngineError
"""An `EngineError` here is a protocol object that a client may not send: answered, not fatal."""


def is_array(data: bytes, codec: CodecName) -> bool:
    """Whether a frame holds an array, by its first byte."""
    if codec == "json":
        return data.lstrip(_JSON_SPACE)[:1] == b"["
    return data[:1] in {b"\xdc", b"\xdd"} or (len(data) > 0 and data[0] & 0xF0 == 0x90)


def read_frame(data: bytes, codec: CodecName, limits: Limits) -> Frame:
    """One frame.  Raises `EngineError`: MALFORMED when it is no frame at all (the stream cannot
    go on, because its commands cannot be counted), TOO_LARGE beyond ``commands_per_batch_max``.
    """
    if is_array(data, codec):
        return CommandFrame(list(decode_batch(data, codec, limits)))
    try:
        _SYNTAX[codec](data)
        op = _NAMED[codec](data).op
    except msgspec.ValidationError as error:
        # An object whose op is no text, or no object.
        raise malformed(error) from error
    except DECODE_ERRORS as error:
        raise malformed(error) from error
    if op is None:
        return CommandFrame([decode_element(data, codec)])
    if op == "subscribe":
        try:
            return _SUBSCRIBE[codec](data)
        except DECODE_ERRORS as error:
            return malformed(error)
    who = "only the engine sends" if op in _ENGINE_OPS else "there is no"
    return Malformed(f"{who} {op[:30]!r}", pointer="/op")
