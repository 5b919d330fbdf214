"""Content negotiation."""

import pytest

from ultraengine.edge.codec import JSON, MSGPACK, Codec, answer_codec, body_codec
from ultraengine.model.errors import EngineError


@pytest.mark.parametrize(
    ("header", "codec"),
    [
        ("application/json", JSON),
        ("Application/JSON; charset=utf-8", JSON),
        ("application/msgpack", MSGPACK),
        ("application/x-msgpack", MSGPACK),
    ],
)
def test_a_body_is_read_as_its_content_type_says(header: str, codec: Codec) -> None:
    assert body_codec(header) is codec


@pytest.mark.parametrize("header", [None, "", "text/plain", "application/json5", "json"])
def test_a_body_of_another_type_or_of_none_is_refused(header: str | None) -> None:
    with pytest.raises(EngineError) as caught:
        body_codec(header)
    assert caught.value.code == "UNSUPPORTED_MEDIA_TYPE"
    assert caught.value.pointer == "/header/content-type"


@pytest.mark.parametrize(
    ("accept", "codec"),
    [
        (None, JSON),
        ("", JSON),
        ("*/*", JSON),
        ("application/*", JSON),
        ("text/html, */*;q=0.1", JSON),
        ("application/msgpack", MSGPACK),
        ("application/json;q=0.5, application/msgpack", MSGPACK),
        ("application/msgpack;q=0.5, application/json", JSON),
        ("application/msgpack, */*", JSON),
        ("application/x-msgpack, application/json;q=0", MSGPACK),
        ("application/*;q=0.2, application/json;q=0.1", MSGPACK),
    ],
)
def test_the_answer_is_what_the_client_prefers(accept: str | None, codec: Codec) -> None:
    assert answer_codec(accept, "json") is codec


def test_without_a_preference_the_answer_speaks_the_codec_of_the_request() -> None:
    assert answer_codec("*/*", "msgpack") is MSGPACK
    assert answer_codec("application/json", "msgpack") is JSON


@pytest.mark.parametrize(
    "accept", ["text/html", "application/json;q=0", "application/json;q=nonsense"]
)
def test_a_client_that_accepts_neither_is_told_so(accept: str) -> None:
    with pytest.raises(EngineError) as caught:
        answer_codec(accept, "json")
    assert caught.value.code == "NOT_ACCEPTABLE"
