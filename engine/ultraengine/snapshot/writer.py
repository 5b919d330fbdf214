"""Turns sections into the bytes of a snapshot file, without touching any file.

    writer = SnapshotWriter(header, codec, data_key=…)
    out = writer.start(); for section in …: out = writer.add(section); out = writer.finish(…)

The concatenation of everything returned is the file.  Memory is bounded by one block.
"""

from typing import Final

import lz4.block
import msgspec

from ultraengine.model.errors import InvariantBroken
from ultraengine.snapshot.cipher import BlockCipher, wrap_key
from ultraengine.snapshot.codec import SnapshotCodec, check_section
from ultraengine.snapshot.format import (
    BLOCK_BYTES_MAX,
    BLOCK_SEALED_BYTES,
    FOOTER_SEALED_BYTES,
    HEADER_WRAPPED_DATA_BYTES,
    TAG_BYTES,
    BlockFlag,
    BlockHeader,
    Footer,
    Header,
    crc32c,
    encode_block_header,
    encode_footer,
    encode_header,
    header_digest,
    padding_of,
)
from ultraengine.snapshot.image import Section, StateHash

BLOCK_BYTES: Final = 1024 * 1024
"""A block is closed when its sections reach this many bytes."""


def header_with_key(
    header: Header, *, name: str, master: bytes, data_key: bytes, nonce: bytes
) -> Header:
    """`header` with the data key wrapped by the master key called `name`."""
    named = msgspec.structs.replace(header, key_name=name)
    associated = encode_header(named)[:HEADER_WRAPPED_DATA_BYTES]
    wrapped = wrap_key(master=master, data_key=data_key, nonce=nonce, associated=associated)
    return msgspec.structs.replace(named, wrapped_key=wrapped)


class SnapshotWriter:
    """Builds one file.  Sections come in ascending (slot, name) order."""

    def __init__(
        self,
        header: Header,
        codec: SnapshotCodec,
        *,
        data_key: bytes | None = None,
        compress: bool = True,
        block_bytes: int = BLOCK_BYTES,
    ) -> None:
        if codec.number != header.codec or header.encrypted != (data_key is not None):
            raise InvariantBroken(
                "a header says how its file is written",
                header_codec=header.codec,
                codec=codec.number,
                encrypted=header.encrypted,
            )
        self._start = encode_header(header)
        self._codec = codec
        self._cipher = (
            None if data_key is None else BlockCipher(data_key, header_digest(self._start))
        )
        self._compress = compress
        self._block_bytes = block_bytes
        self._parts: list[bytes] = []
        self._part_bytes = 0
        self._part_sections = 0
        self._last: tuple[int, str] | None = None
        self._hash = StateHash()
        self._blocks = 0
        self._sections = 0
        self._chunk_bytes = 0
        self._position = len(self._start)
        self._footer: Footer | None = None

    def start(self) -> bytes:
        """The header's bytes."""
        return self._start

    @property
    def content_hash(self) -> bytes:
        """Hash of the sections added so far."""
        return self._hash.value()

    def add(self, section: Section) -> bytes:
        """Take the next section; returns the blocks that are complete now, often none.

        Raises ValueError for a section out of its bounds, `InvariantBroken` for one out of order.
        """
        check_section(section)
        place = (section.slot, section.name)
        if self._last is not None and place < self._last:
            raise InvariantBroken("sections ascend by slot and name", last=self._last, next=place)
        encoded = self._codec.encode_section(section)
        framed_bytes = len(encoded) + 4
        if framed_bytes > BLOCK_BYTES_MAX:
            raise ValueError(
                f"codec {self._codec.number} makes {len(encoded)} bytes of one section;"
                f" a block holds {BLOCK_BYTES_MAX}"
            )
        # A block never outgrows its limit: what does not fit starts the next one.
        full = self._close_block() if self._part_bytes + framed_bytes > BLOCK_BYTES_MAX else b""
        self._parts.append(len(encoded).to_bytes(4, "little"))
        self._parts.append(encoded)
        self._part_bytes += framed_bytes
        self._part_sections += 1
        self._last = place
        self._hash.add(section)
        self._sections += 1
        self._chunk_bytes += len(section.chunk)
        if self._part_bytes >= self._block_bytes:
            full += self._close_block()
        return full

    def finish(self, state_hash: bytes | None) -> bytes:
        """The rest of the file.  `state_hash` of the full image, None when nobody knows it."""
        rest = self._close_block() if self._parts else b""
        footer = Footer(
            blocks=self._blocks,
            sections=self._sections,
            position=self._position,
            chunk_bytes=self._chunk_bytes,
            content_hash=self._hash.value(),
            state_hash=state_hash,
        )
        if self._cipher is not None:
            totals = encode_footer(footer)[:FOOTER_SEALED_BYTES]
            tag = self._cipher.seal(b"", self._blocks, totals)
            footer = msgspec.structs.replace(footer, tag=tag)
        self._footer = footer
        return rest + encode_footer(footer)

    @property
    def footer(self) -> Footer:
        """The footer that ``finish`` wrote."""
        if self._footer is None:
            raise InvariantBroken("a snapshot is finished before its footer is asked for")
        return self._footer

    def _close_block(self) -> bytes:
        plain = b"".join(self._parts)
        flags, payload = BlockFlag(0), plain
        if self._compress:
            packed = lz4.block.compress(plain, store_size=False)
            if len(packed) < len(plain):
                flags, payload = BlockFlag.LZ4, packed
        encrypted = self._cipher is not None
        if encrypted:
            flags |= BlockFlag.ENCRYPTED
        head = BlockHeader(
            flags=flags,
            number=self._blocks,
            sections=self._part_sections,
            stored_bytes=len(payload) + (TAG_BYTES if encrypted else 0),
            plain_bytes=len(plain),
        )
        if self._cipher is not None:
            sealed_header = encode_block_header(head)[:BLOCK_SEALED_BYTES]
            payload = self._cipher.seal(payload, head.number, sealed_header)
        head = msgspec.structs.replace(head, payload_crc=crc32c(payload))
        block = b"".join((encode_block_header(head), payload, bytes(padding_of(len(payload)))))
        self._parts.clear()
        self._part_bytes = self._part_sections = 0
        self._blocks += 1
        self._position += len(block)
        return block
