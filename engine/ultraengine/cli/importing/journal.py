"""Where an import had got to: an optimisation, never the truth.

Ids make an import repeatable; the journal only spares the windows that are through.  It is
believed when it belongs to the same file, mapping, attempt and engine, and when that engine
still knows the last command that it names.
"""

from pathlib import Path

import msgspec


class Counts(msgspec.Struct):
    """What became of the rows so far."""

    rows: int = 0
    booked: int = 0
    already: int = 0
    """Items that an earlier attempt had booked."""
    skipped: int = 0
    bad: int = 0
    rejected: int = 0
    prepared: int = 0
    """Prerequisites (accounts) that are there."""


class Journal(msgspec.Struct, frozen=True):
    """The state after a window."""

    source: str
    """Digest of file, mapping and attempt, and the engine's address."""
    windows: int
    """Windows that are through."""
    key: str
    """Partition key and id of the last command, by which the engine is asked."""
    id: str
    report_bytes: int
    """Length of the report after this window."""
    counts: Counts


def read_journal(path: Path, source: str) -> Journal | None:
    """The journal of this very import, or None."""
    try:
        journal = msgspec.json.decode(path.read_bytes(), type=Journal)
    except (OSError, msgspec.MsgspecError):
        return None
    return journal if journal.source == source else None


def write_journal(path: Path, journal: Journal) -> None:
    """Replace the journal; a reader sees the old one or the new one."""
    beside = path.with_name(path.name + ".new")
    beside.write_bytes(msgspec.json.encode(journal) + b"\n")
    beside.rename(path)


def remove_journal(path: Path) -> None:
    """The import is through."""
    path.unlink(missing_ok=True)
