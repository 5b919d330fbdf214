"""From a URL to a reader: the one place that knows which database is which class.

    sqlite:///path   postgresql://…   mysql://…

The same URLs as those of targets.  Only the module that is asked for is imported: a driver of a
database is an extra.
"""

import importlib
from typing import Any, Final, cast

from ultraengine.model.errors import InvariantBroken, Malformed
from ultraengine.query.reader import Reader

CLASSES: Final[dict[str, str]] = {
    "sqlite": "ultraengine.query.readers.sqlite.driver:SqliteReader",
    "postgresql": "ultraengine.query.readers.postgres.driver:PostgresReader",
    "mysql": "ultraengine.query.readers.mysql.driver:MysqlReader",
}
"""``module:class`` by the scheme of a URL; each is made with the URL and a number of
connections."""


def open_reader(url: str, connections: int) -> Reader:
    """The reader of a target's URL, not connected yet.

    Raises `Malformed` for a URL that is none, and for a database whose driver is not installed.
    What it says never holds the URL, which may hold a password.
    """
    scheme, separator, _ = url.partition("://")
    if not separator or scheme not in CLASSES:
        known = ", ".join(f"{name}://" for name in CLASSES)
        raise Malformed(f"the URL of a database to read begins with one of {known}")
    module, _, kind = CLASSES[scheme].partition(":")
    try:
        make: Any = getattr(importlib.import_module(module), kind)
    except ImportError as error:
        raise Malformed(f"no driver for {scheme}: {error.name} is not installed") from error
    try:
        return cast("Reader", make(url, connections=connections))
    except (InvariantBroken, ValueError) as error:
        raise Malformed(f"the URL of {scheme} cannot be read") from error
