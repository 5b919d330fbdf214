"""From request bytes and headers to command envelopes (the contract's "Command").

``data`` stays raw bytes here: its schema belongs to the domain and is decoded once, by the
registry.  A batch is decoded in one call when all its elements have the right shape; only
when one has not, elements are decoded singly, so that bad ones are refused singly.

Ids, keys and types are checked by the registry; this file checks what the registry does
not see: the shape of the envelope, and headers against members.
"""

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final

import msgspec

from ultraengine.edge.codec import CodecName
from ultraengine.model.errors import EngineError, Malformed
from ultraengine.model.limits import Limits
from ultraengine.model.pointer import split_place
from ultraengine.model.trace import is_traceparent

CORRELATION_ID_MAX: Final = 256
"""Characters of a correlation id; longer: 400 MALFORMED."""
VERSION_MAX: Final = 2**63 - 1
ID_RANDOM_BYTES: Final = 10
"""Random bytes that one server-made id takes."""

Timestamp = Annotated[datetime, msgspec.Meta(tz=True)]
Micros = Annotated[int, msgspec.Meta(ge=0, le=VERSION_MAX)]


class Envelope(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True, gc=False):
    """One command as a client sends it, and as a front forwards it."""

    type: str
    key: str
    data: msgspec.Raw
    id: str | None = None
    expected_version: Annotated[int, msgspec.Meta(ge=0, le=VERSION_MAX)] | None = None
    issued_at: Timestamp | Micros | None = None
    correlation_id: str | None = None
    traceparent: str | None = None


Parsed = Envelope | EngineError
"""One element of a batch: an envelope, or why it is none."""


class Refusal(Malformed):
    """A malformed element whose id could still be read."""

    def __init__(self, detail: str, *, pointer: str, id: str) -> None:
        super().__init__(detail, pointer=pointer)
        self.id = id


class _IdOnly(msgspec.Struct, gc=False):
    id: str = ""


_RAW: Final = {
    "json": msgspec.json.Decoder(list[msgspec.Raw]).decode,
    "msgpack": msgspec.msgpack.Decoder(list[msgspec.Raw]).decode,
}
_ONE: Final = {
    "json": msgspec.json.Decoder(Envelope).decode,
    "msgpack": msgspec.msgpack.Decoder(Envelope).decode,
}
_MANY: Final = {
    "json": msgspec.json.Decoder(list[Envelope]).decode,
    "msgpack": msgspec.msgpack.Decoder(list[Envelope]).decode,
}
_ID_ONLY: Final = {
    "json": msgspec.json.Decoder(_IdOnly).decode,
    "msgpack": msgspec.msgpack.Decoder(_IdOnly).decode,
}
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_ENTITY_TAG: Final = re.compile(r'"(0|[1-9][0-9]{0,18})"')


def malformed(error: Exception) -> Malformed:
    """What a decoder raised, as a problem with a pointer."""
    if isinstance(error, msgspec.ValidationError):
        detail, pointer = split_place(str(error))
        return Malformed(detail, pointer=pointer)
    if isinstance(error, RecursionError):
        return Malformed("nested too deep")
    return Malformed(f"not decodable: {error}")


DECODE_ERRORS: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""All that a decoder raises for bytes of a stranger (`ValidationError` is a `DecodeError`)."""


def decode_one(body: bytes | msgspec.Raw, codec: CodecName) -> Envelope:
    """One command.  Raises `Malformed` with the pointer of what is wrong."""
    try:
        envelope = _ONE[codec](body)
    except DECODE_ERRORS as error:
        raise malformed(error) from error
    _check_members(envelope)
    return envelope


def decode_element(raw: bytes | msgspec.Raw, codec: CodecName) -> Parsed:
    """One command of many: an envelope, or a refusal with its id where that can be read."""
    try:
        return decode_one(raw, codec)
    except Malformed as error:
        try:
            found = _ID_ONLY[codec](raw).id
        except DECODE_ERRORS:
            found = ""
        return Refusal(error.detail, pointer=error.pointer, id=found[:128])


def decode_batch(body: bytes, codec: CodecName, limits: Limits) -> Sequence[Parsed]:
    """The elements of a batch, bad ones as errors in their places.

    Raises `Malformed` when the body is no array at all, TOO_LARGE beyond
    ``commands_per_batch_max`` (nothing of the batch is taken).
    """
    try:
        envelopes = _MANY[codec](body)
    except DECODE_ERRORS as first:
        try:
            raws = _RAW[codec](body)
        except DECODE_ERRORS as error:
            raise malformed(
                error if isinstance(first, msgspec.ValidationError) else first
            ) from first
        _check_count(len(raws), limits)
        return [decode_element(raw, codec) for raw in raws]
    _check_count(len(envelopes), limits)
    parsed: list[Parsed] = list(envelopes)
    for index, envelope in enumerate(envelopes):
        # Only the two optional texts need a look; the common command has neither.
        if envelope.correlation_id is not None or envelope.traceparent is not None:
            try:
                _check_members(envelope)
            except Malformed as error:
                name = (envelope.id or "")[:128]
                parsed[index] = Refusal(error.detail, pointer=error.pointer, id=name)
    return parsed


def _check_count(count: int, limits: Limits) -> None:
    if count > limits.commands_per_batch_max:
        raise EngineError(
            f"{count} commands are more than commands_per_batch_max "
            f"({limits.commands_per_batch_max})",
            code="TOO_LARGE",
        )


def _check_members(envelope: Envelope) -> None:
    text = envelope.correlation_id
    if text is not None and not (0 < len(text) <= CORRELATION_ID_MAX and text.isprintable()):
        raise Malformed(
            f"a correlation id is 1-{CORRELATION_ID_MAX} printable characters",
            pointer="/correlation_id",
        )
    if envelope.traceparent is not None and not is_traceparent(envelope.traceparent):
        raise Malformed(
            "not a traceparent of W3C Trace Context: 00-<32 hex>-<16 hex>-<2 hex>",
            pointer="/traceparent",
        )


def issued_micros(envelope: Envelope) -> int | None:
    """``issued_at`` in microseconds since the Unix epoch."""
    at = envelope.issued_at
    return (at - _EPOCH) // _MICROSECOND if isinstance(at, datetime) else at


def _header(headers: Mapping[str, str], name: str) -> str | None:
    """One header field; raises `Malformed` when it is there more than once and differs."""
    value = headers.get(name)
    getall = None if value is None else getattr(headers, "getall", None)
    if getall is not None:
        values: list[str] = getall(name)
        if len(set(values)) > 1:
            raise Malformed(f"{name} is there {len(values)} times", pointer=f"/header/{name}")
    return value


def merge_headers(envelope: Envelope, headers: Mapping[str, str]) -> None:
    """Take ``Idempotency-Key``, ``If-Match`` and ``traceparent`` into a single command.

    Raises `Malformed` when a header and its member differ, or a header has another shape.
    A traceparent header that is not valid is ignored, as W3C Trace Context asks; the member
    wins over the header, because it is the client's own statement about this command.
    """
    name = _header(headers, "idempotency-key")
    if name is not None:
        if len(name) > 1 and name[0] == name[-1] == '"':
            name = name[1:-1]
        if envelope.id is not None and envelope.id != name:
            raise Malformed(
                "the header Idempotency-Key and the member 'id' differ",
                pointer="/header/idempotency-key",
            )
        envelope.id = name
    tag = _header(headers, "if-match")
    if tag is not None:
        version = parse_if_match(tag)
        if envelope.expected_version is not None and envelope.expected_version != version:
            raise Malformed(
                "the header If-Match and the member 'expected_version' differ",
                pointer="/header/if-match",
            )
        envelope.expected_version = version
    if envelope.traceparent is None:
        parent = headers.get("traceparent")
        if parent is not None and is_traceparent(parent):
            envelope.traceparent = parent


def parse_if_match(tag: str) -> int:
    """The version in ``If-Match: "7"``.  Raises `Malformed`: one strong tag, a number."""
    found = _ENTITY_TAG.fullmatch(tag.strip())
    if found is None or int(found[1]) > VERSION_MAX:
        raise Malformed(
            f'If-Match is one strong tag with a version, as "7", not {tag[:60]!r}',
            pointer="/header/if-match",
        )
    return int(found[1])


def forbid_single_headers(headers: Mapping[str, str]) -> None:
    """A batch has no id and no version of its own.  Raises `Malformed`."""
    for name in ("idempotency-key", "if-match"):
        if name in headers:
            raise Malformed(
                f"{name} belongs to a single command; in a batch each command has its own member",
                pointer=f"/header/{name}",
            )


def wants_async(headers: Mapping[str, str]) -> bool:
    """Whether ``Prefer`` has ``respond-async`` (RFC 7240)."""
    prefer = headers.get("prefer")
    if prefer is None:
        return False
    preferences = (item.partition(";")[0].strip().lower() for item in prefer.split(","))
    return "respond-async" in preferences


def uuid7(now_ms: int, random: bytes) -> str:
    """A UUIDv7 (RFC 9562 §5.7) of a time in milliseconds and ten random bytes."""
    high = (now_ms & 0xFFFF_FFFF_FFFF) << 16 | 0x7000 | int.from_bytes(random[:2], "big") & 0x0FFF
    low = 1 << 63 | int.from_bytes(random[2:10], "big") & 0x3FFF_FFFF_FFFF_FFFF
    text = f"{high:016x}{low:016x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def missing_ids(parsed: Sequence[Parsed]) -> list[int]:
    """Places of the envelopes that have no id."""
    return [
        index for index, item in enumerate(parsed) if item.__class__ is Envelope and item.id is None
    ]


def fill_ids(parsed: Sequence[Any], places: Sequence[int], now_ms: int, random: bytes) -> None:
    """Give each envelope at `places` an id of its own; `random` has ten bytes for each."""
    for turn, index in enumerate(places):
        start = turn * ID_RANDOM_BYTES
        parsed[index].id = uuid7(now_ms, random[start : start + ID_RANDOM_BYTES])
