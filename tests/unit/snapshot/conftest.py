"""Values that snapshot tests share."""

from collections.abc import Iterable
from pathlib import Path

import msgspec
import pytest

from ultraengine.model.ids import Epoch, FrameSequence, Instant, Offset, ShardId
from ultraengine.snapshot.codec import BINARY, Codecs
from ultraengine.snapshot.format import BasePosition, Header
from ultraengine.snapshot.image import SHARD_WIDE, ImagePosition, Section
from ultraengine.snapshot.writer import SnapshotWriter, header_with_key

MASTER = bytes(range(32))
DATA_KEY = bytes(range(32, 64))
NONCE = bytes(range(64, 76))


class Bytes:
    """A file in memory, as far as reading goes."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def pread(self, length: int, position: int) -> bytes:
        return self.data[position : position + length]

    def size(self) -> int:
        return len(self.data)


class Samples:
    """Fixed values and the files made of them."""

    master = MASTER
    data_key = DATA_KEY
    golden = Path(__file__).parent / "golden"

    def position(self, offset_end: int = 1042) -> ImagePosition:
        return ImagePosition(
            shard=ShardId(3),
            epoch=Epoch(7),
            offset_end=Offset(offset_end),
            sequence_end=FrameSequence(offset_end // 2),
            chain=bytes(range(16)),
            state_chain=bytes(range(16, 32)),
            time=Instant(1_767_225_600_000_000),
            handlers={"trading": 2, "ledger": 5},
            history_end=123_456,
        )

    def header(self, *, codec: int = BINARY, base: BasePosition | None = None) -> Header:
        return Header(
            position=self.position(),
            created=Instant(1_767_225_600_500_000),
            codec=codec,
            base=base,
            cluster_uid=bytes(range(100, 116)),
        )

    def base(self) -> BasePosition:
        return BasePosition(
            offset_end=Offset(1000),
            sequence_end=FrameSequence(500),
            chain=bytes(range(16, 32)),
            state_hash=bytes(range(32)),
        )

    def sections(self) -> list[Section]:
        pairs = [[f"account-{number}", number * 100] for number in range(20)]
        return [
            Section(SHARD_WIDE, "timers", 1, msgspec.msgpack.encode({"due": None})),
            Section(0, "ledger", 3, msgspec.msgpack.encode(pairs)),
            Section(0, "versions", 1, bytes(range(256))),
            Section(17, "ledger", 3, b"first chunk"),
            Section(17, "ledger", 3, b"second chunk" * 40),
            Section(4095, "ledger", 3, b""),
        ]

    def file(
        self,
        sections: Iterable[Section],
        *,
        codec: int = BINARY,
        base: BasePosition | None = None,
        compress: bool = False,
        encrypt: bool = False,
        block_bytes: int = 64,
        state_hash: bytes | None = None,
    ) -> bytes:
        header = self.header(codec=codec, base=base)
        if encrypt:
            header = header_with_key(
                header, name="snapshots", master=MASTER, data_key=DATA_KEY, nonce=NONCE
            )
        writer = SnapshotWriter(
            header,
            Codecs().get(codec),
            data_key=DATA_KEY if encrypt else None,
            compress=compress,
            block_bytes=block_bytes,
        )
        parts = [writer.start(), *(writer.add(section) for section in sections)]
        return b"".join((*parts, writer.finish(state_hash or writer.content_hash)))

    def source(self, data: bytes) -> Bytes:
        return Bytes(data)

    def key_of(self, name: str) -> bytes:
        return {"snapshots": MASTER}[name]


@pytest.fixture(scope="session")
def samples() -> Samples:
    return Samples()
