"""Which reader a URL means."""

from pathlib import Path
from urllib.parse import unquote, urlsplit

from ultraengine.query.reader import Reader
from ultraengine.query.readers.sqlite.driver import SqliteReader

KNOWN = "sqlite:///path"


def open_reader(url: str, connections: int) -> Reader:
    """The reader of a target's URL.  Raises ValueError for one that is not known."""
    parts = urlsplit(url)
    if parts.scheme == "sqlite" and not parts.netloc and len(parts.path) > 1:
        # sqlite:///relative and sqlite:////absolute.
        return SqliteReader(Path(unquote(parts.path[1:])), threads=connections)
    raise ValueError(f"{parts.scheme or url!r} is no database to read from: {KNOWN}")
