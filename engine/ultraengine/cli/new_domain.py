"""Writes a working domain with its tests, to be changed into one's own.

The files are templates beside this module: what is generated is what they say.
"""

import importlib.util
import keyword
import re
import sys
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Final

_TEMPLATES: Final = (
    ("__init__.py.template", "__init__.py"),
    ("domain.py.template", "domain.py"),
    ("test_domain.py.template", "test_{name}.py"),
)
_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,31}")
_RESERVED: Final = frozenset({"commands", "limits", "stream", "system", "test", "tests"})
"""Paths of the engine's own below ``/v1``, and names that mean something else already."""


def new_domain(name: str, directory: Path) -> list[Path]:
    """Write the package `name` into `directory`; returns the files.

    Raises ValueError for a name that a domain or a Python package cannot have, and
    FileExistsError, before anything is written, when there is something of that name.
    """
    _check_name(name)
    package = directory / name
    if package.exists():
        raise FileExistsError(f"{package} is there already")
    _check_free(name)
    package.mkdir(parents=True)
    names = {"name": name, "Name": "".join(part.capitalize() for part in name.split("_"))}
    written: list[Path] = []
    for source, target in _TEMPLATES:
        template = files("ultraengine.cli").joinpath("templates", "domain", source)
        path = package / target.format(name=name)
        text = Template(template.read_text(encoding="utf-8")).substitute(names)
        path.write_text(text, encoding="utf-8")
        written.append(path)
    return written


def _check_name(name: str) -> None:
    if _NAME.fullmatch(name) is None:
        raise ValueError(
            f"{name!r} cannot be the name of a domain: 1-32 of a-z, 0-9 and _, a letter first"
        )
    if name in _RESERVED or keyword.iskeyword(name):
        raise ValueError(f"{name!r} cannot be the name of a domain: it has another meaning")


def _check_free(name: str) -> None:
    """A package that shadows another one breaks whatever imports that."""
    if name in sys.stdlib_module_names or importlib.util.find_spec(name) is not None:
        raise ValueError(f"{name!r} is the name of an installed package: choose another one")
