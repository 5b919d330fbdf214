"""What only a store behind a network can do wrong, each with its name."""

import http.server
import threading
from collections.abc import Iterator

import pytest
from tests.servers.ports import free_ports
from tests.servers.s3 import READER, S3Server

from ultraengine.ports import StoreDamaged, StoreDenied, StoreUnavailable
from ultraengine_adapters.s3 import object_store
from ultraengine_adapters.s3.location import S3Location
from ultraengine_adapters.s3.object_store import S3ObjectStore

pytestmark = pytest.mark.usefixtures("s3_keys")


def test_two_prefixes_of_a_bucket_do_not_see_each_other(s3_server: S3Server) -> None:
    one, other = (S3ObjectStore(S3Location.parse(s3_server.new_place())) for _ in range(2))
    one.put("name", b"one")
    other.put("name", b"other")
    assert (one.get("name"), other.get("name")) == (b"one", b"other")
    assert list(one.list("")) == ["name"]


def test_a_wrong_key_is_denied(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    location = S3Location.parse(s3_server.new_place())
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another")
    with pytest.raises(StoreDenied, match="SignatureDoesNotMatch"):
        S3ObjectStore(location).put("name", b"x")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "nobody")
    with pytest.raises(StoreDenied, match="InvalidAccessKeyId"):
        S3ObjectStore(location).get("name")


def test_who_may_only_read_is_denied_to_write(
    s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    location = S3Location.parse(s3_server.new_place())
    S3ObjectStore(location).put("name", b"x")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", READER)
    reader = S3ObjectStore(location)
    assert reader.get("name") == b"x"
    with pytest.raises(StoreDenied, match="AccessDenied"):
        reader.put("name", b"y")
    assert reader.get("name") == b"x"


def test_a_bucket_that_is_not_there_is_denied_and_not_an_absent_blob(s3_server: S3Server) -> None:
    store = S3ObjectStore(
        S3Location(bucket="no-such", endpoint=s3_server.endpoint, region="us-east-1")
    )
    with pytest.raises(StoreDenied, match="NoSuchBucket"):
        store.list("")


def test_no_server_is_unavailable() -> None:
    (port,) = free_ports(1)
    location = S3Location(bucket="b", endpoint=f"http://127.0.0.1:{port}", region="r")
    with pytest.raises(StoreUnavailable, match="name"):
        S3ObjectStore(location, attempts_max=1).get("name")


def test_no_credentials_and_no_profile_are_denied(
    s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, "/nonexistent")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    location = S3Location.parse(s3_server.new_place())
    with pytest.raises(StoreDenied, match="Unable to locate credentials"):
        S3ObjectStore(location).get("name")
    with pytest.raises(StoreDenied, match="nobody"):
        S3ObjectStore(S3Location(bucket="b", profile="nobody"))


# --- answers that a good server gives only in bad hours ------------------------------------------


class _Scripted(http.server.BaseHTTPRequestHandler):
    """Answers PUT with what the script has next; GET with the last body."""

    script: list[tuple[int, str]]
    kept = b""

    def do_PUT(self) -> None:
        type(self).kept = self.rfile.read(int(self.headers["Content-Length"]))
        status, code = self.script.pop(0)
        error = f"<Error><Code>{code}</Code><Message>no</Message></Error>"
        self._answer(status, error.encode() if code else b"")

    def do_GET(self) -> None:
        self._answer(200, self.kept)

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Nobody reads it."""


@pytest.fixture
def scripted() -> Iterator[tuple[S3ObjectStore, list[tuple[int, str]]]]:
    _Scripted.script = []
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Scripted) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            port = server.server_address[1]
            location = S3Location(bucket="b", endpoint=f"http://127.0.0.1:{port}", region="r")
            yield S3ObjectStore(location, attempts_max=2), _Scripted.script
        finally:
            server.shutdown()
            thread.join()


def test_a_put_whose_answer_was_lost_is_not_taken_for_anothers(
    scripted: tuple[S3ObjectStore, list[tuple[int, str]]],
) -> None:
    store, script = scripted
    script += [(500, "InternalError"), (412, "PreconditionFailed")]
    store.put("name", b"mine", if_absent=True)
    assert _Scripted.kept == b"mine"
    assert script == []
    script += [(412, "PreconditionFailed")]
    with pytest.raises(FileExistsError):
        store.put("name", b"mine", if_absent=True)


def test_what_the_server_cannot_do_now_is_tried_again_and_then_unavailable(
    scripted: tuple[S3ObjectStore, list[tuple[int, str]]],
) -> None:
    store, script = scripted
    script += [(503, "SlowDown"), (200, "")]
    store.put("name", b"x")
    script += [(503, "SlowDown"), (503, "SlowDown")]
    with pytest.raises(StoreUnavailable, match="SlowDown"):
        store.put("name", b"x")
    assert script == []


@pytest.mark.parametrize(
    ("status", "code", "error"),
    [(400, "BadDigest", StoreDamaged), (400, "ExpiredToken", StoreDenied)],
)
def test_a_refusal_has_its_name(
    scripted: tuple[S3ObjectStore, list[tuple[int, str]]],
    status: int,
    code: str,
    error: type[OSError],
) -> None:
    store, script = scripted
    script += [(status, code)]
    with pytest.raises(error, match=code):
        store.put("name", b"x")


def test_chunks_are_sent_in_parts_of_one_size() -> None:
    chunks = [b"a" * 7, b"", b"b" * 12, b"c"]
    parts = list(object_store._regrouped(chunks, 5))
    assert [len(part) for part in parts] == [5, 5, 5, 5]
    assert b"".join(parts) == b"".join(chunks)
