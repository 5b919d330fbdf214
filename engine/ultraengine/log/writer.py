"""What a shard asks of the log that it writes: one on this disk, or one that others copy too.

With copies, "durable" in the words below is "committed": durable wherever it must be.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from ultraengine.log.appender import Written
from ultraengine.log.frame import FrameDraft
from ultraengine.log.opening import Recovered
from ultraengine.log.reader import LogReader
from ultraengine.log.retention import RetentionReport


class LogWriter(Protocol):
    """See `log.driver.Log`, whose words these are."""

    @property
    def recovered(self) -> Recovered:
        """Where the log stood when the shard was recovered from it."""

    @property
    def read_only(self) -> bool:
        """There is too little space; it is looked for again every second."""

    @property
    def first_offset(self) -> int:
        """First offset that is still in the log."""

    def start(self, on_failure: Callable[[BaseException], object]) -> None:
        """Begin to take writes; `on_failure` is called once, when the process must stop."""

    def write(
        self,
        drafts: Sequence[FrameDraft],
        on_durable: Callable[[Written], object],
        *,
        sync: bool = True,
    ) -> None:
        """Queue one write of these frames."""

    def sync(self, on_durable: Callable[[Written], object]) -> None:
        """Make durable what was written before."""

    def takes_now(self, drafts: Sequence[FrameDraft], bytes_max: int) -> bool:
        """Whether `write_now` would wait for nothing but one write and one sync."""

    def write_now(self, drafts: Sequence[FrameDraft], *, sync: bool = True) -> Written | None:
        """Write on the caller's thread; only when it ``takes_now``."""

    def reader(self, *, archived: bool = False) -> LogReader:
        """A reader of what is durable on this disk."""

    def quiet(self) -> AbstractContextManager[None]:
        """No flush and no preparation runs inside."""

    def retain(
        self, snapshot_offset: int, snapshot_sequence: int, consumers: Mapping[str, int]
    ) -> RetentionReport:
        """Archive and remove what neither the snapshot nor a consumer needs.  Blocks."""

    def release_reserve(self) -> None:
        """Give the reserved space back, for the last outcomes of a stop."""

    def close(self, *, clean: bool) -> None:
        """Stop.  Blocks; idempotent."""
