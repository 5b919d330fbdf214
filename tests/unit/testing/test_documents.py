"""What the developer's documents show is what there is: their examples are run as they stand."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ultraengine.cli.new_domain import new_domain

DOCUMENTS = Path(__file__).parents[3] / "docs"
BLOCK = re.compile(r"<!-- (file|from): (\S+) -->\n```python\n(.*?)```\n", re.DOTALL)


def _blocks(document: str, kind: str) -> list[tuple[str, str]]:
    text = (DOCUMENTS / document).read_text(encoding="utf-8")
    return [(name, code) for found, name, code in BLOCK.findall(text) if found == kind]


def _pytest(directory: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    plain = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider")
    environment = {
        **os.environ,
        "HYPOTHESIS_STORAGE_DIRECTORY": str(directory / ".hypothesis"),
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
    }
    return subprocess.run(
        [*plain, *arguments],
        cwd=directory,
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
        env=environment,
    )


@pytest.mark.parametrize("document", ["writing-a-domain.md", "extending.md"])
def test_every_block_of_python_is_an_example_that_is_checked(document: str) -> None:
    text = (DOCUMENTS / document).read_text(encoding="utf-8")
    assert text.count("```python") == len(BLOCK.findall(text))


@pytest.mark.parametrize("document", ["writing-a-domain.md", "extending.md"])
def test_the_examples_pass_their_own_tests(document: str, tmp_path: Path) -> None:
    files = _blocks(document, "file")
    assert any(name.startswith("test_") for name, _ in files)
    for name, code in files:
        (tmp_path / name).write_text(code, encoding="utf-8")
    run = _pytest(tmp_path)
    assert run.returncode == 0, run.stdout + run.stderr
    assert " passed" in run.stdout


def test_what_is_quoted_of_a_new_domain_is_what_is_written(tmp_path: Path) -> None:
    new_domain("spares", tmp_path)
    quoted = _blocks("writing-a-domain.md", "from")
    assert len(quoted) >= 4
    for name, code in quoted:
        assert code in (tmp_path / "spares" / name).read_text(encoding="utf-8"), code


def test_the_mistake_that_the_document_describes_is_found_as_it_says(tmp_path: Path) -> None:
    for name, code in _blocks("extending.md", "file"):
        if name.endswith("tally.py"):
            broken = code.replace("self._store(key, value)  # Not", "self.put(key, value)  # Not")
            assert broken != code or name != "tally.py"
            (tmp_path / name).write_text(broken, encoding="utf-8")
    run = _pytest(tmp_path, "-k", "test_a_dump_loads_into_an_equal_layout")
    assert run.returncode == 1
    assert "1 failed" in run.stdout
    assert "changes after load" in run.stdout
