"""One connection to PostgreSQL: made when it is needed, given up after errors of its own.

A connection that is lost at COMMIT leaves its outcome open.  The next one therefore ends the
session of the one before and waits until the server has done so: whatever it then reads of the
positions is final.

No connection pool between that shares sessions among transactions: staging tables and settings
belong to the session.
"""

import contextlib
import secrets
from collections.abc import AsyncIterator
from typing import Any, Final

import asyncpg

from ultraengine.projection.postgres import statements as sql
from ultraengine.projection.target import Fenced, RowRefused, TargetUnavailable

Connection = Any
"""`asyncpg.Connection`, which publishes no types."""

APPLICATION_CHARS_MAX: Final = 40
SETTINGS: Final = {
    # How a row is written decides its checksum; compiling a statement costs more than it saves.
    "TimeZone": "UTC",
    "DateStyle": "ISO, MDY",
    "IntervalStyle": "postgres",
    "bytea_output": "hex",
    "extra_float_digits": "1",
    "client_encoding": "UTF8",
    "jit": "off",
}
_LOST: Final = (
    OSError,
    TimeoutError,
    EOFError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
)


class Known:
    """What a connection has made or found out, and need not ask again."""

    def __init__(self) -> None:
        self.stages: set[str] = set()
        """Tables that have a staging table."""
        self.partitions: dict[str, set[str]] = {}
        """By table."""
        self.native: dict[str, bool] = {}
        """By table: whether it has partitions of PostgreSQL's own."""
        self.unseen: dict[str, list[int]] = {}
        """By table: rows merged since it was analyzed, and how many make it due again."""


class Session:
    """A connection that comes back, with the errors of the Protocol of targets."""

    def __init__(
        self,
        name: str,
        url: str,
        *,
        connect_timeout_s: float,
        statement_timeout_s: float,
        lock_timeout_s: float,
    ) -> None:
        self._name = name
        self._url = url
        self._connect_timeout_s = connect_timeout_s
        self._statement_timeout_s = statement_timeout_s
        self._application = f"ultra {name}"[:APPLICATION_CHARS_MAX] + f" {secrets.token_hex(6)}"
        """Of this object alone: by it the server's side of a lost connection is found."""
        self._settings = {
            **SETTINGS,
            "application_name": self._application,
            "statement_timeout": str(round(statement_timeout_s * 1000)),
            "lock_timeout": str(round(lock_timeout_s * 1000)),
            "idle_in_transaction_session_timeout": str(round(statement_timeout_s * 1000)),
        }
        self._connection: Connection = None
        self.known = Known()

    async def _connected(self) -> Connection:
        if self._connection is not None and not self._connection.is_closed():
            return self._connection
        self.give_up()
        self._connection = await asyncpg.connect(
            self._url,
            timeout=self._connect_timeout_s,
            # The server is to give up first, and say so.
            command_timeout=self._statement_timeout_s + self._connect_timeout_s,
            server_settings=self._settings,
        )
        if not await self._connection.fetchval(sql.END_SESSIONS, self._application):
            raise TargetUnavailable(f"{self._name}: an earlier session has not ended yet")
        return self._connection

    def give_up(self) -> None:
        """Forget the connection; what it had in hand is settled by the next one."""
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None
        self.known = Known()

    @contextlib.asynccontextmanager
    async def use(self) -> AsyncIterator[Connection]:
        """The connection; its errors become `RowRefused`, `Fenced` or `TargetUnavailable`."""
        try:
            yield await self._connected()
        except (RowRefused, Fenced):
            raise
        except (asyncpg.PostgresError, *_LOST) as error:
            first = _first(error)
            if first is not error or not isinstance(first, asyncpg.PostgresError):
                self.give_up()
            raise self._judged(first) from error
        except BaseException:
            # Cancelled, or a fault of our own: a transaction must not stay open.
            self.give_up()
            raise

    def _judged(self, error: BaseException) -> Exception:
        state = getattr(error, "sqlstate", None) or ""
        said = f"{self._name}: {str(error) or type(error).__name__} [{state}]"
        what = sql.verdict(state)
        if what is sql.Verdict.REFUSED:
            return RowRefused(said)
        if what is sql.Verdict.GONE:
            return Fenced(said)
        self.give_up()
        return TargetUnavailable(said)

    async def close(self) -> None:
        """Say goodbye where somebody listens.  Idempotent."""
        if self._connection is not None and not self._connection.is_closed():
            with contextlib.suppress(asyncpg.PostgresError, *_LOST):
                await self._connection.close(timeout=self._connect_timeout_s)
        self.give_up()


def _first(error: BaseException) -> BaseException:
    """What went wrong before everything else did: to undo a transaction fails too, then."""
    while isinstance(error.__context__, (asyncpg.PostgresError, *_LOST)):
        error = error.__context__
    return error
