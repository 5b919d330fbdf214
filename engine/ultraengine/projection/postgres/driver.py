"""`PostgresTarget`: sets of tables in PostgreSQL 15 or newer, written over asyncpg.

One connection, made when it is needed and given up after any error that is not about rows.
A batch is one transaction, and no refresh of the set runs meanwhile:

1. the positions, each ``UPDATE … WHERE log_end = before``: of two workers one finds no row and is
   `Fenced` before it has sent anything else;
2. rows of APPEND tables by binary COPY straight into the table;
3. rows of CURRENT tables by COPY into a temporary table, then one ``INSERT … ON CONFLICT`` and
   one ``UPDATE`` per set of changed columns, which must find every row;
4. the slices that aggregates have to compute anew, and one audit row per shard.
"""

import itertools
from collections import ChainMap
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import Final

import asyncpg
import msgspec
import structlog

from ultraengine.model.errors import InvariantBroken
from ultraengine.model.ids import Instant, ShardId
from ultraengine.model.projection import Projection, Table
from ultraengine.projection.added_indexes import create_whole
from ultraengine.projection.engine_tables import engine_tables
from ultraengine.projection.fold import Batch, CurrentRows
from ultraengine.projection.postgres import statements as sql
from ultraengine.projection.postgres.dialect import (
    DAY_US,
    Options,
    PostgresDialect,
    Slice,
    digest_of,
    end_of,
    options_of,
    slices_ahead,
    slices_of,
)
from ultraengine.projection.postgres.loads import Load, loads_of
from ultraengine.projection.postgres.session.driver import Connection, Session
from ultraengine.projection.rollups import LookedUp, roll_up, rolled, unknown
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

PARTITIONS_AHEAD: Final = 2
"""Partitions that are kept ready after the one of now."""
UNSEEN_ROWS: Final = 200
GROWTH: Final = 4
"""A CURRENT table is analyzed after so many rows and again each time it may have grown so many
times.  The server does it too, but after a minute: meanwhile the planner takes any index that
begins like the key for as good as the key, and a batch of 10,000 changes takes ten seconds."""


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
        url, found = options_of(url)
        self._options = options or found
        self._sql = PostgresDialect(self._options)
        self._scan_timeout_s = scan_timeout_s
        self._looked_up = LookedUp()
        self._session = Session(
            name,
            url,
            connect_timeout_s=connect_timeout_s,
            statement_timeout_s=statement_timeout_s,
            lock_timeout_s=lock_timeout_s,
        )

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

    async def open(self) -> None:
        """Connect; the engine's own tables and the reader role."""
        async with self._session.use() as database:
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
                await database.execute(sql.ENGINE_LOCK)
                for table in engine_tables:
                    if not await database.fetchval(sql.HAS_TABLE, table.name):
                        for statement in self._sql.create_table(table.name, table):
                            await database.execute(statement)
                await database.execute(sql.REQUEST_IDS)
                reader = self._sql.quote(self._sql.options.reader)
                for name in sql.READABLE:
                    await database.execute(f"GRANT SELECT ON {name} TO {reader}")

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
        """Say goodbye."""
        await self._session.close()

    async def sets(self) -> Sequence[ProjectionSet]:
        """All sets."""
        async with self._session.use() as database:
            return [sql.set_of(row) for row in await database.fetch(sql.ALL_SETS)]

    async def create(self, projection: Projection, build: int, now: Instant) -> ProjectionSet:
        """Row and tables are one transaction; who adds an index meanwhile waits for it."""
        made = ProjectionSet(
            projection.name, projection.version, build, SetState.BUILDING, now, now
        )
        async with self._session.use() as database, database.transaction():
            names = ",".join(table.name for table in all_tables(projection))
            done = await database.execute(
                sql.CREATE_SET, made.projection, build, made.version, sql.moment(now), names
            )
            if _count(done):
                await database.execute(sql.ENGINE_LOCK)
                held = map(sql.added_of, await database.fetch(sql.ALL_ADDED))
                for statement in create_whole(self._sql, projection, made.suffix, held):
                    await database.execute(statement)
                return made
            return sql.set_of(await database.fetchrow(sql.LOCK_SET, projection.name, build))

    async def positions(self, of: ProjectionSet) -> Mapping[ShardId, Checkpoint]:
        """By shard."""
        async with self._session.use() as database:
            held = await database.fetch(sql.ALL_POSITIONS, of.projection, of.build)
            return {ShardId(row["shard"]): sql.checkpoint_of(row) for row in held}

    async def serve(self, of: ProjectionSet, projection: Projection, now: Instant) -> None:
        """States and views in one transaction."""
        async with self._session.use() as database, database.transaction():
            held = await database.fetchrow(sql.LOCK_SET, of.projection, of.build)
            if held is None:
                raise Fenced(f"{self._name}: the set {of.projection} {of.suffix} is gone")
            if held["state"] != SetState.SERVING:
                at = sql.moment(now)
                retired = await database.fetch(sql.RETIRE, of.projection, of.build, at)
                await database.execute(sql.SERVE, of.projection, of.build, at)
                own = set(held["tables"].split(","))
                for table in {name for row in retired for name in row["tables"].split(",")} - own:
                    await database.execute(self._sql.drop_view(of.projection, table))
            for table in all_tables(projection):
                first, *rest = self._sql.create_view(of.projection, table, of.suffix)
                if not await self._replaced(database, first):
                    await database.execute(self._sql.drop_view(of.projection, table.name))
                    await database.execute(first)
                for statement in rest:
                    await database.execute(statement)

    async def _replaced(self, database: Connection, create: str) -> bool:
        """False for other columns than before: what was granted on the view goes with it."""
        try:
            async with database.transaction():  # A savepoint.
                await database.execute(create)
        except asyncpg.InvalidTableDefinitionError:
            return False
        return True

    async def drop(self, of: ProjectionSet, tables: Sequence[str], now: Instant) -> None:  # noqa: ARG002
        """Tables and memory in one transaction."""
        async with self._session.use() as database, database.transaction():
            held = await database.fetchrow(sql.LOCK_SET, of.projection, of.build)
            if held is not None and held["state"] == SetState.SERVING:
                raise InvariantBroken(
                    "a set that serves is not dropped", projection=of.projection, build=of.build
                )
            for table in tables:
                name = physical(of.projection, table, of.suffix)
                await database.execute(self._sql.drop_table(name))
                await database.execute(self._sql.drop_table(self._sql.stage(name)))
                self._looked_up.forget()
                self._session.known.stages.discard(name)
                self._session.known.partitions.pop(name, None)
            for statement in sql.FORGET:
                await database.execute(statement, of.projection, of.build)

    async def park(self, of: ProjectionSet, parked: Parked | None) -> None:
        """Remember it, or forget it."""
        async with self._session.use() as database:
            await database.execute(sql.PARK, of.projection, of.build, sql.parked_text(parked))

    async def pause(self, of: ProjectionSet, *, paused: bool) -> None:
        """Remember it."""
        async with self._session.use() as database:
            await database.execute(sql.PAUSE, of.projection, of.build, paused)

    async def ask(self, projection: str, request: Request, now: Instant) -> None:
        """One row."""
        async with self._session.use() as database:
            await database.execute(sql.ASK, projection, request.value, sql.moment(now))

    async def requests(self) -> Sequence[tuple[str, Request]]:
        """Taken by deleting them."""
        async with self._session.use() as database:
            taken = await database.fetch(sql.TAKE_REQUESTS)
            return [(row["projection"], Request(row["request"])) for row in taken]

    async def write(
        self, of: ProjectionSet, projection: Projection, batch: Batch, moved: Sequence[Moved]
    ) -> None:
        """One transaction, as the head of this file says."""
        async with self._session.use() as database:
            try:
                await self._roll_up(database, of, projection, batch)
                loads = loads_of(projection.tables, batch)
                for load in loads:
                    await self._prepare(database, of, load)
                async with database.transaction():
                    await database.execute(sql.WRITE_SET, of.projection, of.build)
                    await self._move(database, of, moved)
                    for load, following in itertools.zip_longest(loads, loads[1:]):
                        await self._load(database, of, load, following)
                    await self._touch(database, of, projection, batch)
                    for one in moved:
                        await database.execute(
                            sql.AUDIT, of.projection, of.build, one.shard, one.after.offset,
                            of.version, one.after.epoch, sql.moment(one.after.time),
                            one.after.chain, batch.row_count,
                        )  # fmt: skip
            except (ValueError, TypeError, IndexError, OverflowError) as error:
                # Values that are none of their columns, found while they were encoded.
                raise RowRefused(f"{self._name}: {error}") from error

    async def _roll_up(
        self, database: Connection, of: ProjectionSet, projection: Projection, batch: Batch
    ) -> None:
        """Rows by what other rows say: those of the batch, those met before, those of the table."""
        for table, rollup in rolled(projection.tables, batch):
            name = physical(of.projection, rollup.source.name, of.suffix)
            known = self._looked_up.of(name, rollup.column)
            keys = unknown(rollup, table, batch, known)
            found = {}
            if keys:
                statement = self._sql.lookup(name, rollup, len(keys))
                columns = [list(values) for values in zip(*keys, strict=True)]
                rows = await database.fetch(statement, *columns)
                found = {tuple(row)[:-1]: row[-1] for row in rows}
                self._looked_up.remember(name, rollup.column, found)
            roll_up(rollup, table, batch, ChainMap(found, known) if found else known)

    async def _move(self, database: Connection, of: ProjectionSet, moved: Sequence[Moved]) -> None:
        for one in moved:
            after = one.after
            facts = (of.projection, of.build, one.shard, after.offset, after.epoch,
                     sql.moment(after.time), after.chain)  # fmt: skip
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

    async def _prepare(self, database: Connection, of: ProjectionSet, load: Load) -> None:
        """Partitions; or a staging table, and a planner that knows the table."""
        name, table = physical(of.projection, load.table.name, of.suffix), load.table
        known = self._session.known
        if load.current is None:
            if await self._is_cut(database, name, table):
                await self._make_partitions(database, name, table, slices_of(table, load.rows))
            return
        if name not in known.stages:
            await database.execute(self._sql.create_stage(name, table))
            known.stages.add(name)
        if name not in known.unseen:
            rows = await database.fetchval(sql.ROWS_SEEN, self._sql.identifier(name))
            known.unseen[name] = [0, max(UNSEEN_ROWS, GROWTH * int(rows))]
        unseen = known.unseen[name]
        if unseen[0] >= unseen[1]:
            await database.execute(self._sql.analyze(name))
            unseen[:] = 0, GROWTH * unseen[1]
        unseen[0] += len(load.current.put)

    async def _load(
        self, database: Connection, of: ProjectionSet, load: Load, following: Load | None
    ) -> None:
        """One table of a batch; the following one is put in order while the server inserts."""

        async def source() -> AsyncIterator[bytes]:
            for piece in load.pieces(following):
                yield piece

        name = physical(of.projection, load.table.name, of.suffix)
        await database.copy_to_table(
            self._sql.identifier(name if load.current is None else self._sql.stage(name)),
            source=source(),
            columns=load.columns,
            format="binary",
        )
        if load.current is not None:
            await self._merge(database, name, load, load.current)

    async def _merge(
        self, database: Connection, name: str, load: Load, current: CurrentRows
    ) -> None:
        """From the staging table into the table of current state."""
        table = load.table
        if current.put:
            await database.execute(self._sql.merge_stage(name, table))
        for shape, (positions, rows) in enumerate(load.changes.items(), 1):
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
            days = batch.current[aggregate.source].slices(aggregate.slice_column)
            if days:
                facts = (of.projection, of.build, aggregate.table.name)
                await database.execute(sql.TOUCH, *facts, list(days))
                if aggregate.carried:
                    later = self._sql.touch_later(aggregate, of.projection, of.suffix)
                    await database.execute(later, *facts, min(days))

    async def _scanning(self, database: Connection) -> None:
        """Within a transaction: statements may take longer."""
        await database.execute(f"SET LOCAL statement_timeout = {round(self._scan_timeout_s * 1e3)}")

    async def refresh(self, of: ProjectionSet, projection: Projection, slices_max: int) -> int:
        """Slices and their mark in one transaction, while nobody writes into the set."""
        async with self._session.use() as database, database.transaction():
            await self._scanning(database)
            await database.execute(sql.LOCK_SET, of.projection, of.build)
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
        held = self._session.known.partitions.get(name)
        if held is None:
            found = await database.fetch(sql.PARTITIONS, self._sql.identifier(name))
            held = self._session.known.partitions[name] = {row["relname"] for row in found}
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
        if name not in self._session.known.native:
            self._session.known.native[name] = bool(
                await database.fetchval(sql.IS_PARTITIONED, self._sql.identifier(name))
            )
        return self._session.known.native[name]

    async def keep(self, of: ProjectionSet, projection: Projection, now: Instant) -> None:
        """Make what is near, drop what is past its keep; readers are waited for, not stopped."""
        today = now // DAY_US
        async with self._session.use() as database:
            held = await database.fetch(sql.ALL_POSITIONS, of.projection, of.build)
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
                    async with database.transaction():
                        # The server itself only ever looks at partitions, not at the whole.
                        await self._scanning(database)
                        statement = self._sql.analyze(name)
                        await database.execute(statement, timeout=self._scan_timeout_s)
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
            self._session.known.partitions.clear()
            log.info("projection.partition_dropped", target=self._name, partition=row["relname"])

    async def checksums(self, of: ProjectionSet, tables: Sequence[Table]) -> Mapping[str, Checksum]:
        """In one snapshot."""
        sums: dict[str, Checksum] = {}
        snapshot = {"isolation": "repeatable_read", "readonly": True}
        async with self._session.use() as database, database.transaction(**snapshot):
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
