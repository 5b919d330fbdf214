"""`PostgresTarget`: sets of tables in PostgreSQL 15 or newer, written over asyncpg.

One connection, made when it is needed and given up after any error that is not about rows.
A batch is one transaction:

1. the positions, each ``UPDATE … WHERE log_end = before``: of two workers one finds no row and is
   `Fenced` before it has sent anything else;
2. rows of APPEND tables by binary COPY straight into the table;
3. rows of CURRENT tables by COPY into a temporary table, then one ``INSERT … ON CONFLICT`` and
   one ``UPDATE`` per set of changed columns, which must find every row;
4. the slices that aggregates have to compute anew, and one audit row per shard.

A connection that is lost at COMMIT leaves its outcome open.  The next connection therefore ends
the session of the one before and waits until the server has done so: whatever it then reads of
the positions is final, and the worker goes on from there.

No connection pool between that shares sessions among transactions: staging tables and settings
belong to the session.
"""

import contextlib
import secrets
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import Any, Final

import asyncpg
import msgspec
import structlog

from ultraengine.model.ids import Instant, ShardId
from ultraengine.model.projection import Projection, Table
from ultraengine.projection.fold import Batch, CurrentRows
from ultraengine.projection.postgres import statements as sql
from ultraengine.projection.postgres.dialect import (
    DAY_US,
    SHAPE,
    Options,
    PostgresDialect,
    Slice,
    digest_of,
    end_of,
    shapes_of,
    slices_ahead,
    slices_of,
)
from ultraengine.projection.postgres.rows import SIGNATURE, TRAILER, encode, kinds, lead
from ultraengine.projection.target import (
    START,
    Checkpoint,
    Checksum,
    Fenced,
    Moved,
    Parked,
    ProjectionSet,
    Request,
    RowRefused,
    SetState,
    TargetUnavailable,
    all_tables,
    physical,
)

log = structlog.get_logger()

Connection = Any
"""`asyncpg.Connection`, which publishes no types."""

CHUNK_ROWS: Final = 2_000
"""Rows per message of a COPY: the server inserts one while the next is encoded."""
PARTITIONS_AHEAD: Final = 2
"""Partitions that are kept ready after the one of now."""
APPLICATION_CHARS_MAX: Final = 40
SESSION: Final = {
    # How a row is written decides its checksum; compiling a statement costs more than it saves.
    "TimeZone": "UTC",
    "DateStyle": "ISO, MDY",
    "IntervalStyle": "postgres",
    "bytea_output": "hex",
    "extra_float_digits": "1",
    "client_encoding": "UTF8",
    "jit": "off",
}
BY_INDEX: Final = "SET LOCAL enable_hashjoin = off; SET LOCAL enable_mergejoin = off"
"""A batch finds its rows by the key, however large the table is."""


class PostgresTarget:
    """A `projection.target.Target`."""

    def __init__(
        self,
        name: str,
        url: str,
        *,
        options: Options | None = None,
        connect_timeout_s: float = 10.0,
        statement_timeout_s: float = 60.0,
        lock_timeout_s: float = 10.0,
        scan_timeout_s: float = 3600.0,
    ) -> None:
        """`scan_timeout_s` is for checksums and aggregates, which read whole tables or days."""
        self._name = name
        self._url = url
        self._options = options or Options()
        self._sql = PostgresDialect(self._options)
        self._connect_timeout_s = connect_timeout_s
        self._statement_timeout_s = statement_timeout_s
        self._lock_timeout_s = lock_timeout_s
        self._scan_timeout_s = scan_timeout_s
        self._application = f"ultra {name}"[:APPLICATION_CHARS_MAX] + f" {secrets.token_hex(6)}"
        self._connection: Connection = None
        self._stages: set[str] = set()
        self._partitions: dict[str, set[str]] = {}
        self._native: dict[str, bool] = {}
        """By table: what this connection has found out."""

    @property
    def name(self) -> str:
        """As configured."""
        return self._name

    @property
    def dialect(self) -> str:
        """``postgresql``"""
        return self._sql.name

    @property
    def exactly_once(self) -> bool:
        """Rows and positions are one transaction."""
        return True

    # --- the connection ------------------------------------------------------------------

    async def _connected(self) -> Connection:
        if self._connection is not None and not self._connection.is_closed():
            return self._connection
        self._give_up()
        settings = {
            **SESSION,
            "application_name": self._application,
            "statement_timeout": f"{round(self._statement_timeout_s * 1000)}",
            "lock_timeout": f"{round(self._lock_timeout_s * 1000)}",
            "idle_in_transaction_session_timeout": f"{round(self._statement_timeout_s * 1000)}",
        }
        self._connection = await asyncpg.connect(
            self._url,
            timeout=self._connect_timeout_s,
            # The server is to give up first, and say so.
            command_timeout=self._statement_timeout_s + self._connect_timeout_s,
            server_settings=settings,
        )
        if not await self._connection.fetchval(sql.END_SESSIONS, self._application):
            raise TargetUnavailable(f"{self._name}: an earlier session has not ended yet")
        return self._connection

    def _give_up(self) -> None:
        """Forget the connection; what it had in hand is settled by the next one."""
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None
        self._stages.clear()
        self._partitions.clear()
        self._native.clear()

    @contextlib.asynccontextmanager
    async def _session(self) -> AsyncIterator[Connection]:
        """A connection; its errors become those of the Protocol."""
        try:
            yield await self._connected()
        except (RowRefused, Fenced):
            raise
        except asyncpg.PostgresError as error:
            raise self._judged(error) from error
        except (OSError, TimeoutError, EOFError, asyncpg.InterfaceError,
                asyncpg.InternalClientError) as error:  # fmt: skip
            self._give_up()
            raise TargetUnavailable(f"{self._name}: {error or type(error).__name__}") from error
        except BaseException:
            # Cancelled, or a fault of our own: a transaction must not stay open.
            self._give_up()
            raise

    def _judged(self, error: asyncpg.PostgresError) -> Exception:
        what = sql.verdict(error.sqlstate or "")
        detail = f"{error.detail}" if getattr(error, "detail", None) else ""
        said = f"{self._name}: {error} {detail}".rstrip() + f" [{error.sqlstate}]"
        if what is sql.Verdict.REFUSED:
            return RowRefused(said)
        if what is sql.Verdict.GONE:
            return Fenced(said)
        self._give_up()
        return TargetUnavailable(said)

    async def open(self) -> None:
        """Connect; the engine's own tables and the reader role."""
        async with self._session() as database:
            version = database.get_server_version()
            if version.major < sql.VERSION_MIN:
                raise TargetUnavailable(
                    f"{self._name}: PostgreSQL {version.major} is older than {sql.VERSION_MIN}"
                )
            encoding = await database.fetchval("SHOW server_encoding")
            if encoding != "UTF8":
                raise TargetUnavailable(f"{self._name}: the database is {encoding}, not UTF8")
            if self._options.timescale is None:
                found = await database.fetchval(sql.HAS_TIMESCALE)
                self._sql = PostgresDialect(msgspec.structs.replace(self._options, timescale=found))
            await self._make_reader(database)
            async with database.transaction():
                # Two workers that start together make the tables one after the other.
                await database.execute("SELECT pg_advisory_xact_lock(hashtext('ultraengine'))")
                for statement in sql.ENGINE_TABLES:
                    await database.execute(statement)
                reader = self._sql.quote(self._sql.options.reader)
                for table in sql.READABLE:
                    await database.execute(f"GRANT SELECT ON {table} TO {reader}")

    async def _make_reader(self, database: Connection) -> None:
        """Roles belong to the whole server, so another database may have made it."""
        reader = self._sql.options.reader
        if await database.fetchval("SELECT TRUE FROM pg_roles WHERE rolname = $1", reader):
            return
        try:
            await database.execute(f"CREATE ROLE {self._sql.quote(reader)} NOLOGIN")
        except (asyncpg.DuplicateObjectError, asyncpg.UniqueViolationError):
            log.info("projection.reader_exists", target=self._name, role=reader)
        except asyncpg.InsufficientPrivilegeError as error:
            raise TargetUnavailable(
                f"{self._name}: create the role {reader}, or let this user create roles"
            ) from error

    async def close(self) -> None:
        """Say goodbye where somebody listens."""
        if self._connection is not None and not self._connection.is_closed():
            with contextlib.suppress(OSError, TimeoutError, asyncpg.PostgresError,
                                     asyncpg.InterfaceError):  # fmt: skip
                await self._connection.close(timeout=self._connect_timeout_s)
        self._give_up()

    # --- sets ----------------------------------------------------------------------------

    async def sets(self) -> Sequence[ProjectionSet]:
        """All sets."""
        async with self._session() as database:
            return [sql.set_of(row) for row in await database.fetch(sql.SETS)]

    async def create(self, projection: Projection, build: int, now: Instant) -> ProjectionSet:
        """Row and tables are one transaction, so a set that is there is whole."""
        made = ProjectionSet(
            projection.name, projection.version, build, SetState.BUILDING, now, now
        )
        async with self._session() as database, database.transaction():
            done = await database.execute(
                sql.CREATE_SET, made.projection, made.version, build, made.state.value, now
            )
            if _count(done):
                for statement in self._sql.create_set(projection, made.suffix):
                    await database.execute(statement)
                return made
            return sql.set_of(await database.fetchrow(sql.LOCK_SET, projection.name, build))

    async def positions(self, of: ProjectionSet) -> Mapping[ShardId, Checkpoint]:
        """By shard."""
        async with self._session() as database:
            held = await database.fetch(sql.POSITIONS, of.projection, of.build)
            return {ShardId(row["shard"]): sql.checkpoint_of(row) for row in held}

    async def serve(self, of: ProjectionSet, projection: Projection, now: Instant) -> None:
        """States and views in one transaction."""
        async with self._session() as database, database.transaction():
            if await database.fetchrow(sql.LOCK_SET, of.projection, of.build) is None:
                raise Fenced(f"{self._name}: the set {of.projection} {of.suffix} is gone")
            await database.execute(sql.RETIRE, of.projection, of.build, now)
            await database.execute(sql.SERVE, of.projection, of.build, now)
            for table in all_tables(projection):
                first, *rest = self._sql.create_view(of.projection, table, of.suffix)
                try:
                    async with database.transaction():  # A savepoint.
                        await database.execute(first)
                except asyncpg.InvalidTableDefinitionError:
                    # Other columns than before: what was granted on the view goes with it.
                    await database.execute(self._sql.drop_view(of.projection, table))
                    await database.execute(first)
                for statement in rest:
                    await database.execute(statement)

    async def drop(self, of: ProjectionSet, tables: Sequence[str], now: Instant) -> None:  # noqa: ARG002
        """Tables and memory in one transaction."""
        async with self._session() as database, database.transaction():
            held = await database.fetchrow(sql.LOCK_SET, of.projection, of.build)
            if held is not None and held["state"] == SetState.SERVING:
                raise Fenced(f"{self._name}: the set {of.projection} {of.suffix} serves")
            for table in tables:
                name = physical(of.projection, table, of.suffix)
                await database.execute(self._sql.drop_table(name))
                await database.execute(self._sql.drop_table(self._sql.stage(name)))
                self._stages.discard(name)
                self._partitions.pop(name, None)
            for statement in sql.FORGET:
                await database.execute(statement, of.projection, of.build)

    async def park(self, of: ProjectionSet, parked: Parked | None) -> None:
        """Remember it, or forget it."""
        facts: tuple[Any, ...] = (None,) * 5
        if parked is not None:
            reason = parked.reason.replace("\0", "")
            facts = (parked.shard, parked.offset, parked.index, reason, parked.time)
        async with self._session() as database:
            await database.execute(sql.PARK, of.projection, of.build, *facts)

    async def pause(self, of: ProjectionSet, *, paused: bool) -> None:
        """Remember it."""
        async with self._session() as database:
            await database.execute(sql.PAUSE, of.projection, of.build, paused)

    async def ask(self, projection: str, request: Request, now: Instant) -> None:
        """One row."""
        async with self._session() as database:
            await database.execute(sql.ASK, projection, request.value, now)

    async def requests(self) -> Sequence[tuple[str, Request]]:
        """Taken by deleting them."""
        async with self._session() as database:
            taken = await database.fetch(sql.TAKE_REQUESTS)
            return [(row["projection"], Request(row["request"])) for row in taken]

    # --- writing -------------------------------------------------------------------------

    async def write(
        self, of: ProjectionSet, projection: Projection, batch: Batch, moved: Sequence[Moved]
    ) -> None:
        """One transaction, as the head of this file says."""
        tables = {table.name: table for table in projection.tables}
        async with self._session() as database:
            try:
                for name, appended in batch.appended.items():
                    into, table = physical(of.projection, name, of.suffix), tables[name]
                    if appended and await self._is_cut(database, into, table):
                        cuts = slices_of(table, appended)
                        await self._make_partitions(database, into, table, cuts)
                for name, current in batch.current.items():
                    if current.put or current.changed:
                        await self._make_stage(database, of, tables[name])
                async with database.transaction():
                    await database.execute(BY_INDEX)
                    await self._move(database, of, moved)
                    for name, appended in batch.appended.items():
                        if appended:
                            into = physical(of.projection, name, of.suffix)
                            await self._copy(database, into, tables[name], appended)
                    for name, current in batch.current.items():
                        if current.put or current.changed:
                            await self._merge(database, of, tables[name], current)
                    await self._touch(database, of, projection, batch)
                    for one in moved:
                        await database.execute(
                            sql.AUDIT, of.projection, of.build, one.shard, one.after.offset,
                            one.after.epoch, one.after.time, one.after.chain, batch.row_count,
                        )  # fmt: skip
            except (ValueError, OverflowError) as error:
                # Values that are none of their columns, found while they were encoded.
                raise RowRefused(f"{self._name}: {error}") from error

    async def _move(self, database: Connection, of: ProjectionSet, moved: Sequence[Moved]) -> None:
        for one in moved:
            after = one.after
            facts = (of.projection, of.build, one.shard, after.offset, after.epoch, after.time,
                     after.chain)  # fmt: skip
            done = 0
            if one.before == START:
                done = _count(await database.execute(sql.BEGIN_SHARD, *facts))
            if not done:
                before = one.before
                done = _count(
                    await database.execute(sql.MOVE_SHARD, *facts, before.offset, before.chain)
                )
            if not done:
                raise Fenced(
                    f"{self._name}: shard {one.shard} of {of.projection} {of.suffix}"
                    f" is not at {one.before.offset} any more"
                )

    async def _copy(
        self,
        database: Connection,
        into: str,
        table: Table,
        rows: Sequence[Sequence[Any]],
        shapes: Sequence[tuple[int, Sequence[Sequence[Any]]]] = (),
    ) -> None:
        """`rows` as they are, or groups of them with their shape before each."""
        columns = kinds(table.columns)
        width = len(columns)
        groups = [(lead(width), rows)] if not shapes else [
            (lead(width + 1, shape), some) for shape, some in shapes
        ]  # fmt: skip

        async def source() -> AsyncIterator[bytes]:
            yield SIGNATURE
            for first, some in groups:
                for start in range(0, len(some), CHUNK_ROWS):
                    yield encode(first, columns, some[start : start + CHUNK_ROWS])
            yield TRAILER

        await database.copy_to_table(
            self._sql.identifier(into),
            source=source(),
            columns=[*([SHAPE] if shapes else []), *table.names],
            format="binary",
        )

    async def _make_stage(self, database: Connection, of: ProjectionSet, table: Table) -> None:
        name = physical(of.projection, table.name, of.suffix)
        if name not in self._stages:
            await database.execute(self._sql.create_stage(name, table))
            self._stages.add(name)

    async def _merge(
        self, database: Connection, of: ProjectionSet, table: Table, current: CurrentRows
    ) -> None:
        name = physical(of.projection, table.name, of.suffix)
        changes = shapes_of(current)
        shapes: list[tuple[int, Sequence[Sequence[Any]]]] = [(0, list(current.put.values()))]
        shapes += [(shape, rows) for shape, rows in enumerate(changes.values(), 1)]
        await self._copy(database, self._sql.stage(name), table, (), shapes)
        if current.put:
            await database.execute(self._sql.merge_stage(name, table))
        for shape, (positions, rows) in enumerate(changes.items(), 1):
            columns = [table.columns[position].name for position in positions]
            done = await database.execute(self._sql.change_stage(name, table, columns, shape))
            if _count(done) != len(rows):
                missing = await database.fetchrow(self._sql.missing_stage(name, table, shape))
                key = tuple(missing) if missing else "?"
                raise RowRefused(f"{self._name}: {table.name} has no row {key} to change")

    async def _touch(
        self, database: Connection, of: ProjectionSet, projection: Projection, batch: Batch
    ) -> None:
        for aggregate in projection.aggregates:
            written = batch.current[aggregate.source]
            position = written.table.names.index(aggregate.slice_column)
            days = {row[position] for row in written.put.values()}
            days |= {key[position] for key in written.changed}
            if days:
                name = aggregate.table.name
                await database.execute(sql.TOUCH, of.projection, of.build, name, list(days))

    # --- aggregates, partitions, checksums -----------------------------------------------

    async def _scanning(self, database: Connection) -> None:
        """Within a transaction: statements may take longer."""
        await database.execute(f"SET LOCAL statement_timeout = {round(self._scan_timeout_s * 1e3)}")

    async def refresh(self, of: ProjectionSet, projection: Projection, slices_max: int) -> int:
        """Slices and their mark in one transaction."""
        async with self._session() as database, database.transaction():
            await self._scanning(database)
            budget = slices_max
            for aggregate in projection.aggregates:
                found = await database.fetch(
                    sql.TAKE_SLICES, of.projection, of.build, aggregate.table.name, budget
                )
                slices = sorted(row["slice"] for row in found)
                budget -= len(slices)
                if slices:
                    for statement in self._sql.aggregate(
                        aggregate, of.projection, of.suffix, len(slices)
                    ):
                        await database.execute(statement, *slices, timeout=self._scan_timeout_s)
            return int(await database.fetchval(sql.SLICES_LEFT, of.projection, of.build))

    async def _known(self, database: Connection, name: str) -> set[str]:
        """The partitions of a table."""
        held = self._partitions.get(name)
        if held is None:
            found = await database.fetch(sql.PARTITIONS, self._sql.identifier(name))
            held = self._partitions[name] = {row["relname"] for row in found}
        return held

    async def _make_partitions(
        self, database: Connection, name: str, table: Table, cuts: Iterable[Slice]
    ) -> None:
        for cut in sorted(cuts, key=lambda one: (one.start, one.shard or 0)):
            for level in dict.fromkeys((cut.whole, cut)):
                parent = name if level.shard is None else self._sql.partition_name(name, cut.whole)
                known = await self._known(database, parent)
                made = self._sql.partition_name(name, level)
                if made in known:
                    continue
                async with database.transaction():
                    for statement in self._sql.create_partition(name, table, level):
                        await database.execute(statement)
                known.add(made)

    async def _is_cut(self, database: Connection, name: str, table: Table) -> bool:
        """Whether it has native partitions; a hypertable makes its own chunks."""
        if table.partition is None:
            return False
        if name not in self._native:
            self._native[name] = bool(
                await database.fetchval(sql.IS_PARTITIONED, self._sql.identifier(name))
            )
        return self._native[name]

    async def keep(self, of: ProjectionSet, projection: Projection, now: Instant) -> None:
        """Make what is near, drop what is past its keep; readers are waited for, not stopped."""
        today = now // DAY_US
        async with self._session() as database:
            held = await database.fetch(sql.POSITIONS, of.projection, of.build)
            shards = [row["shard"] for row in held]
            for table in projection.tables:
                if table.partition is None:
                    continue
                name = physical(of.projection, table.name, of.suffix)
                days = table.partition.keep_days
                native = await self._is_cut(database, name, table)
                if native:
                    ahead = slices_ahead(table.partition, today, shards, PARTITIONS_AHEAD)
                    await self._make_partitions(database, name, table, ahead)
                if days is not None and native:
                    await self._drop_partitions(database, name, today - days)
                elif days is not None:
                    await database.execute(self._sql.drop_chunks(name, table, today - days))

    async def _drop_partitions(self, database: Connection, name: str, oldest: int) -> None:
        for row in await database.fetch(sql.PARTITIONS, self._sql.identifier(name)):
            end = end_of(row["bounds"])
            if end is None or end > oldest:
                continue
            async with database.transaction():
                for statement in self._sql.drop_partition(name, row["relname"]):
                    await database.execute(statement)
            self._partitions.clear()
            log.info("projection.partition_dropped", target=self._name, partition=row["relname"])

    async def checksums(self, of: ProjectionSet, tables: Sequence[Table]) -> Mapping[str, Checksum]:
        """In one snapshot."""
        sums: dict[str, Checksum] = {}
        snapshot = {"isolation": "repeatable_read", "readonly": True}
        async with self._session() as database, database.transaction(**snapshot):
            await self._scanning(database)
            for table in tables:
                name = physical(of.projection, table.name, of.suffix)
                row = await database.fetchrow(
                    self._sql.checksum(name, table), timeout=self._scan_timeout_s
                )
                sums[table.name] = Checksum(row["rows"], digest_of(row["low"], row["high"]))
        return sums


def _count(done: str) -> int:
    """Rows of a command's tag: ``UPDATE 3``, ``INSERT 0 1``."""
    return int(done.rpartition(" ")[2])
