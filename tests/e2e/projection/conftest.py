"""The real table, fetched once, and stories that end their processes."""

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.e2e.projection.running import ROOT, Story


@pytest.fixture(scope="session")
def purchases() -> Path:
    """The real table; fetched once, checked by its hash."""
    fetched = subprocess.run(
        [ROOT / "hack" / "cdnow.sh"], capture_output=True, text=True, check=False
    )
    assert fetched.returncode == 0, fetched.stderr
    return Path(fetched.stdout.strip())


@pytest.fixture
def story(tmp_path: Path) -> Iterator[Callable[..., Story]]:
    """Makes a story; its processes end with the test."""
    made: list[Story] = []

    def make(*engine: object) -> Story:
        made.append(Story(tmp_path, *engine))
        return made[-1]

    yield make
    for one in made:
        one.end()
