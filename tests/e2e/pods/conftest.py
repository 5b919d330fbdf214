"""Pods that end with their test."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.e2e.pods.running import Place


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    place = Place(tmp_path, shards=2)
    yield place
    place.stop()
