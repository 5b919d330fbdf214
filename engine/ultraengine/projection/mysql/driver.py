"""MariaDB or MySQL as a target: exactly once, with tables that are swapped by one statement.

A batch is one transaction: the positions first, which fences and locks, then facts by the bulk
command, current rows merged, changes, one ledger row per shard, touched slices.

No definition is part of a transaction here, so each is arranged to be safe to repeat:

    create   tables, then the set's row: a set that is remembered is whole
    drop     tables, then the memory: what is half gone is dropped again
    serve    views under other names, then one RENAME TABLE for all of them and for the view that
             says which set it is; what the set's row says is made to follow (`_settle`)

Which set serves is what that view says.  A crash after the RENAME leaves a row that is behind, and
the next `open` lets it follow.

A connection that is lost in mid batch may live on at the server, with its locks, and a COMMIT
under way may have been done.  Each connection of a target holds a lock by the target's own name;
the next one ends the connection that still holds it before it does anything else, so that what it
then reads stays true.
"""

import asyncio
import contextlib
import itertools
import secrets
from collections import ChainMap
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import date
from typing import Final

from ultraengine.model.errors import InvariantBroken
from ultraengine.model.ids import Instant, ShardId
from ultraengine.model.projection import Projection, Row, Table, TableKind
from ultraengine.projection import added_indexes
from ultraengine.projection.added_indexes import create_added
from ultraengine.projection.fold import Batch, CurrentRows
from ultraengine.projection.mysql import partitions, statements
from ultraengine.projection.mysql.address import parse
from ultraengine.projection.mysql.dialect import LAST, MysqlDialect, checksum_of
from ultraengine.projection.mysql.partitions import Range
from ultraengine.projection.mysql.session.driver import Lost, ServerError, Session, connect
from ultraengine.projection.mysql.statements import Verdict, verdict
from ultraengine.projection.mysql.values import changes, chunks, moment, touched_slices
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
    TargetUnavailable,
    all_tables,
    physical,
    view,
)

LOCK_WAIT_S: Final = 5
"""For rows and definitions that others hold; a reader's long transaction delays a swap, and it is
tried again."""
SWAP_PAUSE_S: Final = 0.005
"""Between two looks for a moment without readers."""
WRITE_S: Final = 120.0
"""For one batch, and for all that is as short."""
LONG_S: Final = 3_600.0
"""For what reads whole tables."""
LOOKED_UP_AT_ONCE: Final = 500
"""Keys in one statement."""
END_S: Final = 10
"""For the end of a connection that was lost."""


class MysqlTarget:
    """Implements `projection.target.Target`."""

    dialect: Final = "mysql"
    exactly_once: Final = True

    def __init__(self, name: str, url: str, *, lock_wait_s: int = LOCK_WAIT_S) -> None:
        """Raises `InvariantBroken` for a URL that is none."""
        self.name: Final = name
        self._address = parse(url)
        self._lock_wait_s = lock_wait_s
        self._mark = secrets.token_hex(8)
        """Names the lock that each connection of this target holds."""
        self._session: Session | None = None
        self._sql = MysqlDialect()
        self._ranges: dict[str, tuple[Range, ...]] = {}
        """Known partitions, by physical table."""
        self._looked_up = LookedUp()

    # --- connection ----------------------------------------------------------------------

    async def open(self) -> None:
        """Connect, and make the engine's own tables where they are missing."""
        async with self._using(WRITE_S) as session:
            for statement in statements.create_engine_tables(self._sql):
                await session.run(statement)
            for (projection,) in await session.rows(statements.PROJECTIONS):
                await self._settle(session, projection)

    async def close(self) -> None:
        """Disconnect.  Idempotent."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def _connect(self) -> Session:
        session = await connect(self._address, self._lock_wait_s)
        try:
            await self._end_the_last(session)
        except BaseException:
            session.drop()
            raise
        self._sql = MysqlDialect(session.flavor)
        self._ranges = {}
        return session

    async def _end_the_last(self, session: Session) -> None:
        """Until our last connection has ended, its transaction may still be done or undone."""
        ((free,),) = await session.rows(statements.TAKE_LOCK, self._mark, 0)
        if free:
            return
        ((holder,),) = await session.rows(statements.LOCK_HOLDER, self._mark)
        if holder is not None:
            with contextlib.suppress(ServerError):  # It has ended meanwhile.
                await session.run(f"KILL CONNECTION {int(holder)}")
        ((free,),) = await session.rows(statements.TAKE_LOCK, self._mark, END_S)
        if not free:
            raise TargetUnavailable("the last connection has not ended yet")

    def _drop(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            session.drop()

    @contextlib.asynccontextmanager
    async def _using(self, limit_s: float) -> AsyncIterator[Session]:
        """The connection, made anew where there is none; errors as the Protocol has them.

        Whatever leaves the connection in doubt lets go of it.
        """
        try:
            async with asyncio.timeout(limit_s):
                if self._session is None:
                    self._session = await self._connect()
                yield self._session
        except ServerError as error:
            kind = verdict(error.code)
            if kind is Verdict.REFUSED:
                raise RowRefused(str(error)) from error
            if kind is Verdict.GONE:
                raise Fenced(str(error)) from error
            self._drop()
            raise TargetUnavailable(str(error)) from error
        except (Lost, TimeoutError) as error:
            self._drop()
            raise TargetUnavailable(f"{self._address!r}: {error or 'no answer'}") from error
        except (RowRefused, Fenced, InvariantBroken):
            raise
        except BaseException:
            self._drop()
            raise

    @contextlib.asynccontextmanager
    async def _transaction(
        self, limit_s: float, begin: Sequence[str] = ("START TRANSACTION",)
    ) -> AsyncIterator[Session]:
        """All or nothing."""
        async with self._using(limit_s) as session:
            for statement in begin:
                await session.run(statement)
            try:
                yield session
            except (ServerError, RowRefused, Fenced, InvariantBroken):
                await session.run("ROLLBACK")
                raise
            await session.run("COMMIT")

    @contextlib.asynccontextmanager
    async def _alone(self) -> AsyncIterator[Session]:
        """One of all workers at a time: views are made under names that all of them use."""
        async with self._using(WRITE_S) as session:
            ((taken,),) = await session.rows(statements.TAKE_LOCK, "sets", self._lock_wait_s)
            if not taken:
                raise TargetUnavailable("another connection makes or shows a set")
            try:
                yield session
            finally:
                # A connection that is gone holds no lock.
                with contextlib.suppress(Lost):
                    await session.rows(statements.GIVE_LOCK, "sets")

    # --- sets ----------------------------------------------------------------------------

    async def sets(self) -> Sequence[ProjectionSet]:
        """All sets, by projection and build."""
        async with self._using(WRITE_S) as session:
            return [statements.set_of(row) for row in await session.rows(statements.ALL_SETS)]

    async def create(self, projection: Projection, build: int, now: Instant) -> ProjectionSet:
        """Tables first; the set is remembered when all are there."""
        tables = all_tables(projection)
        suffix = f"v{projection.version}_b{build}"
        async with self._alone() as session:
            found = await session.rows(statements.ONE_SET, projection.name, build)
            if not found:
                for table in tables:
                    name = physical(projection.name, table.name, suffix)
                    self._ranges.pop(name, None)
                    await session.run(self._sql.drop_table(name))
                    for statement in self._sql.create_table(name, table):
                        await session.run(statement)
                remembered = await session.rows(added_indexes.select(self._sql))
                known = [statements.added_of(row) for row in remembered]
                for statement in create_added(self._sql, projection, suffix, known):
                    await session.run(statement)
                names = ",".join(table.name for table in tables)
                at = moment(now)
                await session.change(
                    statements.CREATE_SET,
                    projection.name, build, projection.version, at, at, names,
                )  # fmt: skip
                found = await session.rows(statements.ONE_SET, projection.name, build)
            return statements.set_of(found[0])

    async def serve(self, of: ProjectionSet, projection: Projection, now: Instant) -> None:
        """One statement shows all views of the set, hides those of the last, and says so."""
        async with self._alone() as session:
            serving = await self._settle(session, projection.name)
            if serving == of.build:
                return
            present = {name for (name,) in await session.rows(statements.VIEWS)}
            for name in sorted(present):
                if self._sql.is_left_over(projection.name, name):
                    await session.run(f"DROP VIEW {self._sql.quote(name)}")
            prepared = self._sql.prepare_views(projection, of, now)
            for statement in prepared.values():
                await session.run(statement)
            shown = sorted(await self._shown(session, projection.name, serving) & present)
            await self._swap(session, self._sql.rename_views(prepared, shown))
            await self._settle(session, projection.name)
            for name in shown:
                await session.run(f"DROP VIEW {self._sql.quote(name + LAST)}")

    async def _swap(self, session: Session, rename: str) -> None:
        """Rename in a moment when nobody reads any of the views; look for one for a while.

        Raises `ServerError` when there was none: the worker comes back to it.
        """
        tries = 1 if self._sql.rename_waits else round(self._lock_wait_s / SWAP_PAUSE_S)
        for left in reversed(range(tries)):
            try:
                await session.run(rename)
            except ServerError as error:
                if error.code != statements.HELD or not left:
                    raise
                await asyncio.sleep(SWAP_PAUSE_S)
            else:
                return

    async def _shown(self, session: Session, projection: str, build: int | None) -> set[str]:
        """Views that show a set, by what it remembers of its tables."""
        if build is None:
            return set()
        names = await session.rows(statements.TABLES_OF_SET, projection, build)
        shown = {view(projection, table) for (row,) in names for table in row.split(",")}
        return shown | {self._sql.serving_view(projection)}

    async def _settle(self, session: Session, projection: str) -> int | None:
        """Let the rows of the sets say what the views show, and tell which set that is."""
        marker = self._sql.quote(self._sql.serving_view(projection))
        try:
            rows = await session.rows(f"SELECT `build`, `changed_at` FROM {marker}")
        except ServerError as error:
            if error.code != statements.NO_SUCH_TABLE:
                raise
            return None
        ((build, changed_at),) = rows
        if await session.rows(statements.SERVING_SETS, projection) != ((build,),):
            at = moment(changed_at)
            await session.run("START TRANSACTION")
            await session.change(statements.RETIRE, at, projection, build)
            await session.change(statements.SERVE, at, projection, build)
            await session.run("COMMIT")
        return int(build)

    async def drop(self, of: ProjectionSet, tables: Sequence[str], now: Instant) -> None:  # noqa: ARG002  (nothing is remembered of it)
        """Tables first; a set that is half gone is dropped again."""
        async with self._alone() as session:
            if await self._settle(session, of.projection) == of.build:
                raise InvariantBroken("a set that serves is not dropped", build=of.build)
            remembered = await session.rows(statements.TABLES_OF_SET, of.projection, of.build)
            self._looked_up.forget()
            names = {*tables, *(name for (row,) in remembered for name in row.split(","))}
            for name in sorted(names):
                await session.run(self._sql.drop_table(physical(of.projection, name, of.suffix)))
            await session.run("START TRANSACTION")
            for statement in statements.FORGET:
                await session.change(statement, of.projection, of.build)
            await session.run("COMMIT")

    async def park(self, of: ProjectionSet, parked: Parked | None) -> None:
        """Remember why it stands still; None = it may go on."""
        async with self._using(WRITE_S) as session:
            await session.change(
                statements.PARK, statements.parked_text(parked), of.projection, of.build
            )

    async def ask(self, projection: str, request: Request, now: Instant) -> None:
        """Leave a request for the worker."""
        async with self._using(WRITE_S) as session:
            await session.change(statements.ASK, projection, request.value, moment(now))

    async def requests(self) -> Sequence[tuple[str, Request]]:
        """Take what was asked, oldest first; each is given once."""
        async with self._transaction(WRITE_S) as session:
            rows = await session.rows(statements.WAITING)
            if rows:
                await session.change(statements.TAKE_REQUESTS, rows[-1][2])
        return [(projection, Request(request)) for projection, request, _ in rows]

    async def pause(self, of: ProjectionSet, *, paused: bool) -> None:
        """Remember that a person wants it to stand still, or to go on."""
        async with self._using(WRITE_S) as session:
            await session.change(statements.PAUSE, paused, of.projection, of.build)

    # --- writing -------------------------------------------------------------------------

    async def positions(self, of: ProjectionSet) -> Mapping[ShardId, Checkpoint]:
        """How far it has come, by shard."""
        async with self._using(WRITE_S) as session:
            rows = await session.rows(statements.ALL_POSITIONS, of.projection, of.build)
        return {ShardId(row[0]): statements.checkpoint_of(row[1:]) for row in rows}

    async def write(
        self, of: ProjectionSet, projection: Projection, batch: Batch, moved: Sequence[Moved]
    ) -> None:
        """One transaction: positions, rows, one ledger row per shard, touched slices."""
        await self._make_room(of, projection, batch)
        async with self._transaction(WRITE_S) as session:
            if not await session.rows(statements.LOCK_SET, of.projection, of.build):
                raise Fenced(f"set {of.projection} {of.suffix} is gone")
            for one in moved:
                await self._move(session, of, one)
            await self._roll_up(session, of, projection, batch)
            for table in projection.tables:
                name = physical(of.projection, table.name, of.suffix)
                if table.kind is TableKind.APPEND:
                    await self._append(session, name, table, batch.appended[table.name])
                else:
                    await self._merge(session, name, batch.current[table.name])
            audit = [statements.audit_row(of, one, batch.row_count) for one in moved]
            await session.many(statements.AUDIT, audit)
            for aggregate in projection.aggregates:
                days = touched_slices(aggregate, batch.current[aggregate.source])
                if days:
                    of_slice = (of.projection, of.build, aggregate.table.name)
                    await session.many(statements.TOUCH, [(*of_slice, day) for day in days])
                    if aggregate.carried:
                        later = self._sql.touch_later(aggregate, of.projection, of.suffix)
                        await session.change(later, *of_slice, days[0])

    async def _roll_up(
        self, session: Session, of: ProjectionSet, projection: Projection, batch: Batch
    ) -> None:
        """Rows by what other rows say: those of the batch, those met before, those of the table."""
        for table, rollup in rolled(projection.tables, batch):
            name = physical(of.projection, rollup.source.name, of.suffix)
            known = self._looked_up.of(name, rollup.column)
            keys = unknown(rollup, table, batch, known)
            found = {}
            for start in range(0, len(keys), LOOKED_UP_AT_ONCE):
                some = keys[start : start + LOOKED_UP_AT_ONCE]
                statement = self._sql.lookup(name, rollup, len(some))
                rows = await session.rows(statement, *itertools.chain.from_iterable(some))
                found.update({tuple(row[:-1]): row[-1] for row in rows})
            self._looked_up.remember(name, rollup.column, found)
            roll_up(rollup, table, batch, ChainMap(found, known) if found else known)

    async def _move(self, session: Session, of: ProjectionSet, moved: Moved) -> None:
        before, after = moved.before, moved.after
        at = (after.offset, after.epoch, moment(after.time), after.chain)
        if before == START:
            met = await session.change(
                statements.BEGIN_SHARD, of.projection, of.build, moved.shard, *at
            )
        else:
            met = await session.change(
                statements.MOVE_SHARD, *at,
                of.projection, of.build, moved.shard, before.offset, before.chain,
            )  # fmt: skip
        if met != 1:
            raise Fenced(f"shard {moved.shard} of {of.suffix} is not at {before.offset}")

    async def _append(self, session: Session, name: str, table: Table, rows: Sequence[Row]) -> None:
        for one, some in chunks(table, table.columns, rows, session.packet_bytes):
            await session.insert(self._sql.insert_many(name, table, one), one, some)

    async def _merge(self, session: Session, name: str, rows: CurrentRows) -> None:
        table = rows.table
        whole = [tuple(row) for row in rows.put.values()]
        for one, some in chunks(table, table.columns, whole, session.packet_bytes):
            await session.insert(self._sql.merge(name, table, f"VALUES {one}"), one, some)
        for (columns, nulls), some in changes(rows).items():
            declared = [table.column(column) for column in (*columns, *table.key)]
            statement = self._sql.change(name, table, columns, nulls)
            for _, values in chunks(table, declared, some, session.packet_bytes):
                met = await session.many(statement, values)
                if met != len(values):
                    raise RowRefused(f"{len(values) - met} rows to change are not in {table.name}")

    async def refresh(self, of: ProjectionSet, projection: Projection, slices_max: int) -> int:
        """Whoever writes into the set waits until the slices are computed."""
        async with self._transaction(LONG_S) as session:
            await session.rows(statements.REFRESH_SET, of.projection, of.build)
            room = slices_max
            for aggregate in projection.aggregates:
                of_slice = (of.projection, of.build, aggregate.table.name)
                found = await session.rows(statements.TOUCHED, *of_slice, room)
                slices = [day for (day,) in found]
                if slices:
                    for statement in self._sql.aggregate(
                        aggregate, of.projection, of.suffix, len(slices)
                    ):
                        await session.change(statement, *slices)
                    await session.many(statements.TAKE_SLICE, [(*of_slice, day) for day in slices])
                room -= len(slices)
            ((left,),) = await session.rows(statements.SLICES_LEFT, of.projection, of.build)
        return int(left)

    async def checksums(self, of: ProjectionSet, tables: Sequence[Table]) -> Mapping[str, Checksum]:
        """By table, of one moment (a single snapshot)."""
        begin = (
            "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ",
            "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY",
        )
        found = {}
        async with self._transaction(LONG_S, begin) as session:
            for table in tables:
                name = physical(of.projection, table.name, of.suffix)
                ((rows, *sums),) = await session.rows(self._sql.checksum(name, table))
                found[table.name] = checksum_of(rows, sums)
        return found

    # --- partitions ----------------------------------------------------------------------

    async def keep(self, of: ProjectionSet, projection: Projection, now: Instant) -> None:
        """Ranges of the time to come are made, those past their keep are dropped."""
        today = partitions.day_of_time(now)
        async with self._using(WRITE_S) as session:
            for table in projection.tables:
                if table.partition is None:
                    continue
                name = physical(of.projection, table.name, of.suffix)
                await self._read_ranges(session, name, table)
                held = self._ranges[name]
                # Without ranges there are no rows yet, and nobody knows where they will begin.
                if held:
                    last = partitions.ahead(table, today)
                    await self._add_ranges(session, name, table, today, last)
                dropped = partitions.to_drop(table, held, today)
                if dropped:
                    await session.run(self._sql.drop_partitions(name, dropped))
                    await self._read_ranges(session, name, table)

    async def _make_room(self, of: ProjectionSet, projection: Projection, batch: Batch) -> None:
        """Ranges for the rows of a batch, before its transaction: a definition would end it."""
        for table in projection.tables:
            days = partitions.span(table, batch.appended.get(table.name, ()))
            if days is not None:
                name = physical(of.projection, table.name, of.suffix)
                async with self._using(WRITE_S) as session:
                    if name not in self._ranges:
                        await self._read_ranges(session, name, table)
                    await self._add_ranges(session, name, table, *days)

    async def _read_ranges(self, session: Session, name: str, table: Table) -> None:
        names = [one for (one,) in await session.rows(statements.RANGES, name)]
        self._ranges[name] = partitions.read_ranges(table, names)

    async def _add_ranges(
        self, session: Session, name: str, table: Table, first: date, last: date
    ) -> None:
        held = self._ranges[name]
        added = partitions.to_add(table, held, first, last)
        if added:
            await session.run(self._sql.add_partitions(name, added))
            self._ranges[name] = (*held, *added)
