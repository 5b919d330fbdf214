"""What an executor keeps beside its slots: the ids that it has seen, and the events of the past."""

from collections.abc import Callable, Sequence
from typing import Protocol

from ultraengine.model.domain import History
from ultraengine.model.ids import Instant, Offset


class Dedupe(Protocol):
    """The idempotency memory (`execution/dedup.py`), grouped by slot."""

    def find(self, slot: int, identity: bytes, /) -> tuple[int, ...]:
        """Offsets of commands that may have this identity, newest first."""

    def add(self, slot: int, identity: bytes, offset: int, /) -> None:
        """Remember a command."""

    def add_run(self, slot: int, identities: Sequence[bytes], offset: int, /) -> None:
        """Remember commands of one slot at consecutive offsets, the first one at `offset`."""

    def raise_floor(self, offset: int, /) -> None:
        """Forget commands below `offset`; a logged decision."""

    def drop_slot(self, slot: int, offset: int, /) -> None:
        """Forget commands of one slot below `offset`: it has left this shard."""

    def advance(self, time: Instant, offset_end: Offset, /) -> None:
        """A group ended: forget what is older than the window, at the same place everywhere."""

    @property
    def floor_time(self) -> Instant:
        """Ids made before this may have been forgotten; 0 while nothing was."""

    @property
    def floor_offset(self) -> Offset:
        """Commands below this offset may have been forgotten; 0 while none was."""


class HistoryStore(Protocol):
    """Where accepted events are kept for ever (`execution/history.py`)."""

    def append(self, offset: int, domain: str, payload: bytes, /) -> None:
        """Keep the encoded events of the command at `offset`; buffered, never waits."""

    def append_run(self, offset: int, domain: str, payloads: Sequence[bytes], /) -> None:
        """Keep the encoded events of commands at consecutive offsets, the first one at `offset`."""

    def view(self, domain: str, visible_end: Callable[[], int], /) -> History:
        """Reads of one domain, below the offset that `visible_end` gives at the time."""
