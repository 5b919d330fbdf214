"""The log of a shard that leads: `log.writer.LogWriter` over a replica.

What a shard hears as durable is committed: durable here and on every copy in sync.  Reads go to
this disk, where all of it is.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager

import msgspec

from ultraengine.log.driver import Log, OnDurable, Recovered, Written
from ultraengine.log.frame import FrameDraft
from ultraengine.log.reader import LogReader
from ultraengine.log.retention import RetentionReport
from ultraengine.model.errors import InvariantBroken
from ultraengine.replication.record import ReplicaId

Append = Callable[[Sequence[FrameDraft], OnDurable], None]


class LeadingLog:
    """Made once for a leadership, when its epoch-start frame is committed."""

    def __init__(
        self,
        log: Log,
        recovered: Recovered,
        append: Append,
        close: Callable[[bool], None],
        needed: Callable[[], Mapping[ReplicaId, int]],
    ) -> None:
        """`append` is the replica's; `close` ends the replica, cleanly or not, and blocks.
        `needed` says, by replica, from which frame on its copy still needs this log."""
        self._log = log
        self._append = append
        self._close = close
        self._needed = needed
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
        self, snapshot_offset: int, snapshot_sequence: int, consumers: Mapping[str, int]
    ) -> RetentionReport:
        """Remove what neither the snapshot nor a consumer needs, nor a copy that lives.

        A copy holds the log like a consumer: beyond the cap it is waited for no more, and gets a
        snapshot instead.
        """
        reader = self._log.reader()
        copies = {
            f"replica {replica}": reader.segment_offset(position)
            for replica, position in self._needed().items()
        }
        report = self._log.retain(snapshot_offset, snapshot_sequence, {**copies, **consumers})
        dropped = {name: at for name, at in report.dropped.items() if name not in copies}
        return msgspec.structs.replace(report, dropped=dropped)

    def release_reserve(self) -> None:
        """Give the reserved space back, for the last outcomes of a stop."""
        self._log.release_reserve()

    def close(self, *, clean: bool) -> None:
        """End the replica.  Blocks; not on the event loop's thread."""
        self._close(clean)
