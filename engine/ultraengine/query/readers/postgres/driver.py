"""A `Reader` over PostgreSQL: a pool of connections that can only read.

Each conversation is one transaction, REPEATABLE READ and READ ONLY, as the reader role of the
target (`projection.postgres.dialect.Options`): a login that may do more gives that up for it.
``ultra.tenant`` is set for that transaction alone; row-level security then lets the tenant's
rows through and no others, whatever the statement says.
"""

import asyncio
from collections.abc import Sequence
from typing import Any, Final, TypeVar

import asyncpg

from ultraengine.model.projection import Row
from ultraengine.projection.postgres.dialect import Options
from ultraengine.projection.postgres.session.driver import SETTINGS
from ultraengine.query.reader import SERVING, ReadEnded, ReaderUnavailable, Talk
from ultraengine.query.readers.postgres.dialect import PostgresReadDialect
from ultraengine.query.sql import Statement

CONNECT_S: Final = 5.0
IDLE_S: Final = 300.0
"""A connection that nobody has used for so long is closed."""
GRACE_S: Final = 5.0
"""Time after a statement's timeout within which the server must have said so."""
_AWAY: Final = (OSError, TimeoutError, EOFError, asyncpg.InterfaceError,
                asyncpg.InternalClientError)  # fmt: skip
_AWAY_CLASSES: Final = ("08", "28", "3D", "53", "57", "58", "XX")
"""SQLSTATE classes that say something of the server or of our way in, not of the statement."""
T = TypeVar("T")


async def _nothing_to_reset(connection: Any) -> None:
    """Instead of asyncpg's round trip before an answer: what a conversation sets, it sets LOCAL."""


class PostgresReader:
    """Implements `query.reader.Reader`."""

    def __init__(self, url: str, *, connections: int, options: Options | None = None) -> None:
        self.dialect = PostgresReadDialect()
        self._url = url
        self._connections = connections
        self._options = options or Options()
        self._pool: Any = None

    async def open(self) -> None:
        """Nothing is asked of the server before the first read."""

    async def close(self) -> None:
        """Close the pool.  Idempotent."""
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.terminate()

    async def _connected(self) -> Any:
        if self._pool is None:
            made = await asyncpg.create_pool(
                self._url,
                min_size=0,
                max_size=self._connections,
                timeout=CONNECT_S,
                max_inactive_connection_lifetime=IDLE_S,
                reset=_nothing_to_reset,
                server_settings={
                    **SETTINGS,
                    "application_name": "ultra query",
                    "default_transaction_read_only": "on",
                },
            )
            if self._pool is None:
                self._pool = made
            else:
                # Somebody else has made one meanwhile.
                made.terminate()
        return self._pool

    async def run(self, tenant: str, talk: "Talk[T]", timeout_s: float) -> T:
        """One transaction on one connection."""
        asked: list[str] = []
        try:
            pool = await self._connected()
            async with (
                pool.acquire(timeout=CONNECT_S) as connection,
                connection.transaction(isolation="repeatable_read", readonly=True),
            ):
                await self._narrow(connection, tenant, timeout_s)
                return await self._converse(connection, talk, timeout_s, asked)
        except asyncpg.QueryCanceledError as error:
            raise ReadEnded(str(error)) from error
        except asyncpg.PostgresError as error:
            state = error.sqlstate or ""
            # Without the engine's own tables, or its role, no worker has been here yet.
            if state.startswith(_AWAY_CLASSES) or asked in ([], [SERVING]):
                raise ReaderUnavailable(f"{error} [{state}]") from error
            raise
        except _AWAY as error:
            raise ReaderUnavailable(str(error) or type(error).__name__) from error

    async def _narrow(self, connection: Any, tenant: str, timeout_s: float) -> None:
        """The reader's rights, the tenant's rows, the time allowed: until the transaction ends."""
        # One round trip; the first is what SET LOCAL ROLE does.
        await connection.execute(
            "SELECT set_config('role', $1, TRUE), set_config($2, $3, TRUE),"
            " set_config('statement_timeout', $4, TRUE)",
            self._options.reader,
            self._options.setting,
            tenant,
            f"{max(1, round(timeout_s * 1_000))}ms",
        )

    async def _converse(
        self, connection: Any, talk: "Talk[T]", timeout_s: float, asked: list[str]
    ) -> T:
        try:
            statement = next(talk)
            while True:
                asked.append(statement.name)
                async with asyncio.timeout(timeout_s + GRACE_S):
                    rows = await self._rows(connection, statement)
                statement = talk.send(rows)
        except StopIteration as ended:
            result: T = ended.value
            return result

    async def _rows(self, connection: Any, statement: Statement) -> Sequence[Row]:
        load, columns = self.dialect.load, statement.columns
        found = await connection.fetch(statement.text, *statement.values)
        return [
            tuple(load(raw, column) for raw, column in zip(row, columns, strict=True))
            for row in found
        ]
