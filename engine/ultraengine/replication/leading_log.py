"""The log of a shard that leads: `log.writer.LogWriter` over a replica.

What a shard hears as durable is committed: durable here and on every copy in sync.  Reads go to
this disk, where all of it is.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager

from ultraengine.log.driver import Log, OnDurable, Recovered, Written
from ultraengine.log.frame import FrameDraft
from ultraengine.log.reader import LogReader
from ultraengine.log.retention import RetentionReport
from ultraengine.model.errors import InvariantBroken

Append = Callable[[Sequence[FrameDraft], OnDurable], None]


class LeadingLog:
    """Made once for a leadership, when its epoch-start frame is committed."""

    def __init__(
        self, log: Log, recovered: Recovered, append: Append, close: Callable[[bool], None]
    ) -> None:
        """`append` is the replica's; `close` ends the replica, cleanly or not, and blocks."""
        self._log = log
        self._append = append
        self._close = close
        self.recovered = recovered

    @property
    def read_only(self) -> bool:
        """There is too little space here; a copy without space leaves the ISR."""
        return self._log.read_only

    @property
    def first_offset(self) -> int:
        """First offset that is still in the log."""
        return self._log.first_offset

    def start(self, on_failure: Callable[[BaseException], object]) -> None:
        """The replica has started its log, and tells its own driver of a failure."""

    def write(
        self, drafts: Sequence[FrameDraft], on_durable: OnDurable, *, sync: bool = True
    ) -> None:
        """Queue one write; `on_durable` is called on the event loop when it is committed.

        Nobody is told when this replica leads no more: then its process ends.
        """
        if not sync:
            raise InvariantBroken("a copy counts what is synced: no reply before the flush")
        self._append(drafts, on_durable)

    def sync(self, on_durable: OnDurable) -> None:
        """Wait for everything that was written before."""
        self._append((), on_durable)

    def takes_now(self, drafts: Sequence[FrameDraft], bytes_max: int) -> bool:  # noqa: ARG002
        """Never: a commit waits for others."""
        return False

    def write_now(
        self,
        drafts: Sequence[FrameDraft],  # noqa: ARG002
        *,
        sync: bool = True,  # noqa: ARG002
    ) -> Written | None:
        """Raises `InvariantBroken`."""
        raise InvariantBroken("a commit waits for others")

    def reader(self, *, archived: bool = False) -> LogReader:
        """A reader of what is durable on this disk."""
        return self._log.reader(archived=archived)

    def quiet(self) -> AbstractContextManager[None]:
        """No flush and no preparation runs inside."""
        return self._log.quiet()

    def retain(
        self,
        snapshot_offset: int,  # noqa: ARG002
        snapshot_sequence: int,  # noqa: ARG002
        consumers: Mapping[str, int],  # noqa: ARG002
    ) -> RetentionReport:
        """Removes nothing: a copy that is new or was away catches up from the log alone."""
        self._log.mark()
        return RetentionReport()

    def release_reserve(self) -> None:
        """Give the reserved space back, for the last outcomes of a stop."""
        self._log.release_reserve()

    def close(self, *, clean: bool) -> None:
        """End the replica.  Blocks; not on the event loop's thread."""
        self._close(clean)
