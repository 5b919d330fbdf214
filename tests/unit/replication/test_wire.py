"""Messages between replicas are what FORMAT.md says, and no bytes do harm."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ultraengine.log.digest import crc32c
from ultraengine.log.frame import (
    Frame,
    FrameDraft,
    FrameKind,
    Keys,
    Place,
    decode,
    encode,
)
from ultraengine.model.ids import ConfigVersion, Epoch, FrameSequence, ShardId
from ultraengine.replication import wire
from ultraengine.replication.epochs import EpochStart
from ultraengine.replication.follower import Join
from ultraengine.replication.messages import (
    Append,
    Ask,
    Beacon,
    Behind,
    Confirm,
    Confirmed,
    Found,
    Held,
    Hello,
    Joining,
    Lead,
    Message,
    Reserve,
    Told,
)
from ultraengine.replication.promise import Promise
from ultraengine.replication.promotion import Answer
from ultraengine.replication.record import DiskId, Holder, Record, ReplicaId, Seat
from ultraengine.replication.wire import Greeting, WireDamaged

PLAIN, KEYED = Keys(), Keys(None, b"c" * 32)
SEAT = Seat(ReplicaId(1), DiskId(b"d" * 16))
ME = Holder(SEAT, 3)
LEADER = Holder(Seat(ReplicaId(0), DiskId(b"e" * 16)), 2)
EPOCH, VERSION = Epoch(4), ConfigVersion(9)
TABLE = (EpochStart(Epoch(1), 0), EpochStart(EPOCH, 7))
RECORD = Record(b"u" * 16, ShardId(5), EPOCH, LEADER, (LEADER.seat, SEAT), 2, VERSION)
ANSWER = Answer(3, Promise(EPOCH, LEADER, VERSION, seated=True), EPOCH, 12)
JOIN = Join(EPOCH, LEADER, VERSION, True, TABLE, 12, 7, b"h" * 16)
GREETING = Greeting(b"u" * 16, ShardId(5), ME)
PLAIN_MESSAGES: list[Message] = [
    Beacon(EPOCH, LEADER),
    Behind(EPOCH, LEADER, SEAT),
    Hello(EPOCH, ME, 1, TABLE, 12),
    Joining(1, JOIN),
    Held(EPOCH, LEADER, ME, 12, VERSION),
    Ask(7),
    Reserve(7, EPOCH),
    Found(7, RECORD),
    Told(7, SEAT, ANSWER, None),
    Told(7, SEAT, ANSWER, EPOCH, 0.25),
    Told(7, SEAT, ANSWER, EPOCH, 0.25, 99, "http://a:1"),
    Lead(RECORD),
    Confirm(EPOCH, LEADER, 17),
    Confirmed(EPOCH, LEADER, ME, 17),
]


def frame_run(count: int, *, first: int = 20, keys: Keys = PLAIN, size: int = 30) -> list[Frame]:
    """Frames of one history, as their leader's log holds them."""
    made, chain = [], b"0" * 16
    for sequence in range(first, first + count):
        place = Place(
            ShardId(5), EPOCH, VERSION, FrameSequence(sequence), b"handlers",
            FrameSequence(sequence), chain, b"saltsalt", 1,
        )  # fmt: skip
        draft = FrameDraft(FrameKind.COMMANDS, sequence * 2, 2, 10 + sequence, b"ab" * size)
        frame = decode(b"".join(encode(draft, place, keys)[0]), 0, keys)
        made.append(frame)
        chain = frame.chain
    return made


def append(frames: list[Frame], position: int = 20) -> bytes:
    sent = [wire.stored(one) for one in frames]
    return wire.encode_message(Append(EPOCH, LEADER, SEAT, VERSION, True, position, 18), sent)


def received(raw: bytes, keys: Keys = PLAIN) -> Message:
    head = wire.decode_head(raw[: wire.HEAD_BYTES])
    assert head.rest_bytes == len(raw) - wire.HEAD_BYTES
    return wire.decode_message(head, raw[wire.HEAD_BYTES :], keys)


def resealed(raw: bytes, position: int, value: bytes) -> bytes:
    """`raw` with other bytes and a checksum that holds again."""
    changed = raw[:position] + value + raw[position + len(value) :]
    length = int.from_bytes(changed[8:12], "little")
    crc = crc32c(changed[:16] + changed[20 : 20 + length])
    return changed[:16] + crc.to_bytes(4, "little") + changed[20:]


@pytest.mark.parametrize("message", PLAIN_MESSAGES, ids=lambda one: type(one).__name__)
def test_a_message_arrives_as_it_was_sent(message: Message) -> None:
    assert received(wire.encode_message(message)) == message


def test_a_greeting_arrives_as_it_was_sent() -> None:
    raw = wire.encode_greeting(GREETING)
    head = wire.decode_head(raw[:20])
    assert wire.decode_greeting(head, raw[20:]) == GREETING


def test_the_head_has_the_documented_bytes() -> None:
    body = msgspec.msgpack.encode(Ask(7))
    head = b"UERW" + bytes([1, 2, 0, 0]) + len(body).to_bytes(4, "little") + bytes(4)
    expected = head + crc32c(head + body).to_bytes(4, "little") + body
    assert wire.encode_message(Ask(7)) == expected
    assert body == bytes.fromhex("82a474797065a341736ba66e756d62657207")


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("keys", [PLAIN, KEYED], ids=["plain", "keyed"])
def test_frames_arrive_with_the_history_that_their_leader_gave_them(
    keys: Keys, compress: bool
) -> None:
    frames = frame_run(3, keys=keys, size=100)
    sent = [wire.stored(one, compress=compress) for one in frames]
    raw = wire.encode_message(Append(EPOCH, LEADER, SEAT, VERSION, True, 20, 18), sent)
    message = received(raw, keys)
    assert isinstance(message, Append)
    assert [one.chain for one in message.frames] == [one.chain for one in frames]
    assert [one.payload for one in message.frames] == [one.payload for one in frames]
    assert [one.header.epoch for one in message.frames] == [EPOCH] * 3
    assert (len(sent[0]) < len(wire.stored(frames[0]))) is compress


def test_a_frame_of_the_greatest_length_can_be_sent() -> None:
    place = Place(
        ShardId(5), EPOCH, VERSION, FrameSequence(20), b"handlers", FrameSequence(0),
        b"0" * 16, b"saltsalt", 1,
    )  # fmt: skip
    draft = FrameDraft(FrameKind.COMMANDS, 0, 1, 1, bytes(16 * 1024 * 1024))
    frame = decode(b"".join(encode(draft, place, PLAIN)[0]), 0, PLAIN)
    message = received(append([frame]))
    assert isinstance(message, Append)
    assert message.frames[0].chain == frame.chain


@given(st.lists(st.integers(1, 50), max_size=30), st.integers(1, 60))
def test_batches_hold_every_frame_once_and_in_order(sizes: list[int], bytes_max: int) -> None:
    frames = [bytes([number]) * size for number, size in enumerate(sizes)]
    runs = wire.batches(frames, bytes_max)
    assert [one for run in runs for one in run] == frames
    assert all(run for run in runs)
    assert all(len(run) == 1 or sum(map(len, run)) <= bytes_max for run in runs)


def test_a_batch_has_no_more_frames_than_a_message_may_have() -> None:
    runs = wire.batches([b"x"] * 2500, 10_000)
    assert [len(run) for run in runs] == [1024, 1024, 452]


GOOD: list[bytes] = [
    wire.encode_greeting(GREETING),
    *(wire.encode_message(one) for one in PLAIN_MESSAGES),
    append(frame_run(2)),
]


def decoded(raw: bytes) -> object:
    """What a replica does with bytes that came."""
    head = wire.decode_head(raw[:20])
    if head.kind is wire.Kind.GREETING:
        return wire.decode_greeting(head, raw[20:])
    return wire.decode_message(head, raw[20:], PLAIN)


@given(st.sampled_from(GOOD), st.data())
def test_a_flipped_byte_is_noticed(raw: bytes, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(raw) - 1))
    flipped = raw[:at] + bytes([raw[at] ^ data.draw(st.integers(1, 255))]) + raw[at + 1 :]
    with pytest.raises(WireDamaged):
        decoded(flipped)


@given(st.sampled_from(GOOD), st.data())
def test_a_message_that_is_cut_off_is_noticed(raw: bytes, data: st.DataObject) -> None:
    with pytest.raises(WireDamaged):
        decoded(raw[: data.draw(st.integers(0, len(raw) - 1))])


@given(st.binary(max_size=200))
def test_any_bytes_are_refused(raw: bytes) -> None:
    with pytest.raises(WireDamaged):
        decoded(raw)


@given(st.sampled_from(GOOD), st.data())
def test_a_body_of_another_shape_with_a_good_checksum_does_no_harm(
    raw: bytes, data: st.DataObject
) -> None:
    at = data.draw(st.integers(20, len(raw) - 1))
    changed = resealed(raw, at, bytes([data.draw(st.integers(0, 255))]))
    try:
        found = decoded(changed)
    except WireDamaged:
        return
    assert isinstance(found, Greeting | Message)


@pytest.mark.parametrize(
    ("position", "value"),
    [
        (0, b"X"),
        (4, b"\2"),
        (5, b"\0"),
        (5, b"\4"),
        (6, (1025).to_bytes(2, "little")),
        (8, (wire.BODY_BYTES_MAX + 1).to_bytes(4, "little")),
        (12, (wire.FRAMES_BYTES_MAX + 1).to_bytes(4, "little")),
    ],
)
def test_a_head_beyond_the_limits_is_refused_before_anything_is_read(
    position: int, value: bytes
) -> None:
    raw = resealed(wire.encode_message(Ask(7)), position, value)
    with pytest.raises(WireDamaged):
        wire.decode_head(raw[:20])


def test_a_greeting_is_no_message_and_a_message_no_greeting() -> None:
    greeting, message = wire.encode_greeting(GREETING), wire.encode_message(Ask(7))
    with pytest.raises(WireDamaged):
        wire.decode_message(wire.decode_head(greeting[:20]), greeting[20:], PLAIN)
    with pytest.raises(WireDamaged):
        wire.decode_greeting(wire.decode_head(message[:20]), message[20:])


def with_frames(raw: bytes, frames: list[bytes]) -> bytes:
    """A message with these frames behind it, whatever it is."""
    count = len(frames).to_bytes(2, "little")
    length = sum(map(len, frames)).to_bytes(4, "little")
    return resealed(resealed(raw, 6, count), 12, length) + b"".join(frames)


@pytest.mark.parametrize("raw", [GOOD[0], wire.encode_message(Ask(7))], ids=["greeting", "ask"])
def test_only_an_append_has_frames(raw: bytes) -> None:
    with pytest.raises(WireDamaged, match="frames"):
        decoded(with_frames(raw, [wire.stored(frame_run(1)[0])]))


def test_frames_in_the_body_are_refused() -> None:
    message = Append(EPOCH, LEADER, SEAT, VERSION, True, 20, 18, tuple(frame_run(1)))
    with pytest.raises(WireDamaged, match="behind the body"):
        received(wire.encode_message(message))


def test_frames_that_do_not_follow_each_other_are_refused() -> None:
    first, second, third = frame_run(3)
    for wrong in ([first, third], [second, first], [first, frame_run(3, size=31)[1]]):
        with pytest.raises(WireDamaged, match="stands where"):
            received(append(wrong))
    with pytest.raises(WireDamaged, match="stands where"):
        received(append([second], position=20))


def test_bytes_behind_the_last_frame_are_refused() -> None:
    raw = append(frame_run(1)) + bytes(8)
    length = int.from_bytes(raw[12:16], "little") + 8
    with pytest.raises(WireDamaged, match="more than"):
        received(resealed(raw, 12, length.to_bytes(4, "little")))


def too_much() -> list[Any]:
    table = tuple(EpochStart(Epoch(one), one) for one in range(100_000))
    return [
        lambda: wire.encode_message(Hello(EPOCH, ME, 1, table, 100_000)),
        lambda: wire.encode_message(Ask(1), [b"x"] * 1025),
        lambda: wire.encode_message(Ask(1), [bytes(wire.FRAMES_BYTES_MAX + 1)]),
    ]


@pytest.mark.parametrize("send", too_much())
def test_what_nobody_would_take_is_not_sent(send: Any) -> None:
    with pytest.raises(WireDamaged, match="too many to send"):
        send()
