"""What a database does for reads, and the conversation that a read has with it.

A read is a generator that yields statements and is sent their rows: pure, so it is the same for
a driver that waits and for one that runs in a thread.  A `Reader` runs all statements of one
conversation on one snapshot of the database, on a connection that cannot write.  Every
implementation passes `ultraengine.testing.sql_readers.ReaderContract`.
"""

from collections.abc import Generator, Sequence
from typing import Final, Protocol, TypeVar

import msgspec

from ultraengine.model.errors import EngineError
from ultraengine.model.ids import Instant, Offset, ShardId
from ultraengine.model.projection import ColumnType, Projection, Row
from ultraengine.projection.engine_tables import LEDGER, POSITIONS, SETS, SLICES
from ultraengine.projection.target import SetState
from ultraengine.query.dialect import ReadDialect
from ultraengine.query.plan import Asked
from ultraengine.query.positions import Position
from ultraengine.query.sql import Moment, Statement, statements

SHARDS_MAX: Final = 4_096
SLICES_MAX: Final = 366
"""Slices that one read makes anew; more are still to be computed: 503, try again."""
SERVING: Final = "serving"
"""Name of the first statement of every conversation."""
T = TypeVar("T")
Talk = Generator[Statement, Sequence[Row], T]
"""Yields statements, is sent their rows (loaded), returns the result."""


class ReaderUnavailable(Exception):
    """The database cannot be reached, or has dropped us."""


class ReadEnded(Exception):
    """A statement took longer than it may, and was ended."""


class Reader(Protocol):
    """One database, read only.  Used by one event loop."""

    @property
    def dialect(self) -> ReadDialect:
        """How its statements differ."""

    async def open(self) -> None:
        """Prepare; does not fail when the database is away."""

    async def close(self) -> None:
        """Disconnect.  Idempotent."""

    async def run(self, tenant: str, talk: "Talk[T]", timeout_s: float) -> T:
        """One conversation on one snapshot; `tenant` for databases that check rows themselves.

        Raises `ReaderUnavailable`, `ReadEnded`, and what `talk` raises.
        """


class Found(msgspec.Struct, frozen=True):
    """The rows of a query, by statement, and the moment they show."""

    moment: Moment
    ran: tuple[Statement, ...]
    rows: tuple[Sequence[Row], ...]


class Behind(msgspec.Struct, frozen=True):
    """The tables have not come as far as was wanted; nothing was read."""

    moment: Moment


def ask(asked: Asked, dialect: ReadDialect) -> "Talk[Found | Behind]":
    """The conversation of a query.  Raises `EngineError` PROJECTION_UNAVAILABLE."""
    route = asked.route
    moment = yield from look(route.projection, dialect, asked.aggregates)
    if not asked.wanted.reached(moment.position):
        return Behind(moment)
    ran = statements(asked, moment, dialect)
    rows: list[Sequence[Row]] = []
    for statement in ran:
        found = yield statement
        rows.append(found)
        if statement.required and not found:
            break
    return Found(moment, tuple(ran[: len(rows)]), tuple(rows))


def look(
    projection: Projection, dialect: ReadDialect, aggregates: Sequence[str] = ()
) -> "Talk[Moment]":
    """Which set serves, how far it has come, and what these aggregates do not say yet.

    Raises `EngineError` PROJECTION_UNAVAILABLE.
    """
    found = yield _serving(projection.name, dialect)
    if not found:
        raise EngineError(
            f"no tables of {projection.name} serve yet", code="PROJECTION_UNAVAILABLE"
        )
    version, build = found[0][0], found[0][1]
    if version != projection.version:
        raise EngineError(
            f"the tables of {projection.name} are of version {version}, this process reads "
            f"version {projection.version}",
            code="PROJECTION_UNAVAILABLE",
        )
    placed = [row for row in found if row[2] is not None]
    position = Position.of({ShardId(row[2]): Offset(row[3]) for row in placed})
    time = Instant(max((row[4] for row in placed), default=0))
    pending: dict[str, tuple[int, ...]] = {}
    if aggregates:
        left = yield _pending(projection.name, build, aggregates, dialect)
        if len(left) > SLICES_MAX:
            raise EngineError(
                f"more than {SLICES_MAX} days are still to be summed up",
                code="PROJECTION_UNAVAILABLE",
            )
        for name, day in left:
            pending[name] = (*pending.get(name, ()), day)
    return Moment(version, build, position, time, pending)


def _serving(projection: str, dialect: ReadDialect) -> Statement:
    quote = dialect.quote
    columns = (
        SETS.column("version"),
        SETS.column("build"),
        *(
            msgspec.structs.replace(POSITIONS.column(name), nullable=True)
            for name in ("shard", "log_offset", "booked_at")
        ),
    )
    placed = f"p.{quote('projection')} = s.{quote('projection')} AND p.{quote('build')}"
    text = (
        f"SELECT s.{quote('version')}, s.{quote('build')}, p.{quote('shard')},"
        f" p.{quote('log_offset')}, p.{quote('booked_at')}"
        f" FROM {quote(SETS.name)} s LEFT JOIN {quote(POSITIONS.name)} p"
        f" ON {placed} = s.{quote('build')}"
        f" WHERE s.{quote('projection')} = {dialect.parameter(1, ColumnType.TEXT)}"
        f" AND s.{quote('state')} = {dialect.parameter(2, ColumnType.TEXT)}"
        f" LIMIT {SHARDS_MAX}"
    )
    values = (
        dialect.bind(projection, ColumnType.TEXT),
        dialect.bind(SetState.SERVING.value, ColumnType.TEXT),
    )
    return Statement(SERVING, text, values, columns, SHARDS_MAX)


def _pending(
    projection: str, build: int, aggregates: Sequence[str], dialect: ReadDialect
) -> Statement:
    quote = dialect.quote
    places = [
        dialect.parameter(number, ColumnType.TEXT) for number in range(3, 3 + len(aggregates))
    ]
    text = (
        f"SELECT {quote('aggregate')}, {quote('slice')} FROM {quote(SLICES.name)}"
        f" WHERE {quote('projection')} = {dialect.parameter(1, ColumnType.TEXT)}"
        f" AND {quote('build')} = {dialect.parameter(2, ColumnType.INTEGER)}"
        f" AND {quote('aggregate')} IN ({', '.join(places)})"
        f" LIMIT {SLICES_MAX + 1}"
    )
    values = (
        dialect.bind(projection, ColumnType.TEXT),
        dialect.bind(build, ColumnType.INTEGER),
        *(dialect.bind(name, ColumnType.TEXT) for name in aggregates),
    )
    columns = (SLICES.column("aggregate"), SLICES.column("slice"))
    return Statement("pending", text, values, columns, SLICES_MAX)


AUDITED: Final = ("log_end", "epoch", "booked_at", "chain", "rows")


def audit(
    projection: Projection, dialect: ReadDialect, *, shard: int, before: int, limit: int
) -> "Talk[tuple[Moment, Statement, Sequence[Row]]]":
    """The projection ledger of the serving set, newest first: which chain the tables followed."""
    moment = yield from look(projection, dialect)
    quote = dialect.quote
    columns = tuple(LEDGER.column(name) for name in AUDITED)
    bound = (
        (projection.name, ColumnType.TEXT),
        (moment.build, ColumnType.INTEGER),
        (shard, ColumnType.INTEGER),
        (before, ColumnType.INTEGER),
    )
    places = [dialect.parameter(number, kind) for number, (_, kind) in enumerate(bound, 1)]
    text = (
        f"SELECT {', '.join(quote(column.name) for column in columns)} FROM {quote(LEDGER.name)}"
        f" WHERE {quote('projection')} = {places[0]} AND {quote('build')} = {places[1]}"
        f" AND {quote('shard')} = {places[2]} AND {quote('log_end')} < {places[3]}"
        f" ORDER BY {quote('log_end')} DESC LIMIT {limit + 1}"
    )
    values = tuple(dialect.bind(value, kind) for value, kind in bound)
    statement = Statement("ledger", text, values, columns, limit)
    rows = yield statement
    return moment, statement, rows
