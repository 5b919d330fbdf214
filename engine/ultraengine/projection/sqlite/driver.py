"""A target in one SQLite file, on a thread of its own (`store/driver.py` has the statements)."""

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from typing import Final, TypeVar

import msgspec

from ultraengine.model.errors import InvariantBroken
from ultraengine.model.ids import Instant, ShardId
from ultraengine.model.projection import Projection, Table
from ultraengine.projection.fold import Batch
from ultraengine.projection.own_thread.driver import OwnThread
from ultraengine.projection.sqlite.store.driver import Store
from ultraengine.projection.target import (
    Checkpoint,
    Checksum,
    Moved,
    Parked,
    ProjectionSet,
    Request,
    TargetUnavailable,
)

T = TypeVar("T")

SCHEME: Final = "sqlite:///"
UNAVAILABLE: Final = frozenset({
    sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_INTERRUPT, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PROTOCOL, sqlite3.SQLITE_PERM, sqlite3.SQLITE_NOTADB,
})  # fmt: skip
"""Primary error codes that say something of the file, not of the statement."""


def path_of(url: str) -> str:
    """``sqlite:///relative.db`` or ``sqlite:////an/absolute.db``.

    Raises `InvariantBroken` for another shape.
    """
    path = url.removeprefix(SCHEME)
    if path == url or not path:
        raise InvariantBroken(f"a URL of SQLite is {SCHEME}path", url=url)
    return path


class SqliteTarget:
    """Implements `projection.target.Target`."""

    dialect: Final = "sqlite"
    exactly_once: Final = True

    def __init__(self, name: str, url: str) -> None:
        self.name = name
        self._path = path_of(url)
        self._store: Store | None = None
        self._thread = OwnThread(f"sqlite {name}")

    async def _run(self, step: Callable[[Store], T]) -> T:
        return await self._thread.run(lambda: self._step(step))

    def _step(self, step: Callable[[Store], T]) -> T:
        try:
            if self._store is None:
                self._store = Store(self._path)
            return step(self._store)
        except sqlite3.Error as error:
            raise _translated(error, self._path) from error

    async def open(self) -> None:
        """`Target.open`."""
        self._thread.start()
        await self._run(Store.prepare)

    async def close(self) -> None:
        """`Target.close`."""
        await self._thread.stop(self._close)

    def _close(self) -> None:
        store, self._store = self._store, None
        if store is not None:
            store.db.close()

    async def sets(self) -> Sequence[ProjectionSet]:
        """`Target.sets`."""
        return await self._run(lambda store: store.sets())

    async def create(self, projection: Projection, build: int, now: Instant) -> ProjectionSet:
        """`Target.create`."""
        return await self._run(lambda store: store.create(projection, build, now))

    async def positions(self, of: ProjectionSet) -> Mapping[ShardId, Checkpoint]:
        """`Target.positions`."""
        return await self._run(lambda store: store.positions(of))

    async def write(
        self, of: ProjectionSet, projection: Projection, batch: Batch, moved: Sequence[Moved]
    ) -> None:
        """`Target.write`."""
        await self._run(lambda store: store.write(of, projection, batch, moved))

    async def refresh(self, of: ProjectionSet, projection: Projection, slices_max: int) -> int:
        """`Target.refresh`."""
        return await self._run(lambda store: store.refresh(of, projection, slices_max))

    async def serve(self, of: ProjectionSet, projection: Projection, now: Instant) -> None:
        """`Target.serve`."""
        await self._run(lambda store: store.serve(of, projection, now))

    async def drop(self, of: ProjectionSet, tables: Sequence[str], now: Instant) -> None:  # noqa: ARG002  (it keeps no time of what is gone)
        """`Target.drop`."""
        await self._run(lambda store: store.drop(of, tables))

    async def park(self, of: ProjectionSet, parked: Parked | None) -> None:
        """`Target.park`."""
        text = None if parked is None else msgspec.json.encode(parked).decode()
        await self._run(lambda store: store.note(of, "parked", text))

    async def pause(self, of: ProjectionSet, *, paused: bool) -> None:
        """`Target.pause`."""
        await self._run(lambda store: store.note(of, "paused", paused))

    async def ask(self, projection: str, request: Request, now: Instant) -> None:
        """`Target.ask`."""
        await self._run(lambda store: store.ask(projection, request, now))

    async def requests(self) -> Sequence[tuple[str, Request]]:
        """`Target.requests`."""
        return await self._run(Store.requests)

    async def keep(self, of: ProjectionSet, projection: Projection, now: Instant) -> None:
        """`Target.keep`: rows of partitions past their keep are deleted; there are no others."""
        await self._run(lambda store: store.keep(of, projection, now))

    async def checksums(self, of: ProjectionSet, tables: Sequence[Table]) -> Mapping[str, Checksum]:
        """`Target.checksums`: sums of the rows' hashes."""
        return await self._run(lambda store: store.checksums(of, tables))


def _translated(error: sqlite3.Error, where: str) -> Exception:
    """What an error of SQLite means to a worker; others are bugs and stay as they are."""
    code = getattr(error, "sqlite_errorcode", None)
    if code is not None and code & 0xFF in UNAVAILABLE:
        return TargetUnavailable(f"{where}: {error}")
    return error
