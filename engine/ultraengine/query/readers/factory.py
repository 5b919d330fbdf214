"""Which reader a URL means."""

from pathlib import Path
from typing import Final

from ultraengine.model.errors import InvariantBroken
from ultraengine.projection.sqlite.driver import SCHEME, path_of
from ultraengine.query.reader import Reader
from ultraengine.query.readers.sqlite.driver import SqliteReader

KNOWN: Final = f"{SCHEME}path"


def open_reader(url: str, connections: int) -> Reader:
    """The reader of a target's URL.  Raises `InvariantBroken` for one that is not known."""
    if url.startswith(SCHEME):
        return SqliteReader(Path(path_of(url)), threads=connections)
    # The URL may hold a password: only its scheme is told.
    scheme = url.partition(":")[0][:20]
    raise InvariantBroken(f"reads have URLs like {KNOWN}", scheme=scheme)
