"""Payloads in codec 1, users' codecs, and the split of large outcomes."""

import msgspec
import pytest
from tests.unit.log.log_world import SERIALIZER, command, outcome

from ultraengine.log.damage import LogRefused
from ultraengine.log.frame import FrameKind
from ultraengine.log.serializer import MsgpackSerializer, outcome_drafts, serializers
from ultraengine.model.errors import InvariantBroken
from ultraengine.model.ids import Instant
from ultraengine.model.outcome import Failure, Outcome


class UserSerializer(MsgpackSerializer):
    """A user's codec: the same bytes under another number."""

    def __init__(self, codec: int) -> None:
        super().__init__()
        self._codec = codec

    @property
    def codec(self) -> int:
        return self._codec


def test_commands_and_outcomes_come_back() -> None:
    commands = [command(n) for n in range(5)]
    rejected = msgspec.structs.replace(outcome(2), failure=Failure("c", "d", "/p", 4), status=1)
    outcomes = [outcome(1), rejected]
    assert SERIALIZER.codec == 1
    assert SERIALIZER.decode_commands(SERIALIZER.encode_commands(commands)) == commands
    assert SERIALIZER.decode_outcomes(SERIALIZER.encode_outcomes(outcomes)) == outcomes


def test_the_payload_is_an_array_of_arrays_in_field_order() -> None:
    payload = SERIALIZER.encode_outcomes([outcome(7)])
    assert msgspec.msgpack.decode(payload) == [[7, 0, 8, 7, [], None, None]]


@pytest.mark.parametrize("payload", [b"", b"\xc1", b"\x80", b"\x91\x91\x01", b"\x90\x00"])
def test_anything_else_is_a_value_error(payload: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  (the Protocol promises no more)
        SERIALIZER.decode_commands(payload)
    with pytest.raises(ValueError):  # noqa: PT011
        SERIALIZER.decode_outcomes(payload)


def test_users_codecs_are_64_to_255_and_given_once() -> None:
    assert set(serializers([UserSerializer(64), UserSerializer(255)])) == {1, 64, 255}
    for wrong in ([1], [2], [63], [256], [64, 64]):
        with pytest.raises(LogRefused, match="64 to 255"):
            serializers([UserSerializer(number) for number in wrong])


def decoded(drafts: object) -> list[Outcome]:
    return [one for draft in drafts for one in SERIALIZER.decode_outcomes(draft.payload)]  # type: ignore[attr-defined]


def test_outcomes_fit_into_one_frame_unless_they_are_too_large() -> None:
    outcomes = [outcome(n) for n in range(10, 110)]
    drafts = list(outcome_drafts(SERIALIZER, outcomes, Instant(5)))
    assert len(drafts) == 1
    split = list(outcome_drafts(SERIALIZER, outcomes, Instant(5), payload_bytes_max=200))
    assert len(split) > 1
    assert decoded(split) == decoded(drafts) == outcomes
    expected = 10
    for draft in split:
        assert draft.kind is FrameKind.OUTCOMES
        assert draft.base_offset == expected
        assert draft.time == 5
        assert len(draft.payload) <= 200
        expected += draft.count
    assert expected == 110


def test_outcomes_that_are_in_the_log_already_are_left_out() -> None:
    outcomes = [outcome(n) for n in range(10)]
    drafts = list(outcome_drafts(SERIALIZER, outcomes, Instant(5), recorded_end=7))
    assert drafts[0].base_offset == 7
    assert decoded(drafts) == outcomes[7:]
    assert not list(outcome_drafts(SERIALIZER, outcomes, Instant(5), recorded_end=10))


def test_one_outcome_beyond_the_limit_is_a_bug_of_the_caller() -> None:
    large = msgspec.structs.replace(
        outcome(3), result=msgspec.Raw(msgspec.msgpack.encode("x" * 99))
    )
    size = len(SERIALIZER.encode_outcomes([large]))
    said = f"an outcome fits into a frame.*offset=3.*payload_bytes={size}"
    with pytest.raises(InvariantBroken, match=said):
        list(outcome_drafts(SERIALIZER, [outcome(2), large], Instant(5), payload_bytes_max=80))
