"""Protocols for everything that waits or touches the world (requirement 002 D-T.8).

Logic never sees the world; drivers see it through these.  Implementations live in
`platform_adapters/` and, simulated, in `ultraengine.testing`.  Each Protocol has one
contract suite in `tests/unit/contracts/` that every implementation passes.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from ultraengine.model.ids import Instant


class DiskFull(OSError):
    """No space left (ENOSPC or EDQUOT).  The file is as it was before the call, or shorter
    writes were undone by the caller; nothing durable was lost."""


class File(Protocol):
    """An open file.  Calls block; drivers call them from a thread of their own."""

    def pread(self, length: int, position: int) -> bytes:
        """Up to `length` bytes from `position`; fewer only at the end of the file."""

    def pwrite(self, data: bytes | memoryview, position: int) -> None:
        """Write all of `data` at `position`.  Raises OSError; a failed write may be torn."""

    def sync(self) -> None:
        """fdatasync.  After an OSError the file's unsynced content is unknown: never retry."""

    def size(self) -> int:
        """Length in bytes."""

    def truncate(self, length: int) -> None:
        """Set the length."""

    def close(self) -> None:
        """Release the descriptor.  Idempotent."""


class Disk(Protocol):
    """One directory tree.  Paths are relative, '/'-separated, without '..'.

    Until ``sync_directory`` returns, creations, renames and removals in that directory may
    vanish in a crash, each on its own; until ``File.sync`` returns, so may written sectors.
    """

    def open(self, path: str, *, create: bool = False, write: bool = False) -> File:
        """Open a file.  Raises FileNotFoundError unless `create`."""

    def list(self, path: str) -> Sequence[str]:
        """Names in a directory, sorted; empty when there is no such directory."""

    def make_directory(self, path: str) -> None:
        """Create a directory and its parents; durable once the parents were synced."""

    def sync_directory(self, path: str) -> None:
        """fsync a directory."""

    def rename(self, source: str, target: str) -> None:
        """Replace `target` by `source` atomically."""

    def remove(self, path: str) -> None:
        """Unlink a file.  Raises FileNotFoundError."""

    def exists(self, path: str) -> bool:
        """Whether a file or directory is there."""

    def lock(self, path: str) -> "Lock":
        """Take an exclusive lock.  Raises `BlockingIOError` when another process holds it."""

    def free_bytes(self) -> int:
        """Space that can still be written."""


class Lock(Protocol):
    """A held lock; released by ``release`` or by the end of the process."""

    def release(self) -> None:
        """Give it back.  Idempotent."""


class Clock(Protocol):
    """Time.  Logic gets instants as arguments and never calls this."""

    def now(self) -> Instant:
        """Wall-clock time in microseconds since the Unix epoch; may jump."""

    def monotonic(self) -> float:
        """Seconds that never go back, for durations and timeouts."""


class Random(Protocol):
    """Chance that is not part of any decision: ids, keys, jitter."""

    def bytes(self, length: int) -> bytes:
        """Cryptographically strong random bytes."""


class StoreDenied(OSError):
    """The store does not let us in, or does not know the bucket: trying again does not help,
    another credential or setting does."""


class StoreUnavailable(OSError):
    """The store gave no answer, or none that helps, to all attempts: later it may."""


class StoreDamaged(OSError):
    """What arrived there or here is not what was sent."""


class ObjectStore(Protocol):
    """Named immutable blobs with conditional creation.

    Calls block and may be made from several threads.  Stores that are reached over a network try
    again by themselves, a limited number of times, before they raise `StoreUnavailable`; besides
    what is said below, all may raise `StoreDenied`, `StoreDamaged` and other OSErrors.
    """

    def put(self, name: str, data: bytes, *, if_absent: bool = False) -> None:
        """Store durably, with a checksum where there is somebody to compare it.

        Raises FileExistsError when `if_absent` and it is there, ValueError for a bad name.
        """

    def put_stream(self, name: str, chunks: Iterable[bytes]) -> None:
        """Store the concatenation of chunks durably, in little memory.

        Nothing is there, or what was, when `chunks` raise.
        """

    def get(self, name: str) -> bytes:
        """Raises FileNotFoundError."""

    def get_range(self, name: str, position: int, length: int) -> bytes:
        """Up to `length` bytes from `position`; fewer only at the end of the blob.

        Raises FileNotFoundError.
        """

    def size(self, name: str) -> int:
        """Length in bytes.  Raises FileNotFoundError."""

    def list(self, prefix: str) -> Sequence[str]:
        """Names with the prefix, sorted."""

    def delete(self, name: str) -> None:
        """Remove; no error when it is not there."""


class OutcomeUnknown(OSError):
    """A swap may have landed, may land later, or never."""


class RecordStore(Protocol):
    """One small value outside of all replicas, changed by compare-and-swap alone.

    Calls block; drivers call them from a thread of their own.
    """

    def read(self) -> bytes | None:
        """What is in force, by a read that no swap known before it can be missing from; None when
        there is nothing.  Raises OSError."""

    def swap(self, expected: bytes | None, new: bytes) -> bool:
        """Put `new` in the place of exactly `expected` (None: of nothing); whether it was done.

        Durable and visible to every later ``read`` at the return.  Raises `OutcomeUnknown`; any
        other OSError says that it was not done and never will be.
        """

    def mark(self, first: bytes | None) -> bytes | None:
        """Whose place this is: what lies beside the value, was put there once and never changes.

        Where there is nothing, `first` is put there, durably, unless it is None.  Of many that
        do so at once, all are answered with the one that landed.  Raises OSError; asking again
        finds whatever has landed.
        """


class Secrets(Protocol):
    """Key material by name; values may change while the process runs."""

    def get(self, name: str) -> bytes:
        """Current value.  Raises KeyError with the name when there is none."""


class Caller(Protocol):
    """Who a request comes from."""

    @property
    def tenant(self) -> str:
        """Tenant that all names of the request belong to."""

    @property
    def principal(self) -> str:
        """The caller within the tenant."""

    @property
    def scopes(self) -> frozenset[str]:
        """``domain:write``, ``domain:read``, ``admin``; ``*`` stands for any domain."""


class Identity(Protocol):
    """Authentication at the gateway."""

    def authenticate(self, headers: Mapping[str, str], *, peer_is_loopback: bool) -> Caller:
        """Raises `EngineError` UNAUTHENTICATED.  Header names are lower-case."""


class Telemetry(Protocol):
    """Spans per group; metrics are kept by the drivers themselves."""

    def span(
        self,
        name: str,
        *,
        start: Instant,
        end: Instant,
        traceparent: str | None,
        attributes: Mapping[str, str | int | float],
        links: Sequence[str] = (),
    ) -> None:
        """Record one finished span of the trace of `traceparent`, linked to other traces.

        Never raises, never blocks.
        """


class Network(Protocol):
    """Ordered, framed messages between replicas; may lose a connection at any time."""

    async def send(self, peer: str, message: bytes) -> None:
        """Hand a message over; it may not arrive.  Waits while the peer's buffer is full."""

    async def receive(self) -> tuple[str, bytes]:
        """The next message and its peer."""
