"""Payloads of frames in codec 1: msgpack arrays (`FORMAT.md`), and codecs of users' own.

`MsgpackSerializer` is the shipped `model.policy.LogSerializer`.  Its decoders are typed, so
that a payload either is what the format says or raises ValueError.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

import msgspec

from ultraengine.log.damage import LogRefused
from ultraengine.log.frame import COUNT_MAX, PAYLOAD_BYTES_MAX, FrameDraft, FrameKind
from ultraengine.model.command import Command
from ultraengine.model.errors import InvariantBroken
from ultraengine.model.ids import Instant
from ultraengine.model.outcome import Outcome
from ultraengine.model.policy import LogSerializer

MSGPACK: Final = 1
USER_CODEC_MIN: Final = 64
USER_CODEC_MAX: Final = 255


class MsgpackSerializer:
    """Codec 1.  Safe to use from several threads."""

    def __init__(self) -> None:
        self._encode = msgspec.msgpack.Encoder().encode
        self._commands = msgspec.msgpack.Decoder(list[Command])
        self._outcomes = msgspec.msgpack.Decoder(list[Outcome])

    @property
    def codec(self) -> int:
        """1."""
        return MSGPACK

    def encode_commands(self, commands: Sequence[Command]) -> bytes:
        """A msgpack array of `Command` arrays."""
        return self._encode(commands)

    def decode_commands(self, payload: bytes) -> list[Command]:
        """Inverse of ``encode_commands``.  Raises ValueError on anything else."""
        return self._commands.decode(payload)

    def encode_outcomes(self, outcomes: Sequence[Outcome]) -> bytes:
        """A msgpack array of `Outcome` arrays."""
        return self._encode(outcomes)

    def decode_outcomes(self, payload: bytes) -> list[Outcome]:
        """Inverse of ``encode_outcomes``.  Raises ValueError on anything else."""
        return self._outcomes.decode(payload)


def serializers(own: Iterable[LogSerializer] = ()) -> Mapping[int, LogSerializer]:
    """Serializers by codec: the shipped one and users' own, numbered 64 to 255.

    Raises `LogRefused` for a number outside that range or given twice.
    """
    table: dict[int, LogSerializer] = {MSGPACK: MsgpackSerializer()}
    for serializer in own:
        codec = serializer.codec
        if not USER_CODEC_MIN <= codec <= USER_CODEC_MAX or codec in table:
            raise LogRefused(f"codec {codec} is not 64 to 255, or is given twice")
        table[codec] = serializer
    return table


def outcome_drafts(
    serializer: LogSerializer,
    outcomes: Sequence[Outcome],
    time: Instant,
    *,
    recorded_end: int = 0,
    payload_bytes_max: int = PAYLOAD_BYTES_MAX,
) -> Iterator[FrameDraft]:
    """OUTCOMES drafts of one group: one, unless a payload would go beyond its limit.

    `outcomes` have dense offsets.  Those below `recorded_end` are left out: after a crash
    between two frames of one group the first of them may be in the log already.
    Raises `InvariantBroken` when one outcome alone is beyond the limit.
    """
    rest = [outcome for outcome in outcomes if outcome.offset >= recorded_end]
    while rest:
        count = min(len(rest), COUNT_MAX)
        payload = serializer.encode_outcomes(rest[:count])
        while len(payload) > payload_bytes_max:
            if count == 1:
                raise InvariantBroken(
                    "an outcome fits into a frame",
                    offset=rest[0].offset,
                    payload_bytes=len(payload),
                )
            count = (count + 1) // 2
            payload = serializer.encode_outcomes(rest[:count])
        yield FrameDraft(FrameKind.OUTCOMES, rest[0].offset, count, time, payload)
        rest = rest[count:]
