"""Reads a snapshot file and believes nothing of it that was not checked.

`open_snapshot` reads header and footer; `SnapshotFile.sections` streams the sections and
raises at the first byte that is not as it was written.  Totals and the content hash are
compared at the end, so sections count only when the iteration came to its end.
"""

from collections.abc import Callable, Iterator
from typing import Protocol

import lz4.block

from ultraengine.snapshot.cipher import BlockCipher, unwrap_key
from ultraengine.snapshot.codec import Codecs, SnapshotCodec, check_section
from ultraengine.snapshot.errors import SnapshotDamaged, SnapshotRefused
from ultraengine.snapshot.format import (
    BLOCK_HEADER_BYTES,
    BLOCK_SEALED_BYTES,
    FOOTER_BYTES,
    FOOTER_SEALED_BYTES,
    HEADER_FIXED_BYTES,
    HEADER_WRAPPED_DATA_BYTES,
    BlockFlag,
    BlockHeader,
    Footer,
    Header,
    crc32c,
    decode_block_header,
    decode_footer,
    decode_header,
    encode_footer,
    header_digest,
    header_length,
    padding_of,
)
from ultraengine.snapshot.image import Section, StateHash

KeyOf = Callable[[str], bytes]
"""Master key by name; raises KeyError (`Secrets.get`)."""


class Source(Protocol):
    """The two calls of `ports.File` that reading needs."""

    def pread(self, length: int, position: int) -> bytes:
        """Up to `length` bytes from `position`."""

    def size(self) -> int:
        """Length in bytes."""


def read_header(source: Source, path: str) -> tuple[Header, bytes]:
    """The header and its bytes.  Raises `SnapshotDamaged` or `SnapshotRefused`."""
    start = source.pread(HEADER_FIXED_BYTES, 0)
    length = header_length(start, path)
    raw = (start + source.pread(max(0, length - len(start)), len(start)))[:length]
    return decode_header(raw, path), raw


def data_key_of(header: Header, raw: bytes, path: str, key_of: KeyOf) -> bytes | None:
    """The file's data key; None when it is not encrypted.  Raises `SnapshotRefused`."""
    if not header.encrypted:
        return None
    try:
        master = key_of(header.key_name)
    except KeyError:
        raise SnapshotRefused(
            f"{path} is encrypted under the key {header.key_name!r}, which this process has not"
        ) from None
    return unwrap_key(
        master=master,
        wrapped=header.wrapped_key,
        associated=raw[:HEADER_WRAPPED_DATA_BYTES],
        path=path,
        name=header.key_name,
    )


def open_snapshot(
    source: Source, path: str, codecs: Codecs, *, key_of: KeyOf, data_key: bytes | None = None
) -> "SnapshotFile":
    """Read header and footer.  `data_key` spares the look-up where it is known.

    Raises `SnapshotDamaged`, or `SnapshotRefused` for an unknown format, codec or key.
    """
    header, raw = read_header(source, path)
    codec = codecs.get(header.codec, path)
    size = source.size()
    footer = decode_footer(source.pread(FOOTER_BYTES, max(0, size - FOOTER_BYTES)), path, size)
    if data_key is None:
        data_key = data_key_of(header, raw, path, key_of)
    cipher = None if data_key is None else BlockCipher(data_key, header_digest(raw))
    if cipher is not None:
        totals = encode_footer(footer)[:FOOTER_SEALED_BYTES]
        cipher.open(footer.tag, footer.blocks, totals, path=path, position=footer.position)
    return SnapshotFile(source, path, header, footer, codec, cipher, len(raw), data_key)


class SnapshotFile:
    """An open snapshot: header and footer hold, the blocks are checked as they are read."""

    def __init__(
        self,
        source: Source,
        path: str,
        header: Header,
        footer: Footer,
        codec: SnapshotCodec,
        cipher: BlockCipher | None,
        header_bytes: int,
        data_key: bytes | None,
    ) -> None:
        self.path = path
        self.data_key = data_key
        self.header = header
        self.footer = footer
        self._source = source
        self._codec = codec
        self._cipher = cipher
        self._header_bytes = header_bytes

    @property
    def size(self) -> int:
        """Length of the file in bytes."""
        return self.footer.position + FOOTER_BYTES

    def sections(self) -> Iterator[Section]:
        """All sections in order.  Raises `SnapshotDamaged`, at the latest at the end."""
        footer, digest = self.footer, StateHash()
        position, sections, chunk_bytes = self._header_bytes, 0, 0
        last: tuple[int, str] | None = None
        for number in range(footer.blocks):
            head = self._block_header(number, position)
            plain = self._payload(head, position)
            for section in self._split(plain, head, position):
                place = (section.slot, section.name)
                if last is not None and place < last:
                    raise SnapshotDamaged(self.path, position, f"{place} after {last}")
                last = place
                sections += 1
                chunk_bytes += len(section.chunk)
                digest.add(section)
                yield section
            position += BLOCK_HEADER_BYTES + head.stored_bytes + padding_of(head.stored_bytes)
        found = (position, sections, chunk_bytes)
        told = (footer.position, footer.sections, footer.chunk_bytes)
        if found != told:
            raise SnapshotDamaged(
                self.path,
                footer.position,
                f"the footer tells (bytes, sections, chunk bytes) {told}, found {found}",
            )
        if digest.value() != footer.content_hash:
            raise SnapshotDamaged(self.path, footer.position, "the content hash does not hold")

    def _block_header(self, number: int, position: int) -> BlockHeader:
        raw = self._source.pread(BLOCK_HEADER_BYTES, position)
        head = decode_block_header(raw, self.path, position)
        end = position + BLOCK_HEADER_BYTES + head.stored_bytes + padding_of(head.stored_bytes)
        if head.number != number or end > self.footer.position:
            raise SnapshotDamaged(
                self.path, position, f"block {head.number} up to byte {end}, {number} expected"
            )
        if bool(head.flags & BlockFlag.ENCRYPTED) != (self._cipher is not None):
            raise SnapshotDamaged(self.path, position, "a block that is not as the header says")
        return head

    def _payload(self, head: BlockHeader, position: int) -> bytes:
        start = position + BLOCK_HEADER_BYTES
        padding = padding_of(head.stored_bytes)
        raw = self._source.pread(head.stored_bytes + padding, start)
        stored = raw[: head.stored_bytes]
        if len(raw) != head.stored_bytes + padding or crc32c(stored) != head.payload_crc:
            raise SnapshotDamaged(self.path, start, "the block does not match its checksum")
        if any(raw[head.stored_bytes :]):
            raise SnapshotDamaged(self.path, start + head.stored_bytes, "padding that is not zero")
        if self._cipher is not None:
            sealed = self._source.pread(BLOCK_SEALED_BYTES, position)
            stored = self._cipher.open(stored, head.number, sealed, path=self.path, position=start)
        if head.flags & BlockFlag.LZ4:
            try:
                stored = lz4.block.decompress(stored, uncompressed_size=head.plain_bytes)
            except lz4.block.LZ4BlockError as problem:
                raise SnapshotDamaged(self.path, start, str(problem)) from None
        if len(stored) != head.plain_bytes:
            raise SnapshotDamaged(
                self.path, start, f"{len(stored)} bytes in a block of {head.plain_bytes}"
            )
        return stored

    def _split(self, plain: bytes, head: BlockHeader, position: int) -> Iterator[Section]:
        at, count = 0, 0
        while at < len(plain):
            end = at + 4 + int.from_bytes(plain[at : at + 4], "little")
            if end > len(plain):
                raise SnapshotDamaged(self.path, position, "a section beyond its block's end")
            try:
                section = self._codec.decode_section(plain[at + 4 : end])
                check_section(section)
            except ValueError as problem:
                raise SnapshotDamaged(self.path, position, f"a section: {problem}") from problem
            yield section
            at, count = end, count + 1
        if count != head.sections:
            raise SnapshotDamaged(
                self.path, position, f"{count} sections in a block of {head.sections}"
            )
