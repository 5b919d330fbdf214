"""schemathesis over the OpenAPI document, against a started server: no 5xx, nothing undocumented.

The server runs on a thread of its own with the real gateway; the cases are generated from the
document that it serves, valid and invalid ones, stateful ones through the document's links too.
"""

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any

import msgspec
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from tests.unit.gateway.conftest import Serving
from tests.unit.thorough import examples

from ultraengine.domains.counter import DOMAIN as COUNTER
from ultraengine.domains.ledger import DOMAIN as LEDGER
from ultraengine.model.limits import Limits


@schemathesis.serializer("application/msgpack")
def to_msgpack(_context: Any, value: Any) -> bytes:
    """The same values as msgpack; what it cannot hold is sent as something else."""
    try:
        return msgspec.msgpack.encode(value)
    except (TypeError, OverflowError, UnicodeEncodeError):
        return b"\xc1"


@schemathesis.deserializer("application/msgpack")
def from_msgpack(_context: Any, response: Any) -> Any:
    """Answers in msgpack are checked against the same schemas."""
    return msgspec.msgpack.decode(response.content)


def no_failure_of_ours(_context: Any, response: Any, case: Any) -> None:
    """No answer of 500 and above, but for a wait that the request itself asked for."""
    if response.status_code >= 500:
        assert "min_offset" in (case.query or {}), response.text
        assert response.json()["code"] == "WAIT_TIMEOUT", response.text


def a_problem_says_what_to_do(_context: Any, response: Any, _case: Any) -> None:
    """Every answer outside 2xx and 3xx is a problem document with its parts."""
    if response.status_code >= 400:
        assert response.headers["content-type"] == ["application/problem+json"]
        body = response.json()
        assert body["status"] == response.status_code
        assert body["code"]
        assert body["detail"]
        assert body["type"].startswith("urn:ultraengine:problem:")


CHECKS = [
    no_failure_of_ours,
    a_problem_says_what_to_do,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]


def run(url: "Future[str]", stop: threading.Event) -> None:
    """Serve until `stop` is set."""

    async def serve() -> None:
        serving = Serving()
        served = await serving(
            domains=(COUNTER, LEDGER), limits=Limits(min_offset_wait_s=0.01, reply_wait_s=1.0)
        )
        url.set_result(served.url)
        while not stop.is_set():  # noqa: ASYNC110  (set by another thread)
            await asyncio.sleep(0.02)
        await serving.stop()

    asyncio.run(serve())


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    address: Future[str] = Future()
    stop = threading.Event()
    thread = threading.Thread(target=run, args=(address, stop))
    thread.start()
    yield address.result(10)
    stop.set()
    thread.join(10)
    assert not thread.is_alive()


@pytest.fixture(scope="module")
def paper(url: str) -> schemathesis.BaseSchema:
    return schemathesis.openapi.from_url(f"{url}/openapi.json")


@pytest.mark.parametrize("mode", list(schemathesis.GenerationMode), ids=lambda mode: mode.value)
def test_no_request_makes_the_engine_fail_or_break_its_document(
    paper: schemathesis.BaseSchema, url: str, mode: schemathesis.GenerationMode
) -> None:
    tried = 0
    for found in paper.get_all_operations():
        operation: Any = found.ok()  # type: ignore[union-attr]  # An error has none: it fails.
        raw = operation.definition.raw
        if mode.is_negative and not (raw.get("parameters") or raw.get("requestBody")):
            continue  # There is nothing to get wrong in such a request.

        @settings(
            max_examples=examples(5, 8),
            deadline=None,
            database=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.generate],
        )
        @given(case=operation.as_strategy(generation_mode=mode))
        def try_one(case: Any) -> None:
            case.call_and_validate(base_url=url, checks=CHECKS, timeout=10)

        try_one()
        tried += 1
    assert tried > 10


def test_following_the_links_of_the_document_breaks_nothing(
    paper: schemathesis.BaseSchema, url: str
) -> None:
    machine = paper.as_state_machine()

    class Linked(machine):  # type: ignore[valid-type, misc]  # Made at run time by design.
        """Sends a command, then asks for its outcome."""

        def get_call_kwargs(self, case: Any) -> dict[str, Any]:
            return {"base_url": url, "timeout": 10}

        def validate_response(self, response: Any, case: Any, **_: Any) -> None:
            case.validate_response(response, checks=CHECKS)

    Linked.run(
        settings=settings(
            max_examples=examples(8, 15),
            stateful_step_count=4,
            deadline=None,
            database=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.generate],
        )
    )
