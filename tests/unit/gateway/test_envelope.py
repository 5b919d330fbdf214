"""Bytes and headers to envelopes."""

import uuid
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from multidict import CIMultiDict

from ultraengine.edge.codec import JSON, MSGPACK, Codec
from ultraengine.gateway.envelope import (
    ID_RANDOM_BYTES,
    Envelope,
    Refusal,
    decode_batch,
    decode_one,
    fill_ids,
    forbid_single_headers,
    issued_micros,
    merge_headers,
    missing_ids,
    parse_if_match,
    uuid7,
    wants_async,
)
from ultraengine.model.errors import EngineError, Malformed
from ultraengine.model.limits import Limits

T = TypeVar("T")
LIMITS = Limits(commands_per_batch_max=5)
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
BOTH = pytest.mark.parametrize("codec", [JSON, MSGPACK], ids=lambda codec: codec.name)


def command(**more: Any) -> dict[str, Any]:
    return {"id": "a", "type": "counter.add", "key": "k", "data": {"delta": 1}, **more}


def one(codec: Codec = JSON, **more: Any) -> Envelope:
    return decode_one(codec.encode(command(**more)), codec.name)


@BOTH
def test_a_command_is_decoded_and_its_data_stays_raw(codec: Codec) -> None:
    envelope = one(codec, expected_version=7, correlation_id="checkout-77", traceparent=TRACE)
    assert (envelope.id, envelope.type, envelope.key) == ("a", "counter.add", "k")
    assert bytes(envelope.data) == codec.encode({"delta": 1})
    assert envelope.expected_version == 7
    assert (envelope.correlation_id, envelope.traceparent) == ("checkout-77", TRACE)


@BOTH
@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("key", 7),
        ("id", ["a"]),
        ("type", None),
        ("expected_version", -1),
        ("expected_version", 2**63),
        ("expected_version", True),
        ("expected_version", 1.5),
        ("issued_at", "yesterday"),
        ("issued_at", "2026-11-20T10:00:00"),
        ("issued_at", -1),
        ("correlation_id", ""),
        ("correlation_id", "x" * 257),
        ("correlation_id", "line\nbreak"),
        ("traceparent", "00-zz"),
        ("traceparent", "00-" + "0" * 32 + "-b7ad6b7169203331-01"),
    ],
)
def test_a_member_of_the_wrong_shape_is_named_by_a_pointer(
    codec: Codec, member: str, value: object
) -> None:
    with pytest.raises(Malformed) as caught:
        one(codec, **{member: value})
    assert caught.value.pointer == f"/{member}"


@BOTH
def test_unknown_and_missing_members_are_errors(codec: Codec) -> None:
    with pytest.raises(Malformed, match="unknown field `tenant`"):
        one(codec, tenant="somebody-else")
    with pytest.raises(Malformed, match="missing required field `key`"):
        decode_one(codec.encode({"type": "a.b", "data": {}}), codec.name)


@pytest.mark.parametrize("body", [b"", b"{", b"nul", b"\xff", b'{"a": "\xff"}', b"[" * 100_000])
def test_bytes_that_are_no_json_are_malformed_and_nothing_else(body: bytes) -> None:
    with pytest.raises(Malformed):
        decode_one(body, "json")
    with pytest.raises(Malformed):
        decode_batch(body, "json", LIMITS)


@BOTH
@pytest.mark.parametrize(
    ("value", "micros"),
    [
        ("2026-11-20T10:00:00.000001Z", 1_795_168_800_000_001),
        ("2026-11-20T11:00:00+01:00", 1_795_168_800_000_000),
        (1_795_168_800_000_001, 1_795_168_800_000_001),
        ("1969-12-31T23:59:59Z", -1_000_000),
    ],
)
def test_the_time_of_issue_is_a_text_or_microseconds(
    codec: Codec, value: object, micros: int
) -> None:
    assert issued_micros(one(codec, issued_at=value)) == micros


def test_without_a_time_of_issue_there_is_none() -> None:
    assert issued_micros(one()) is None


@BOTH
def test_bad_elements_of_a_batch_are_refused_singly_with_their_ids(codec: Codec) -> None:
    body = codec.encode(
        [
            command(),
            command(id="wrong-key", key=1),
            {"id": 5},
            [1],
            command(id="odd-trace", traceparent="x"),
        ]
    )
    parsed = decode_batch(body, codec.name, LIMITS)
    assert isinstance(parsed[0], Envelope)
    refusals = parsed[1:]
    assert all(isinstance(item, Refusal) for item in refusals)
    assert [(item.id, item.pointer) for item in refusals if isinstance(item, Refusal)] == [
        ("wrong-key", "/key"),
        ("", "/id"),
        ("", ""),
        ("odd-trace", "/traceparent"),
    ]


@BOTH
def test_only_the_odd_text_of_a_well_formed_batch_is_refused(codec: Codec) -> None:
    body = codec.encode([command(correlation_id="\0"), command(correlation_id="fine")])
    refused, taken = decode_batch(body, codec.name, LIMITS)
    assert isinstance(refused, Refusal)
    assert (refused.id, refused.pointer) == ("a", "/correlation_id")
    assert isinstance(taken, Envelope)


@BOTH
@pytest.mark.parametrize("element", [command(), 5], ids=["good", "bad"])
def test_a_batch_beyond_its_limit_is_refused_whole(codec: Codec, element: object) -> None:
    assert len(decode_batch(codec.encode([element] * 5), codec.name, LIMITS)) == 5
    with pytest.raises(EngineError) as caught:
        decode_batch(codec.encode([element] * 6), codec.name, LIMITS)
    assert caught.value.code == "TOO_LARGE"


@BOTH
def test_a_batch_is_an_array(codec: Codec) -> None:
    with pytest.raises(Malformed, match="array"):
        decode_batch(codec.encode(command()), codec.name, LIMITS)


def test_a_very_long_id_of_a_refused_element_is_shortened() -> None:
    (item,) = decode_batch(JSON.encode([{"id": "x" * 10_000}]), "json", LIMITS)
    assert isinstance(item, Refusal)
    assert item.id == "x" * 128


def test_headers_stand_in_for_absent_members() -> None:
    envelope = decode_one(JSON.encode({"type": "a.b", "key": "k", "data": {}}), "json")
    merge_headers(
        envelope,
        CIMultiDict({"idempotency-key": '"quoted-1"', "if-match": '"7"', "traceparent": TRACE}),
    )
    assert (envelope.id, envelope.expected_version) == ("quoted-1", 7)
    assert envelope.traceparent == TRACE


def test_headers_that_say_the_same_as_members_are_taken() -> None:
    envelope = one(expected_version=7)
    merge_headers(envelope, CIMultiDict({"Idempotency-Key": "a", "If-Match": '"7"'}))
    assert (envelope.id, envelope.expected_version) == ("a", 7)


@pytest.mark.parametrize(
    ("name", "value"), [("Idempotency-Key", "b"), ("If-Match", '"8"'), ("Idempotency-Key", "")]
)
def test_a_header_that_contradicts_its_member_is_malformed(name: str, value: str) -> None:
    with pytest.raises(Malformed) as caught:
        merge_headers(one(expected_version=7), {name.lower(): value})
    assert caught.value.pointer == f"/header/{name.lower()}"


def test_a_header_that_is_there_twice_with_two_values_is_malformed() -> None:
    twice = CIMultiDict([("Idempotency-Key", "a"), ("Idempotency-Key", "b")])
    with pytest.raises(Malformed, match="2 times"):
        merge_headers(one(), twice)
    same = CIMultiDict([("Idempotency-Key", "a"), ("Idempotency-Key", "a")])
    merge_headers(one(), same)


@pytest.mark.parametrize(
    "tag", ["7", 'W/"7"', "*", '"07"', '"-1"', '"a"', '"1", "2"', '"' + "9" * 19 + '"']
)
def test_if_match_is_one_strong_tag_with_a_version(tag: str) -> None:
    with pytest.raises(Malformed):
        parse_if_match(tag)


def test_if_match_zero_says_must_not_exist() -> None:
    assert parse_if_match(' "0" ') == 0


def test_the_trace_of_a_member_wins_over_the_header_and_odd_headers_are_ignored() -> None:
    other = TRACE.replace("b7", "c7")
    envelope = one(traceparent=TRACE)
    merge_headers(envelope, {"traceparent": other})
    assert envelope.traceparent == TRACE
    envelope = one()
    merge_headers(envelope, {"traceparent": "nonsense"})
    assert envelope.traceparent is None


def test_headers_of_single_commands_do_not_fit_a_batch() -> None:
    forbid_single_headers({"accept": "x"})
    for name in ("idempotency-key", "if-match"):
        with pytest.raises(Malformed, match=name):
            forbid_single_headers({name: "x"})


@pytest.mark.parametrize(
    ("prefer", "wanted"),
    [
        (None, False),
        ("respond-async", True),
        ("wait=10, Respond-Async", True),
        ("respond-async; foo=bar", True),
        ("return=minimal", False),
    ],
)
def test_an_asynchronous_answer_is_given_to_who_prefers_one(
    prefer: str | None, wanted: bool
) -> None:
    assert wants_async({} if prefer is None else {"prefer": prefer}) is wanted


@given(now_ms=st.integers(0, 2**48 - 1), random=st.binary(min_size=10, max_size=10))
def test_ids_made_here_are_uuids_of_version_seven_with_their_time(
    now_ms: int, random: bytes
) -> None:
    text = uuid7(now_ms, random)
    made = uuid.UUID(text)
    assert str(made) == text
    assert (made.version, made.variant) == (7, uuid.RFC_4122)
    assert made.int >> 80 == now_ms


def test_each_nameless_command_gets_an_id_of_its_own() -> None:
    nameless = {"type": "a.b", "key": "k", "data": {}}
    body = JSON.encode([nameless, command(), {"id": 1}, nameless])
    parsed = decode_batch(body, "json", LIMITS)
    places = missing_ids(parsed)
    assert places == [0, 3]
    fill_ids(parsed, places, 1, bytes(range(2 * ID_RANDOM_BYTES)))
    ids = [item.id for item in parsed if isinstance(item, Envelope)]
    assert len(set(ids)) == 3
    assert None not in ids
    assert missing_ids(parsed) == []


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=12,
)
MEMBERS = st.sampled_from(
    ["id", "type", "key", "data", "expected_version", "issued_at", "correlation_id", "traceparent"]
)
NEARLY = st.dictionaries(MEMBERS, JSON_VALUES)


@settings(max_examples=60, deadline=None)
@given(
    st.one_of(
        st.binary(), NEARLY.map(msgspec.json.encode), st.lists(NEARLY).map(msgspec.json.encode)
    )
)
def test_any_json_gives_envelopes_or_a_refusal_and_nothing_else(body: bytes) -> None:
    check_total(body, JSON)


@settings(max_examples=60, deadline=None)
@given(
    st.one_of(
        st.binary(),
        st.lists(NEARLY).map(
            lambda v: (
                msgspec.msgpack.encode(msgspec.to_builtins(v, builtin_types=())) if fits(v) else b""
            )
        ),
    )
)
def test_any_msgpack_gives_envelopes_or_a_refusal_and_nothing_else(body: bytes) -> None:
    check_total(body, MSGPACK)


def fits(value: object) -> bool:
    """Whether msgpack can hold all integers of a value."""
    try:
        msgspec.msgpack.encode(value)
    except OverflowError:
        return False
    return True


def check_total(body: bytes, codec: Codec) -> None:
    batch = decoded_or_code(lambda: decode_batch(body, codec.name, LIMITS))
    if isinstance(batch, str):
        assert batch in {"MALFORMED", "TOO_LARGE"}
    else:
        assert all(isinstance(item, Envelope | Refusal) for item in batch)
    single = decoded_or_code(lambda: decode_one(body, codec.name))
    if isinstance(single, str):
        assert single == "MALFORMED"
    else:
        issued_micros(single)


def decoded_or_code(decode: Callable[[], T]) -> T | str:
    """What was decoded, or the code of its refusal."""
    try:
        return decode()
    except EngineError as error:
        return error.code
