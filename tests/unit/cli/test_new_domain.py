"""`ultra new domain`: what it writes works at once."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ultraengine.cli.new_domain import new_domain
from ultraengine.execution.registry import Registry
from ultraengine.testing.rehearsal import load_domain
from ultraengine.testing.source_check import check_source


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("project")
    new_domain("spare_parts", directory)
    return directory


def _pytest(directory: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """pytest as in a project of one's own: without this project's settings and plugins."""
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


def test_it_writes_a_package_with_a_domain_and_its_tests(generated: Path) -> None:
    package = generated / "spare_parts"
    assert sorted(path.name for path in package.iterdir()) == [
        "__init__.py",
        "domain.py",
        "test_spare_parts.py",
    ]


def test_it_returns_the_files_that_it_wrote(tmp_path: Path) -> None:
    written = new_domain("bazaar", tmp_path / "deep" / "down")
    assert written == [
        tmp_path / "deep" / "down" / "bazaar" / name
        for name in ("__init__.py", "domain.py", "test_bazaar.py")
    ]
    assert all(path.is_file() for path in written)


def test_domain_and_tests_are_at_most_a_hundred_lines(generated: Path) -> None:
    lines = [
        line
        for path in (generated / "spare_parts").glob("*.py")
        for line in path.read_text().splitlines()
    ]
    assert len(lines) <= 100
    assert max(map(len, lines)) <= 100
    assert not [line for line in lines if "$" in line]


def test_its_tests_pass_and_are_all_run(generated: Path) -> None:
    run = _pytest(generated)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "14 passed" in run.stdout


def test_its_tests_fail_when_the_domain_is_broken(tmp_path: Path) -> None:
    new_domain("spare_parts", tmp_path)
    path = tmp_path / "spare_parts" / "domain.py"
    source = path.read_text()
    broken = source.replace("if quantity < 0:", "if quantity < -1:")
    assert broken != source
    path.write_text(broken)
    # The failure alone is wanted here, not the smallest example of it.
    (tmp_path / "conftest.py").write_text(
        "from hypothesis import Phase, settings\n"
        "settings.register_profile('first', phases=[Phase.generate])\n"
        "settings.load_profile('first')\n"
    )
    run = _pytest(tmp_path, "-k", "what_came_without_what_went")
    assert run.returncode == 1, run.stdout + run.stderr
    assert "1 failed" in run.stdout


def test_the_domain_loads_by_name_into_a_registry(
    generated: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(generated))
    domain = load_domain("spare_parts.domain:DOMAIN")
    assert Registry([domain]).handler("spare_parts.take", "t") is not None
    source = (generated / "spare_parts" / "domain.py").read_text()
    assert check_source(source) == []


@pytest.mark.parametrize("name", ["a", "x1", "a_b_c", "n" * 32])
def test_a_name_of_a_domain_is_taken(name: str, tmp_path: Path) -> None:
    path = new_domain(name, tmp_path)[1]
    compile(path.read_text(), path, "exec")


@pytest.mark.parametrize(
    ("name", "because"),
    [
        ("", "a letter first"),
        ("Shop", "a letter first"),
        ("1shop", "a letter first"),
        ("my-shop", "a letter first"),
        ("../shop", "a letter first"),
        ("n" * 33, "a letter first"),
        ("class", "another meaning"),
        ("system", "another meaning"),
        ("limits", "another meaning"),
        ("email", "installed package"),
        ("msgspec", "installed package"),
        ("ultraengine", "installed package"),
    ],
)
def test_a_name_that_a_domain_cannot_have_is_refused(
    name: str, because: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=because):
        new_domain(name, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_what_is_there_is_never_overwritten(tmp_path: Path) -> None:
    path = new_domain("bazaar", tmp_path)[1]
    path.write_text("mine")
    with pytest.raises(FileExistsError, match="bazaar is there already"):
        new_domain("bazaar", tmp_path)
    assert path.read_text() == "mine"
