"""Writes the golden files of log format version 1: run once per format version, never again.

    python -m tests.unit.log.golden.make

Each file is one segment with three frames, or a key-compacted archive.  A release that
cannot read them, or would write other bytes for the same content, has changed the format and
needs a new version.
"""

from pathlib import Path

import msgspec

from ultraengine.log import frame as frames
from ultraengine.log.digest import state_chain
from ultraengine.log.first import encode_first
from ultraengine.log.frame import FrameDraft, FrameKind, Keys, Place
from ultraengine.log.key_archive import Entry, encode_archive
from ultraengine.log.segment import GENESIS, KeyRing, SegmentHeader, advance, encode_header
from ultraengine.log.serializer import MsgpackSerializer
from ultraengine.model.command import Command
from ultraengine.model.ids import ConfigVersion, Epoch, FrameSequence, Instant, Offset, ShardId
from ultraengine.model.outcome import Failure, Outcome
from ultraengine.testing.sim_clock import SimRandom, SimSecrets

HERE = Path(__file__).parent
SECRETS = SimSecrets({"golden-master": bytes(range(32)), "golden-chain": bytes(range(64, 96))})
TIME = Instant(1_767_225_600_123_456)
START = msgspec.structs.replace(
    GENESIS,
    sequence=FrameSequence(1000),
    offset=Offset(5000),
    recorded_end=Offset(4998),
    epoch=Epoch(2),
    time=TIME,
    handlers=b"handlers",
    chain=bytes(range(16)),
    state_chain=bytes(range(16, 32)),
)
FORMS = {
    "v1-plain.bin": (False, "", ""),
    "v1-lz4.bin": (True, "", ""),
    "v1-aes.bin": (False, "golden-master", "golden-chain"),
    "v1-lz4-aes.bin": (True, "golden-master", "golden-chain"),
}
"""File: whether compressed, name of the master key, name of the chain key."""


def raw(value: object) -> msgspec.Raw:
    """Msgpack of a value."""
    return msgspec.Raw(msgspec.msgpack.encode(value))


COMMANDS = [
    Command(
        f"pay-{number}",
        "ledger.create_transfers@1",
        "book-1",
        raw({"transfers": [{"id": f"t{number}", "from": "alice", "to": "shop", "amount": 1250}]}),
        "acme",
        "api-key-1",
        expected_version=None if number else 7,
        issued_at=TIME - 5,
        correlation_id="checkout-77",
        traceparent="00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    )
    for number in range(3)
]
OUTCOMES = [
    Outcome(4998, 0, 7, raw({"transfers": [{"status": "posted"}]}), raw([[1, "alice", -1250]])),
    Outcome(4999, 1, 7, raw(None), raw([]), Failure("exceeds_balance", "short by 3", "/data", 7)),
]


def drafts() -> list[FrameDraft]:
    """The content of every golden file."""
    serializer = MsgpackSerializer()
    return [
        FrameDraft(FrameKind.OUTCOMES, 4998, 2, TIME, serializer.encode_outcomes(OUTCOMES)),
        FrameDraft(FrameKind.COMMANDS, 5000, 3, TIME + 1, serializer.encode_commands(COMMANDS)),
        FrameDraft(FrameKind.COMMANDS, 5003, 1, TIME + 2, b"\x91\xc0"),
    ]


def header_and_keys(name: str) -> tuple[SegmentHeader, Keys]:
    """The segment header of a golden file, with salt and key from a seed."""
    _, master_key, chain_key = FORMS[name]
    header = SegmentHeader(
        shard=ShardId(3),
        cluster_uid=bytes(range(32, 48)),
        created=TIME,
        point=START,
        salt=b"",
        master_key=master_key,
        chain_key=chain_key,
    )
    return KeyRing(SECRETS).create(header, SimRandom(20260101))


def content(name: str) -> bytes:
    """The bytes of a golden file."""
    compress = FORMS[name][0]
    header, keys = header_and_keys(name)
    parts, point = [encode_header(header)], START
    for draft in drafts():
        place = Place(
            header.shard,
            Epoch(2),
            ConfigVersion(9),
            point.sequence,
            b"handlers",
            FrameSequence(1000),
            point.chain,
            header.salt,
            1,
        )
        made, _, chain = frames.encode(draft, place, keys, compress=compress)
        parts += made
        state = point.state_chain
        if draft.kind is FrameKind.OUTCOMES:
            state = state_chain(state, draft.payload)
        point = advance(point, frames.decode_header(b"".join(made[:2])), chain, state)
    return b"".join(parts)


ARCHIVE = "v1-keys.bin"
ENTRIES = [
    Entry("acme", "book-1", Offset(5002), Epoch(2), TIME, COMMANDS[2], OUTCOMES[0]),
    Entry("beta", "book-1", Offset(5001), Epoch(2), TIME, COMMANDS[1], OUTCOMES[0]),
]


def archive_content() -> bytes:
    """The bytes of the golden key-compacted archive."""
    header = SegmentHeader(
        shard=ShardId(3),
        cluster_uid=bytes(range(32, 48)),
        created=TIME,
        point=msgspec.structs.replace(GENESIS, offset=Offset(5000)),
        salt=b"",
        archive=True,
        end_sequence=FrameSequence(1003),
        end_offset=Offset(5004),
    )
    header, keys = KeyRing(SECRETS).create(header, SimRandom(20260102))
    return encode_archive(header, keys, ENTRIES, compress=False)


FIRST = "v1-first.bin"
FIRST_SEQUENCE = 70_000_001


if __name__ == "__main__":
    (HERE / FIRST).write_bytes(encode_first(FIRST_SEQUENCE))
    (HERE / ARCHIVE).write_bytes(archive_content())
    for name in FORMS:
        (HERE / name).write_bytes(content(name))
