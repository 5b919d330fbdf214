"""One connection to MariaDB or MySQL: statements in, rows and counts out.

Values travel as parameters of prepared statements, which are kept by their text.  Many rows go in
one command where the server knows MariaDB's bulk command, and as a long list of parameters where
it does not.

asyncmy is used here and nowhere else.  Its errors leave as `ServerError` (the server said no; the
connection is as it was) or `Lost` (there is no connection any more, or no trust in it).
"""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Sequence
from typing import Any, Final

import asyncmy
from asyncmy import errors
from asyncmy.constants.CLIENT import FOUND_ROWS

from ultraengine.projection.mysql.address import Address
from ultraengine.projection.mysql.dialect import Flavor
from ultraengine.projection.mysql.statements import VERSION, session, too_old, version_of
from ultraengine.projection.target import RowRefused, TargetUnavailable

CONNECT_S: Final = 15.0
"""To reach the server and be let in."""
CLOSE_S: Final = 2.0
"""To say goodbye."""
PREPARED_MAX: Final = 64
"""Statements kept by the server for one connection; the oldest are given up."""
PARAMETERS_MAX: Final = 30_000
"""Of one statement without the bulk command; the protocol ends at 65,535."""
LIST_ROWS_MAX: Final = 500
"""Rows of such a statement."""
PACKET_BYTES_MAX: Final = 8 << 20
"""Of one command, where the server takes as much."""
_LOST_FROM: Final = 2000
"""Errors of the client itself have numbers from 2000 to 2999, and 0."""
_SHUTDOWN: Final = frozenset({1053, 1077, 1079, 1317, 1927})
"""The server is going down, or has ended our connection or statement."""


class ServerError(Exception):
    """The server refused a statement."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code


class Lost(Exception):
    """There is no connection any more; what was under way may have been done or not."""


@contextlib.asynccontextmanager
async def _translated() -> AsyncIterator[None]:
    try:
        yield
    except errors.Error as error:
        code = error.args[0] if error.args and isinstance(error.args[0], int) else 0
        message = str(error.args[-1]) if error.args else type(error).__name__
        if not code or _LOST_FROM <= code < _LOST_FROM + 1_000 or code in _SHUTDOWN:
            raise Lost(message) from error
        raise ServerError(code, message) from error
    except UnicodeEncodeError as error:
        # Raised before anything is sent.
        raise RowRefused(f"a text is no Unicode: {error.reason}") from error
    except (OSError, EOFError) as error:
        raise Lost(str(error) or type(error).__name__) from error


class Session:
    """A connection as the target needs it."""

    def __init__(self, connection: Any, *, bulk: bool) -> None:
        """`connection` is asyncmy's, whose own types are partial."""
        self._connection = connection
        self._bulk = bulk
        self._prepared: dict[str, Any] = {}
        self.flavor = Flavor.MARIADB
        self.packet_bytes = PACKET_BYTES_MAX
        """Largest command."""

    async def begin(self, lock_wait_s: int) -> None:
        """Learn who is there, and say how we work.  Raises `TargetUnavailable` if it is too old."""
        ((version, packet_bytes),) = await self.rows(VERSION)
        self.flavor, numbers = version_of(version)
        reason = too_old(self.flavor, numbers)
        if reason is not None:
            raise TargetUnavailable(reason)
        self._bulk = self._bulk and self.flavor is Flavor.MARIADB
        self.packet_bytes = min(packet_bytes, PACKET_BYTES_MAX)
        for statement in session(self.flavor, lock_wait_s):
            await self.run(statement)

    async def run(self, statement: str) -> None:
        """A statement without parameters, as it is."""
        async with _translated():
            await self._connection.query(statement)

    async def rows(self, statement: str, *values: Any) -> Sequence[tuple[Any, ...]]:
        """What a query finds."""
        async with _translated():
            found = await (await self._prepare(statement)).execute(values)
        return found.rows or ()

    async def change(self, statement: str, *values: Any) -> int:
        """Rows that a statement met, changed or not."""
        async with _translated():
            prepared = await self._prepare(statement)
            done = await prepared.execute(values)
        return int(done.affected_rows)

    async def many(self, statement: str, rows: Sequence[Sequence[Any]]) -> int:
        """Run a statement once per row; how many rows all of them met."""
        if not self._bulk:
            return sum([await self.change(statement, *row) for row in rows])
        async with _translated():
            done = await (await self._prepare(statement)).execute_bulk(rows)
        return int(done.affected_rows)

    async def insert(self, statement: str, one: str, rows: Sequence[Sequence[Any]]) -> None:
        """Run an insertion whose text holds `one` list of values, for all rows."""
        if self._bulk:
            await self.many(statement, rows)
            return
        step = max(1, min(LIST_ROWS_MAX, PARAMETERS_MAX // len(rows[0])))
        for at in range(0, len(rows), step):
            some = rows[at : at + step]
            listed = statement.replace(one, ", ".join([one] * len(some)), 1)
            await self.change(listed, *(value for row in some for value in row))

    async def _prepare(self, statement: str) -> Any:
        prepared = self._prepared.get(statement)
        if prepared is None:
            if len(self._prepared) >= PREPARED_MAX:
                await self._prepared.pop(next(iter(self._prepared))).close()
            prepared = self._prepared[statement] = await self._connection.prepare(statement)
        return prepared

    def drop(self) -> None:
        """Let go without a word; what was under way is undone by the server."""
        self._connection.close()

    async def close(self) -> None:
        """Say goodbye, for a moment."""
        with contextlib.suppress(errors.Error, OSError, TimeoutError):
            async with asyncio.timeout(CLOSE_S):
                await self._connection.ensure_closed()
        self._connection.close()


def _tls(address: Address) -> ssl.SSLContext | None:
    if address.tls == "off":
        return None
    context = ssl.create_default_context(cafile=address.ca)
    if address.tls == "required":
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


async def connect(address: Address, lock_wait_s: int) -> Session:
    """Raises `TargetUnavailable`."""
    session = None
    try:
        async with asyncio.timeout(CONNECT_S), _translated():
            connection = await asyncmy.connect(
                host=address.host,
                port=address.port,
                unix_socket=address.socket,
                user=address.user,
                # As text it would have to be Latin-1.
                password=address.password.encode(),
                database=address.database,
                charset="utf8mb4",
                autocommit=True,
                # An update meets a row also when it has the values already.
                client_flag=FOUND_ROWS,
                ssl=_tls(address),
                program_name="ultraengine",
            )
            session = Session(connection, bulk=address.bulk)
            await session.begin(lock_wait_s)
    except (ServerError, Lost, TimeoutError, ssl.SSLError) as error:
        if session is not None:
            session.drop()
        raise TargetUnavailable(f"{address!r}: {error or 'no answer'}") from error
    except BaseException:
        if session is not None:
            session.drop()
        raise
    return session
