"""JSON and msgpack at the edge: media types, negotiation, and one encoder of each kind.

Encoders are made once and reused; a list of replies is encoded in one call, which costs
about 0.3 us per reply.  A reply is the `Reply` struct itself, so no per-reply object is built.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final, Literal, NamedTuple

import msgspec

from ultraengine.model.errors import EngineError

CodecName = Literal["json", "msgpack"]
JSON_TYPE: Final = "application/json"
MSGPACK_TYPE: Final = "application/msgpack"
PROBLEM_TYPE: Final = "application/problem+json"
_MSGPACK_ALIASES: Final = frozenset({MSGPACK_TYPE, "application/x-msgpack"})


class Codec(NamedTuple):
    """One way to write values."""

    name: CodecName
    media_type: str
    encode: Callable[[Any], bytes]


JSON: Final = Codec("json", JSON_TYPE, msgspec.json.Encoder(decimal_format="string").encode)
MSGPACK: Final = Codec(
    "msgpack", MSGPACK_TYPE, msgspec.msgpack.Encoder(decimal_format="string").encode
)


def media_type(header: str) -> str:
    """The type of a Content-Type header without its parameters, in lower case."""
    return header.partition(";")[0].strip().lower()


@lru_cache(maxsize=256)
def body_codec(content_type: str | None) -> Codec:
    """The codec of a request body.

    Raises `EngineError` UNSUPPORTED_MEDIA_TYPE.  A missing Content-Type is refused as well:
    a web page of another origin can send one without asking first, JSON it cannot.
    """
    if content_type is not None:
        kind = media_type(content_type)
        if kind == JSON_TYPE:
            return JSON
        if kind in _MSGPACK_ALIASES:
            return MSGPACK
    named = "no Content-Type" if content_type is None else f"Content-Type {content_type[:100]!r}"
    raise EngineError(
        f"the request has {named}", code="UNSUPPORTED_MEDIA_TYPE", pointer="/header/content-type"
    )


def _quality(parameters: list[str]) -> float:
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "q":
            try:
                return min(max(float(value.strip()), 0.0), 1.0)
            except ValueError:
                return 0.0
    return 1.0


def _rank(codec: Codec, ranges: list[tuple[str, float]]) -> float:
    """Quality of the most specific media range that matches (RFC 9110 §12.5.1)."""
    exact = {codec.media_type} if codec is JSON else _MSGPACK_ALIASES
    best = (0, 0.0)
    for kind, quality in ranges:
        specific = 3 if kind in exact else {"application/*": 2, "*/*": 1}.get(kind, 0)
        if specific > best[0]:
            best = (specific, quality)
    return best[1]


@lru_cache(maxsize=256)
def answer_codec(accept: str | None, default: CodecName) -> Codec:
    """The codec of the answer: what ``Accept`` prefers, `default` where it has no preference.

    Raises `EngineError` NOT_ACCEPTABLE when it takes neither.
    """
    preferred = JSON if default == "json" else MSGPACK
    if accept is None or accept in {"", "*/*"}:
        return preferred
    ranges = []
    for part in accept.split(",")[:64]:
        kind, *parameters = part.split(";")
        ranges.append((kind.strip().lower(), _quality(parameters)))
    other = MSGPACK if preferred is JSON else JSON
    ranks = _rank(preferred, ranges), _rank(other, ranges)
    if max(ranks) <= 0:
        raise EngineError(
            f"the answer is JSON or msgpack, not {accept[:100]!r}",
            code="NOT_ACCEPTABLE",
            pointer="/header/accept",
        )
    return preferred if ranks[0] >= ranks[1] else other
