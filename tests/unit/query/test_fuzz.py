"""schemathesis over the document of a started `ultra query`: no 5xx, nothing undocumented."""

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
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
from tests.unit.query.serving import serve
from tests.unit.query.test_same_as_memory import live
from tests.unit.query.world import FileTables, small
from tests.unit.thorough import examples

from ultraengine.domains.ledger.domain import DOMAIN
from ultraengine.edge.codec import MSGPACK_TYPE
from ultraengine.model.limits import DEFAULT_LIMITS
from ultraengine.query.main import routes_of
from ultraengine.query.openapi import document


def no_failure_of_ours(_context: Any, response: Any, case: Any) -> None:
    """No answer of 500 and above, but for a wait that the request itself asked for."""
    if response.status_code >= 500:
        asked = {*(case.query or {}), *(case.headers or {})}
        assert asked & {"min_offset", "Ultra-Offset"}, response.text
        assert response.json()["code"] == "WAIT_TIMEOUT", response.text


def a_problem_says_what_to_do(_context: Any, response: Any, _case: Any) -> None:
    """Every answer outside 2xx and 3xx is a problem document with its parts."""
    if response.status_code >= 400:
        assert response.headers["content-type"] == ["application/problem+json"]
        body = response.json()
        assert body["status"] == response.status_code
        assert body["code"]
        assert body["type"].startswith("urn:ultraengine:problem:")


CHECKS = [
    no_failure_of_ours,
    a_problem_says_what_to_do,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]


@schemathesis.deserializer(MSGPACK_TYPE)
def from_msgpack(_context: Any, response: Any) -> Any:
    """Answers in msgpack are checked against the same schemas."""
    return msgspec.msgpack.decode(response.content)


def run(path: Path, url: "Future[str]", stop: threading.Event) -> None:
    """Serve a small ledger until `stop` is set."""
    from tests.unit.domains.ledger.conftest import LedgerBench  # noqa: PLC0415

    async def start() -> None:
        tables = FileTables(path)
        await tables.open()
        bench = LedgerBench()
        live(bench, 0)
        small(bench, "default")
        await tables.follow(bench)
        served = await serve(path, min_offset_wait_s=0.01)
        url.set_result(served.url)
        while not stop.is_set():  # noqa: ASYNC110  (set by another thread)
            await asyncio.sleep(0.02)
        await served.end()
        await tables.close()

    asyncio.run(start())


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    address: Future[str] = Future()
    stop = threading.Event()
    path = tmp_path_factory.mktemp("fuzz") / "tables.db"
    thread = threading.Thread(target=run, args=(path, address, stop))
    thread.start()
    yield address.result(20)
    stop.set()
    thread.join(10)
    assert not thread.is_alive()


@pytest.mark.parametrize("mode", list(schemathesis.GenerationMode), ids=lambda mode: mode.value)
def test_no_request_makes_it_fail_or_break_its_document(
    url: str, mode: schemathesis.GenerationMode
) -> None:
    paper = schemathesis.openapi.from_url(f"{url}/openapi.json")
    tried = 0
    for found in paper.get_all_operations():
        operation: Any = found.ok()  # type: ignore[union-attr]  # An error has none: it fails.
        if mode.is_negative and not operation.definition.raw.get("parameters"):
            continue  # There is nothing to get wrong in such a request.

        @settings(
            max_examples=examples(6, 12),
            deadline=None,
            database=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.generate],
        )
        @given(case=operation.as_strategy(generation_mode=mode))
        def try_one(case: Any) -> None:
            case.path_parameters = {
                **(case.path_parameters or {}),
                **({"book": "k"} if "book" in (case.path_parameters or {}) else {}),
            }
            case.call_and_validate(base_url=url, checks=CHECKS, timeout=10)

        try_one()
        tried += 1
    assert tried > 10


def test_every_read_and_filter_is_in_the_document() -> None:
    routes = routes_of([DOMAIN])
    paper = document(routes, DEFAULT_LIMITS, "1")
    assert document(routes, DEFAULT_LIMITS, "1") == paper
    for route in routes.routes:
        operation = paper["paths"][route.path]["get"]
        assert operation["summary"]
        assert "UNKNOWN_FILTER" in operation["responses"]["400"]["description"]
    named = {
        one["name"]
        for one in paper["paths"]["/v1/sql/ledger/{book}/transfers"]["get"]["parameters"]
    }
    assert {
        "book", "amount", "amount.gte", "code", "code.in", "reference.prefix", "order", "limit",
        "cursor", "min_offset", "shard", "Ultra-Offset",
    } <= named  # fmt: skip
    statement = paper["paths"]["/v1/sql/ledger/{book}/accounts/{account}/statement"]["get"]
    by = next(one for one in statement["parameters"] if one["name"] == "by")
    assert by["schema"] == {"enum": ["effective", "recorded"], "default": "effective"}
    assert "first" not in {one["name"] for one in statement["parameters"]}
