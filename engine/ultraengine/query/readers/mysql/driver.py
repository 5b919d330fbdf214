"""A `Reader` over MariaDB or MySQL: some connections, each in read-only transactions.

The server has no tenants of its own: the statement's condition is the only one, and the login
should have SELECT and nothing else (`docs/query.md`).
"""

from collections.abc import Sequence
from typing import Final, TypeVar

from ultraengine.model.errors import EngineError
from ultraengine.model.projection import Row
from ultraengine.projection.mysql.address import parse
from ultraengine.projection.mysql.dialect import Flavor
from ultraengine.projection.mysql.session.driver import Lost, ServerError, Session, connect
from ultraengine.projection.target import TargetUnavailable
from ultraengine.query.reader import SERVING, ReadEnded, ReaderUnavailable, Talk
from ultraengine.query.readers.mysql.dialect import MysqlReadDialect
from ultraengine.query.sql import Statement

LOCK_WAIT_S: Final = 2
SESSION: Final = (
    # A definition ends the transaction before it, and then only the session's word counts.
    "SET SESSION TRANSACTION READ ONLY",
    # A snapshot of other levels lasts for one statement.
    "SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ",
)
BEGIN: Final = "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY"
_ENDED: Final = frozenset({1969, 3024})
"""A statement ran into its timeout: MariaDB's and MySQL's number."""
_DENIED: Final = frozenset({1044, 1045, 1142, 1143, 1040, 1203, 1205, 1213})
"""Of the way in, or of the moment: rights, too many connections, locks."""
T = TypeVar("T")


class MysqlReader:
    """Implements `query.reader.Reader`."""

    def __init__(self, url: str, *, connections: int) -> None:
        """Raises ValueError for a URL of another shape."""
        self.dialect = MysqlReadDialect()
        self._address = parse(url)
        self._connections = connections
        self._idle: list[Session] = []

    async def open(self) -> None:
        """Nothing is asked of the server before the first read."""

    async def close(self) -> None:
        """Close what is idle.  Idempotent."""
        idle, self._idle = self._idle, []
        for session in idle:
            await session.close()

    async def run(self, tenant: str, talk: "Talk[T]", timeout_s: float) -> T:
        """One transaction on one connection; as many connections as there are calls at a time."""
        del tenant
        asked: list[str] = []
        session = await self._connected()
        try:
            await session.run(_limit(session.flavor, timeout_s))
            await session.run(BEGIN)
            try:
                result = await self._converse(session, talk, asked)
            except EngineError:
                await self._rest(session)
                raise
            await self._rest(session)
        except EngineError:
            raise
        except ServerError as error:
            session.drop()
            if error.code in _ENDED:
                raise ReadEnded(str(error)) from error
            # Without the engine's own tables no worker has been here yet.
            if error.code in _DENIED or asked in ([], [SERVING]):
                raise ReaderUnavailable(str(error)) from error
            raise
        except Lost as error:
            session.drop()
            raise ReaderUnavailable(str(error)) from error
        except BaseException:
            # Cancelled, or what the conversation raised: no transaction must stay open.
            session.drop()
            raise
        return result

    async def _rest(self, session: Session) -> None:
        """End the transaction and keep the connection, or not when there are enough."""
        await session.run("ROLLBACK")
        if len(self._idle) < self._connections:
            self._idle.append(session)
        else:
            await session.close()

    async def _connected(self) -> Session:
        if self._idle:
            return self._idle.pop()
        try:
            session = await connect(self._address, LOCK_WAIT_S)
        except TargetUnavailable as error:
            raise ReaderUnavailable(str(error)) from error
        try:
            for statement in SESSION:
                await session.run(statement)
        except (ServerError, Lost) as error:
            session.drop()
            raise ReaderUnavailable(str(error)) from error
        return session

    async def _converse(self, session: Session, talk: "Talk[T]", asked: list[str]) -> T:
        try:
            statement = next(talk)
            while True:
                asked.append(statement.name)
                statement = talk.send(await self._rows(session, statement))
        except StopIteration as ended:
            result: T = ended.value
            return result

    async def _rows(self, session: Session, statement: Statement) -> Sequence[Row]:
        load, columns = self.dialect.load, statement.columns
        found = await session.rows(statement.text, *statement.values)
        return [
            tuple(load(raw, column) for raw, column in zip(row, columns, strict=True))
            for row in found
        ]


def _limit(flavor: Flavor, timeout_s: float) -> str:
    """The statement that bounds the following ones."""
    if flavor is Flavor.MARIADB:
        return f"SET SESSION max_statement_time = {max(0.001, timeout_s):.3f}"
    return f"SET SESSION max_execution_time = {max(1, round(timeout_s * 1_000))}"
