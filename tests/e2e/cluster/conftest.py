"""Namespaces under restricted pod security; what was in them is kept on failure."""

import os
import re
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from tests.e2e.cluster.cluster import Namespace, new_namespace

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
def kept_on_failure(request: pytest.FixtureRequest) -> Iterator[list[Namespace]]:
    """Namespaces that a test adds to it are written down when the test has failed."""
    namespaces: list[Namespace] = []
    yield namespaces
    if request.node.stash.get(FAILED, False):
        for one in namespaces:
            one.keep(KEPT / re.sub(r"\W+", "-", request.node.name) / one.name)


@pytest.fixture
def namespace(fresh_namespace: Namespace, kept_on_failure: list[Namespace]) -> Namespace:
    """A namespace of the test's own."""
    kept_on_failure.append(fresh_namespace)
    return fresh_namespace


@pytest.fixture
def fresh_namespace() -> Iterator[Namespace]:
    """Outlives `kept_on_failure`, which reads it."""
    with new_namespace() as made:
        yield made
