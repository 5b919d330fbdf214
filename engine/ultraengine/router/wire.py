"""HTTP/1.1 of the hop between a front and its shards, as bytes.

Both ends are ours: answers have a status line, headers in ASCII and a Content-Length, and
nothing else is understood.  What is not understood ends the connection, so that two requests
can never be taken for one another's.
"""

import re
from collections.abc import Sequence
from typing import Final

import msgspec

HEAD_BYTES_MAX: Final = 64 * 1024
_STATUS: Final = re.compile(rb"HTTP/1\.1 ([1-5][0-9]{2})(?: [^\r\n]*)?")
_DIGITS: Final = re.compile(r"[0-9]{1,12}")
_NO_BODY: Final = frozenset({204, 304})
_OF_THE_HOP: Final = frozenset(
    {"connection", "content-length", "content-type", "date", "keep-alive", "server"}
)
_UNSAFE: Final = re.compile(r"[\x00-\x1f\x7f-\U0010ffff]")


class BadAnswer(Exception):
    """The bytes are no answer that this hop understands."""


class Answered(msgspec.Struct, frozen=True):
    """An answer of a shard."""

    status: int
    content_type: str
    headers: tuple[tuple[str, str], ...]
    """Those for the client; what belongs to the hop itself is left out."""
    body: bytes
    keep_alive: bool = True

    def header(self, name: str) -> str | None:
        """A header by its lower-case name."""
        return next((value for known, value in self.headers if known.lower() == name), None)


def request(method: str, path: str, headers: Sequence[tuple[str, str]], body: bytes = b"") -> bytes:
    """A request.  Raises ValueError for header values and paths that are not printable ASCII,
    which could otherwise end a line too early."""
    lines = [f"{method} {path} HTTP/1.1", "Host: shard"]
    lines += [f"{name}: {value}" for name, value in headers]
    if body or method == "POST":
        lines.append(f"Content-Length: {len(body)}")
    if any(_UNSAFE.search(line) for line in lines):
        raise ValueError("a header or path of a forwarded request is not printable ASCII")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("ascii") + body


class AnswerReader:
    """Puts the bytes of one connection together to answers, one after the other."""

    __slots__ = ("_buffer", "_end", "_head")

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._head: Answered | None = None
        self._end = 0

    def feed(self, data: bytes) -> Answered | None:
        """The answer, once it is complete.  Raises `BadAnswer`."""
        buffer = self._buffer
        buffer += data
        if self._head is None:
            head_end = buffer.find(b"\r\n\r\n")
            if head_end < 0:
                if len(buffer) > HEAD_BYTES_MAX:
                    raise BadAnswer(f"a head of more than {HEAD_BYTES_MAX} bytes")
                return None
            self._head, length = read_head(bytes(buffer[:head_end]))
            del buffer[: head_end + 4]
            self._end = length
        if len(buffer) < self._end:
            return None
        if len(buffer) > self._end:
            raise BadAnswer(f"{len(buffer) - self._end} bytes behind the answer")
        head, self._head = self._head, None
        body = bytes(buffer)
        buffer.clear()
        return msgspec.structs.replace(head, body=body)


def read_head(head: bytes) -> tuple[Answered, int]:
    """Status line and headers; the answer without its body, and the body's length.

    Raises `BadAnswer`.
    """
    line, _, rest = head.partition(b"\r\n")
    status = _STATUS.fullmatch(line)
    try:
        lines = rest.decode("ascii").split("\r\n") if rest else []
    except UnicodeDecodeError as error:
        raise BadAnswer("a header is not ASCII") from error
    if status is None:
        raise BadAnswer(f"not a status line: {line[:60]!r}")
    given: list[tuple[str, str]] = []
    own: dict[str, str] = {}
    for text in lines:
        name, colon, value = text.partition(":")
        if not colon or not name:
            raise BadAnswer(f"not a header: {text[:60]!r}")
        value = value.strip(" \t")
        lower = name.lower()
        if lower in _OF_THE_HOP:
            own[lower] = value
        elif lower == "transfer-encoding":
            raise BadAnswer("the answer has no Content-Length")
        else:
            given.append((name, value))
    code = int(status[1])
    length = "0" if code in _NO_BODY else own.get("content-length", "")
    if _DIGITS.fullmatch(length) is None:
        raise BadAnswer("the answer has no Content-Length")
    answered = Answered(
        code,
        own.get("content-type", ""),
        tuple(given),
        b"",
        own.get("connection", "").lower() != "close",
    )
    return answered, int(length)
