"""Values that snapshot tests share."""

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from ultraengine.model.ids import Epoch, FrameSequence, Instant, Offset, ShardId
from ultraengine.ports import Disk
from ultraengine.snapshot.codec import BINARY, Codecs
from ultraengine.snapshot.driver import SnapshotDriver, SnapshotTaken
from ultraengine.snapshot.format import BasePosition, Header
from ultraengine.snapshot.image import SHARD_WIDE, ImagePosition, Section
from ultraengine.snapshot.store import LoadReport, SnapshotOptions
from ultraengine.snapshot.writer import SnapshotWriter, header_with_key
from ultraengine.testing.sim_clock import SimRandom, SimSecrets
from ultraengine.testing.snapshot_images import DictImage
from ultraengine_adapters.local.clock import SystemClock
from ultraengine_adapters.local.disk import LocalDisk

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


class Harness:
    """A driver over a disk, an image that changes, and what it should hold."""

    def __init__(self, disk: Disk, **options: Any) -> None:
        self.disk = disk
        self.options = options
        self.alarms: list[tuple[str, dict[str, object]]] = []
        self.new_image: Any = options.pop("new_image", DictImage)
        self.codecs = options.pop("codecs", None)
        self.secret: bytes | None = MASTER
        self.driver_options: dict[str, Any] = options.pop("driver", {})
        self.driver = self.new_driver()
        self.image = DictImage()
        self.sequence = 0

    def new_driver(self) -> SnapshotDriver:
        return SnapshotDriver(
            self.disk,
            SystemClock(),
            SnapshotOptions(**{"shard": ShardId(3), "free_bytes_min": 0, **self.options}),
            random=SimRandom(),
            secrets=SimSecrets({} if self.secret is None else {"snapshots": self.secret}),
            codecs=self.codecs,
            new_image=self.new_image,
            alarm=lambda event, facts: self.alarms.append((event, dict(facts))),
            **self.driver_options,
        )

    def position(self) -> ImagePosition:
        return ImagePosition(
            shard=ShardId(3),
            epoch=Epoch(1),
            offset_end=Offset(self.sequence * 10),
            sequence_end=FrameSequence(self.sequence),
            chain=hashlib.blake2b(str(self.sequence).encode(), digest_size=16).digest(),
            time=Instant(self.sequence),
            handlers={"pairs": 1},
        )

    def put(self, slot: int, name: str, value: bytes) -> None:
        self.driver.before_slot_mutation(slot)
        self.image.put(slot, name, value)
        self.sequence += 1

    def remove(self, slot: int, name: str) -> None:
        self.driver.before_slot_mutation(slot)
        self.image.remove(slot, name)
        self.sequence += 1

    def fill(self, count: int, *, seed: int = 0) -> None:
        for number in range(count):
            self.put((seed + number * 7) % 50, f"n{number % 97}", f"{seed}-{number}".encode())

    def take(self, kind: Any = "auto") -> SnapshotTaken:
        return self.driver.take_inline(self.image, self.position(), kind=kind)

    def restart(self, **options: Any) -> tuple[ImagePosition | None, LoadReport]:
        """A new process: everything is gone but the disk."""
        self.driver = self.new_driver()
        image, position, report = self.driver.load_newest(DictImage, **options)
        assert isinstance(image, DictImage)
        self.image = image
        self.sequence = 0 if position is None else position.sequence_end
        return position, report


@pytest.fixture(scope="session")
def harness() -> type[Harness]:
    return Harness


@pytest.fixture
def local(tmp_path: Path) -> LocalDisk:
    return LocalDisk(tmp_path / "shard")
