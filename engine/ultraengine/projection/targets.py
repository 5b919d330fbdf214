"""From a URL to a target: the one place that knows which database is which class.

    sqlite:///path   postgresql://…   mysql://… (mariadb://…)   lines:///directory

Only the module that is asked for is imported: a driver of a database is an extra.
"""

import importlib
from collections.abc import Sequence
from typing import Any, Final, cast

from ultraengine.model.errors import InvariantBroken, Malformed
from ultraengine.model.ids import is_name
from ultraengine.projection.dialects import refusal
from ultraengine.projection.target import Target

CLASSES: Final[dict[str, str]] = {
    "sqlite": "ultraengine.projection.sqlite.driver:SqliteTarget",
    "postgresql": "ultraengine.projection.postgres.driver:PostgresTarget",
    "mysql": "ultraengine.projection.mysql.driver:MysqlTarget",
    "mariadb": "ultraengine.projection.mysql.driver:MysqlTarget",
    "lines": "ultraengine.projection.lines.driver:LinesTarget",
}
"""``module:class`` by the scheme of a URL; each is made with a name and the URL."""


def scheme_of(url: str) -> str:
    """``sqlite`` of ``sqlite:///path``.

    Raises `Malformed` for a URL of no known target, and says so of a database that has a dialect
    and no driver.
    """
    scheme, separator, _ = url.partition("://")
    refused = refusal(scheme)
    if separator and refused is not None:
        raise Malformed(refused)
    if not separator or scheme not in CLASSES:
        known = ", ".join(f"{name}://" for name in CLASSES)
        raise Malformed(f"a target's URL begins with one of {known}")
    return scheme


def open_target(url: str, name: str) -> Target:
    """The target of a URL, not connected yet.

    Raises `Malformed` for a URL or a name that is none, and for a database whose driver is not
    installed.  What it says never holds the URL, which may hold a password.
    """
    scheme = scheme_of(url)
    if not is_name(name):
        raise Malformed("a target's name is 1-128 characters of A-Z a-z 0-9 . _ : -")
    module, _, kind = CLASSES[scheme].partition(":")
    try:
        make: Any = getattr(importlib.import_module(module), kind)
    except ImportError as error:
        raise Malformed(
            f"no driver for {scheme}: {error.name} is not installed; see docs/targets.md"
        ) from error
    try:
        return cast("Target", make(name, url))
    except (InvariantBroken, ValueError) as error:
        reason = error.rule if isinstance(error, InvariantBroken) else "it cannot be read"
        raise Malformed(f"the URL of a {scheme} target: {reason}") from error


def named(targets: Sequence[str]) -> dict[str, str]:
    """URLs by name, from ``URL`` or ``NAME=URL``; without a name it is that of the scheme.

    Raises `Malformed` for two of one name.
    """
    found: dict[str, str] = {}
    for text in targets:
        head, separator, rest = text.partition("=")
        given = bool(separator) and "://" not in head
        url = rest if given else text
        name = head if given else scheme_of(url)
        if name in found:
            raise Malformed(f"two targets are called {name}: give names, as in {name}2=URL")
        found[name] = url
    return found
