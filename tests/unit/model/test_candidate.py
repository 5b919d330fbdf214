"""A verdict fits where Kubernetes keeps it, whatever it has to say."""

import msgspec
import pytest

from ultraengine.model.candidate import (
    DIFFERS,
    OK,
    UNPROVED,
    VERDICT_BYTES_MAX,
    Verdict,
    Word,
    decode_verdict,
)

FULL = Verdict(
    verdict="refused", shard=4095, offset=2**62, from_offset=1, compared=7, state_hash="ab" * 32,
    command_type="ledger.post@1", recorded="é" * 2_000, decided="\x01" * 2_000,
    detail="\x02" * 400, may_return=True, handlers={f"domain-{one}": one for one in range(20)},
)  # fmt: skip


@pytest.mark.parametrize(
    ("word", "code"), [("ok", OK), ("refused", DIFFERS), ("unproved", UNPROVED)]
)
def test_each_word_has_its_exit_code(word: Word, code: int) -> None:
    assert Verdict(verdict=word, shard=1).exit_code == code


def test_a_verdict_is_read_as_it_was_written() -> None:
    short = msgspec.structs.replace(
        FULL, recorded="r", decided="d", detail="why", handlers={"a": 1}
    )
    assert decode_verdict(short.encode()) == short
    assert decode_verdict(short.encode().decode()) == short


def test_what_is_too_long_is_cut_and_the_offset_is_not() -> None:
    content = FULL.encode()
    assert len(content) <= VERDICT_BYTES_MAX
    found = decode_verdict(content)
    assert found is not None
    assert (found.verdict, found.shard, found.offset) == ("refused", 4095, 2**62)


@pytest.mark.parametrize("content", ["", "Error", b"\xff", "{}", '{"verdict":"maybe","shard":0}'])
def test_anything_else_is_no_verdict(content: str | bytes) -> None:
    assert decode_verdict(content) is None
