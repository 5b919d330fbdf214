"""Pages of the feed as bytes, version 1: `application/vnd.ultra.feed` (`FORMAT.md`).

A feed is a sequence of messages: pages of stored groups, and at its end the reason for it.
Payloads are neither decoded nor looked into.  Pure: bytes in, pages out.
"""

import struct
from collections.abc import Iterator
from typing import Final

import google_crc32c
import msgspec

from ultraengine.feed.source import FeedPage
from ultraengine.log.digest import crc32c
from ultraengine.model.errors import PROBLEMS, EngineError
from ultraengine.model.ids import Epoch, FrameSequence, Instant, Offset, ShardId
from ultraengine.model.outcome import CommittedGroup

MEDIA_TYPE: Final = "application/vnd.ultra.feed"
VERSION: Final = 1
MESSAGE_BYTES_MAX: Final = 256 * 1024 * 1024
"""A group has at most 16 MiB of commands, and outcomes of a few times that."""
_MAGIC: Final = b"UEFP"
_PAGE: Final = 1
_END: Final = 2
_HEADER: Final = struct.Struct("<4sHBxIIQQQII")
_CHECKED: Final = 44
_GROUP: Final = struct.Struct("<QQQQIB3xII16s")
_ZERO3: Final = bytes(3)


class WireDamaged(ValueError):
    """These bytes are no feed of this version, or were changed on their way."""


class _End(msgspec.Struct, frozen=True, array_like=True):
    code: str
    detail: str
    retry_after_s: float | None = None


_DECODE_END: Final = msgspec.msgpack.Decoder(_End).decode


def encode_page(shard: ShardId, page: FeedPage) -> list[bytes]:
    """One page as parts to be sent one behind the other; payloads are not copied."""
    parts: list[bytes] = []
    crc, length = 0, 0
    for group in page.groups:
        head = _GROUP.pack(
            group.epoch,
            group.sequence,
            group.base_offset,
            group.time,
            group.count,
            group.codec,
            len(group.commands),
            len(group.outcomes),
            group.chain,
        )
        for part in (head, group.commands, group.outcomes):
            crc = google_crc32c.extend(crc, part)
            length += len(part)
            parts.append(part)
    head = _header(_PAGE, shard, len(page.groups), page.end, page.end_time, length, crc)
    return [head, *parts]


def encode_end(shard: ShardId, error: EngineError) -> bytes:
    """The last message of a feed: why it ends."""
    body = msgspec.msgpack.encode(_End(error.code, error.detail, error.retry_after_s))
    return _header(_END, shard, 0, 0, 0, len(body), crc32c(body)) + body


def _header(
    kind: int, shard: int, count: int, end: int, end_time: int, length: int, crc: int
) -> bytes:
    head = _HEADER.pack(_MAGIC, VERSION, kind, shard, count, end, end_time, length, crc, 0)
    return head[:_CHECKED] + struct.pack("<I", crc32c(head[:_CHECKED]))


class FeedReader:
    """Takes the bytes of one shard's feed as they come and gives its pages."""

    def __init__(self, shard: ShardId) -> None:
        self._shard = shard
        self._buffer = bytearray()
        self._needed = _HEADER.size

    @property
    def is_between(self) -> bool:
        """Whether the last message is whole."""
        return not self._buffer

    def feed(self, data: bytes) -> Iterator[FeedPage]:
        """The pages that `data` completes.

        Raises `WireDamaged`, and the `EngineError` that the feed ends with; after either, the
        reader is done.
        """
        self._buffer += data
        while len(self._buffer) >= self._needed:
            page = self._message()
            if page is not None:
                yield page

    def _message(self) -> FeedPage | None:
        """The message at the head of the buffer, or None when more bytes are needed."""
        head = bytes(self._buffer[: _HEADER.size])
        magic, version, kind, shard, count, end, end_time, length, crc, own = _HEADER.unpack(head)
        if magic != _MAGIC or version != VERSION:
            raise WireDamaged(f"no feed of version {VERSION} begins with {head[:6]!r}")
        if own != crc32c(head[:_CHECKED]):
            raise WireDamaged("the header of a message has another checksum")
        if length > MESSAGE_BYTES_MAX or head[7] or kind not in {_PAGE, _END}:
            raise WireDamaged(f"a message of kind {kind} with {length} bytes")
        if shard != self._shard:
            raise WireDamaged(f"a message of shard {shard} instead of {self._shard}")
        self._needed = _HEADER.size + length
        if len(self._buffer) < self._needed:
            return None
        body = bytes(self._buffer[_HEADER.size : self._needed])
        del self._buffer[: self._needed]
        self._needed = _HEADER.size
        if crc != crc32c(body):
            raise WireDamaged("a message has another checksum")
        if kind == _END:
            raise _ended(body)
        return FeedPage(_groups(body, count, self._shard), Offset(end), Instant(end_time))


def _groups(body: bytes, count: int, shard: ShardId) -> tuple[CommittedGroup, ...]:
    groups: list[CommittedGroup] = []
    at = 0
    while at < len(body):
        if at + _GROUP.size > len(body):
            raise WireDamaged("a group is cut off")
        epoch, sequence, base, time, commands_count, codec, commands, outcomes, chain = (
            _GROUP.unpack_from(body, at)
        )
        start = at + _GROUP.size
        middle, stop = start + commands, start + commands + outcomes
        if stop > len(body) or not commands_count or body[at + 37 : at + 40] != _ZERO3:
            raise WireDamaged(f"the group at offset {base} does not fit its page")
        if groups and groups[-1].offset_end != base:
            raise WireDamaged(f"offset {base} follows {groups[-1].offset_end}")
        groups.append(
            CommittedGroup(
                shard,
                Epoch(epoch),
                FrameSequence(sequence),
                Offset(base),
                commands_count,
                Instant(time),
                codec,
                body[start:middle],
                body[middle:stop],
                chain,
            )
        )
        at = stop
    if len(groups) != count:
        raise WireDamaged(f"{len(groups)} groups instead of {count}")
    return tuple(groups)


def _ended(body: bytes) -> EngineError:
    """What the last message says.  Raises `WireDamaged`."""
    try:
        end = _DECODE_END(body)
    except msgspec.MsgspecError as error:
        raise WireDamaged(f"the end of a feed: {error}") from error
    # A newer engine may know codes that this build does not: then it is asked again.
    code = end.code if end.code in PROBLEMS else "SHARD_UNAVAILABLE"
    return EngineError(end.detail, code=code, retry_after_s=end.retry_after_s)
