"""The bytes of the hop: answers in any pieces, and nothing that could be taken for another."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ultraengine.router.exposition import join
from ultraengine.router.wire import (
    HEAD_BYTES_MAX,
    Answered,
    AnswerReader,
    BadAnswer,
    request,
)

ANSWER = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 5\r\nDate: now\r\n"
    b'ETag: "7"\r\nUltra-Offset:  41 \r\nServer: ultraengine\r\n\r\nhello'
)


@given(st.lists(st.integers(0, len(ANSWER)), max_size=6))
def test_an_answer_is_the_same_in_whatever_pieces_it_comes(cuts: list[int]) -> None:
    reader = AnswerReader()
    places = [0, *sorted(cuts), len(ANSWER)]
    found = [reader.feed(ANSWER[start:end]) for start, end in pairwise(places) if end > start]
    assert found[:-1] == [None] * (len(found) - 1)
    answer = found[-1]
    assert answer == Answered(
        200, "application/json", (("ETag", '"7"'), ("Ultra-Offset", "41")), b"hello"
    )
    assert answer.header("etag") == '"7"'
    assert answer.header("server") is None
    assert reader.feed(b"HTTP/1.1 503 Busy\r\nConnection: close\r\nContent-Length: 0\r\n\r\n") == (
        Answered(503, "", (), b"", keep_alive=False)
    )


def test_an_answer_without_a_body_needs_no_length() -> None:
    for status in (204, 304):
        answer = AnswerReader().feed(b'HTTP/1.1 %d X\r\nETag: "1"\r\n\r\n' % status)
        assert answer is not None
        assert (answer.status, answer.body) == (status, b"")


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.0 200 OK\r\nContent-Length: 0",
        b"HTTP/1.1 999 OK\r\nContent-Length: 0",
        b"nonsense",
        b"HTTP/1.1 200 OK",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\xb2",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 0",
        b"HTTP/1.1 200 OK\r\nno colon\r\nContent-Length: 0",
        b"HTTP/1.1 200 OK\r\n: no name\r\nContent-Length: 0",
    ],
)
def test_what_is_not_understood_is_an_error_and_no_answer(head: bytes) -> None:
    with pytest.raises(BadAnswer):
        AnswerReader().feed(head + b"\r\n\r\n")


def test_bytes_behind_an_answer_belong_to_nobody() -> None:
    with pytest.raises(BadAnswer, match="3 bytes behind"):
        AnswerReader().feed(ANSWER + b"HTT")


def test_a_head_has_an_end() -> None:
    reader = AnswerReader()
    assert reader.feed(b"x" * HEAD_BYTES_MAX) is None
    with pytest.raises(BadAnswer):
        reader.feed(b"x")


def test_a_request_is_what_it_says() -> None:
    assert request("GET", "/v1/x?a=1", (("Accept", "application/json"),)) == (
        b"GET /v1/x?a=1 HTTP/1.1\r\nHost: shard\r\nAccept: application/json\r\n\r\n"
    )
    assert request("POST", "/p", (), b"ab").endswith(b"\r\nContent-Length: 2\r\n\r\nab")
    assert request("POST", "/p", ()).endswith(b"\r\nContent-Length: 0\r\n\r\n")


@pytest.mark.parametrize("text", ["a\r\nB: c", "a\nb", "\x00", "caf\u00e9", "a\x7f", "\u2028"])
def test_nothing_that_a_client_sends_ends_a_line_of_a_request(text: str) -> None:
    with pytest.raises(ValueError, match="printable"):
        request("GET", "/v1/" + text, ())
    with pytest.raises(ValueError, match="printable"):
        request("GET", "/v1/", (("If-None-Match", text),))


# --- metrics --------------------------------------------------------------------------------------


def test_families_of_several_processes_stand_once_with_a_label_for_each_process() -> None:
    one = (
        "# HELP a_total Things.\n# TYPE a_total counter\na_total 1.0\n"
        '# HELP b Size.\n# TYPE b histogram\nb_bucket{le="1"} 2.0\nb_sum 3.0\n'
    )
    two = '# HELP a_total Things.\n# TYPE a_total counter\na_total{x="}{"} 4.0\n'
    assert join({"router": one, "shard-0001": two}).splitlines() == [
        "# HELP a_total Things.",
        "# TYPE a_total counter",
        'a_total{process="router"} 1.0',
        'a_total{process="shard-0001",x="}{"} 4.0',
        "# HELP b Size.",
        "# TYPE b histogram",
        'b_bucket{process="router",le="1"} 2.0',
        'b_sum{process="router"} 3.0',
    ]


def test_a_name_of_a_process_cannot_break_a_line_and_odd_lines_are_left_out() -> None:
    text = "stray 1\n# HELP a A.\n# EOF\n\n9bad 1\na 1\n"
    joined = join({'x"\\\n': text})
    assert joined.splitlines() == ["# HELP a A.", 'a{process="x\\"\\\\\\n"} 1']
    assert join({}) == ""
