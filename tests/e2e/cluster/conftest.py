"""One namespace per test under restricted pod security; what was in it is kept on failure."""

import os
import re
import uuid
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.cluster.cluster import Namespace

KEPT = Path(os.environ.get("ULTRA_E2E_KEPT", "e2e-failures"))
FAILED: pytest.StashKey[bool] = pytest.StashKey()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed:
        item.stash[FAILED] = True
    return report


@pytest.fixture
def namespace(request: pytest.FixtureRequest) -> Iterator[Namespace]:
    made = Namespace(f"e2e-{uuid.uuid4().hex[:8]}")
    body: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {
            "name": made.name,
            "labels": {"pod-security.kubernetes.io/enforce": "restricted"},
        },
    }
    made.apply(body)
    try:
        yield made
        if request.node.stash.get(FAILED, False):
            made.keep(KEPT / re.sub(r"\W+", "-", request.node.name))
    finally:
        made.kubectl("delete", "namespace", made.name, "--wait=false")
