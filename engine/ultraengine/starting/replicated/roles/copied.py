"""What a copy may show of its log: frames that it knows to be committed, which are never cut.

The log is closed and opened anew while its end is cut off.  What is asked for meanwhile is not
there for a moment; what was read before is the same afterwards.
"""

from collections.abc import Callable, Iterator
from typing import Protocol

from ultraengine.log.damage import BelowRetention
from ultraengine.log.reader import LogReader, RecordedGroup
from ultraengine.model.errors import EngineError


class Opened(Protocol):
    """A log that is open."""

    def reader(self, *, archived: bool = False) -> LogReader:
        """Of what is durable, and with `archived` of what was."""


class CopiedGroups:
    """Implements `feed.pages.Groups`.  Used by several threads."""

    def __init__(self, log: Callable[[], Opened | None], committed_end: Callable[[], int]) -> None:
        """`log`: as it is open now; None while a cut closes it and opens it anew."""
        self._log = log
        self._committed_end = committed_end

    def groups(self, from_offset: int, to_offset: int | None = None) -> Iterator[RecordedGroup]:
        """See `LogReader.groups`.  Raises `EngineError` SHARD_UNAVAILABLE of a log that is cut."""
        log = self._log()
        if log is None:
            raise _is_cut()
        below = self._committed_end()
        try:
            yield from log.reader(archived=True).groups(from_offset, to_offset, below=below)
        except BelowRetention:
            raise
        except Exception as error:
            # A failure of a log that is still the one is what it is.
            if self._log() is log:
                raise
            raise _is_cut() from error


def _is_cut() -> EngineError:
    return EngineError(
        "the end of this copy's log is being cut off", code="SHARD_UNAVAILABLE", retry_after_s=0.2
    )
