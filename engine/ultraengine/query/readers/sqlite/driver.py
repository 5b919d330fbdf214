"""A `Reader` over a SQLite file: a few threads, each with a connection of its own.

A connection is opened with ``mode=ro`` and ``query_only``: twice unable to write.  In WAL mode a
read transaction sees one snapshot while the worker goes on writing.  A statement that takes too
long is ended from inside SQLite, by its progress handler.
"""

import asyncio
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar
from urllib.parse import quote

from ultraengine.model.projection import Row
from ultraengine.projection.sqlite.driver import UNAVAILABLE, path_of
from ultraengine.projection.sqlite.exact import AGGREGATES, FUNCTIONS
from ultraengine.query.reader import SERVING, ReadEnded, ReaderUnavailable, Talk
from ultraengine.query.readers.sqlite.dialect import SqliteReadDialect
from ultraengine.query.sql import Statement

PROGRESS_STEPS: Final = 2_000
"""Virtual machine steps between two looks at the clock: some microseconds."""
BUSY_S: Final = 1.0
"""Longest wait for a lock; readers of a WAL wait only while it is made or recovered."""
CACHE_KIB: Final = 16_384
T = TypeVar("T")


class SqliteReader:
    """Implements `query.reader.Reader`."""

    def __init__(
        self, url: str, *, connections: int, on_statement: Callable[[str], None] | None = None
    ) -> None:
        """`on_statement` is told each statement as SQLite runs it, values in their places.

        Raises `InvariantBroken` for a URL of another shape.
        """
        self.dialect = SqliteReadDialect()
        self._path = path_of(url)
        self._threads = connections
        self._on_statement = on_statement
        self._pool: ThreadPoolExecutor | None = None
        self._local = threading.local()
        self._open: list[sqlite3.Connection] = []
        self._deadline = threading.local()

    async def open(self) -> None:
        """Start the threads; connections are opened with their first read."""
        self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="sql-read")

    async def close(self) -> None:
        """Close all connections, then the threads.  Idempotent."""
        if self._pool is not None:
            pool, self._pool = self._pool, None
            await asyncio.get_running_loop().run_in_executor(None, pool.shutdown)
            for connection in self._open:
                connection.close()
            self._open = []

    async def run(self, tenant: str, talk: "Talk[T]", timeout_s: float) -> T:
        """One read transaction on one of the threads.  SQLite knows no tenants of its own."""
        del tenant
        if self._pool is None:
            raise ReaderUnavailable("the reader is closed")
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pool, self._converse, talk, timeout_s)

    # --- on a thread of the pool ----------------------------------------------------------

    def _connection(self) -> sqlite3.Connection:
        held: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if held is not None:
            return held
        url = f"file:{quote(self._path)}?mode=ro"
        connection = sqlite3.connect(
            url, uri=True, timeout=BUSY_S, isolation_level=None, check_same_thread=False
        )
        connection.execute("PRAGMA query_only = ON")
        connection.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
        for name, count, function in FUNCTIONS:
            connection.create_function(name, count, function, deterministic=True)
        for name, count, aggregate in AGGREGATES:
            connection.create_aggregate(name, count, aggregate)
        connection.set_progress_handler(self._late, PROGRESS_STEPS)
        connection.set_trace_callback(self._on_statement)
        self._local.connection = connection
        self._open.append(connection)
        return connection

    def _late(self) -> bool:
        deadline: float = self._deadline.at
        return time.monotonic() > deadline

    def _converse(self, talk: "Talk[T]", timeout_s: float) -> T:
        asked = ""
        try:
            connection = self._connection()
            self._deadline.at = time.monotonic() + timeout_s
            connection.execute("BEGIN")
            try:
                statement = next(talk)
                while True:
                    asked = statement.name
                    self._deadline.at = time.monotonic() + timeout_s
                    statement = talk.send(self._rows(connection, statement))
            except StopIteration as ended:
                result: T = ended.value
                return result
            finally:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
        except sqlite3.Error as error:
            code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_MISUSE) & 0xFF
            if code == sqlite3.SQLITE_INTERRUPT:
                raise ReadEnded(str(error)) from error
            self._drop()
            # Without the engine's own tables no worker has been here yet.
            if code in UNAVAILABLE or (code == sqlite3.SQLITE_ERROR and asked == SERVING):
                raise ReaderUnavailable(str(error)) from error
            raise

    def _rows(self, connection: sqlite3.Connection, statement: Statement) -> Sequence[Row]:
        load, columns = self.dialect.load, statement.columns
        found = connection.execute(statement.text, statement.values)
        return [
            tuple(load(raw, column) for raw, column in zip(row, columns, strict=True))
            for row in found
        ]

    def _drop(self) -> None:
        """Give up this thread's connection: the file may be another one by now."""
        connection = getattr(self._local, "connection", None)
        if connection is not None:
            self._local.connection = None
            self._open.remove(connection)
            connection.close()
