"""The contract of readers, as tests to inherit (`docs/query.md`).

    class TestMyReader(ReaderContract):
        url = "mine://…"                       # of an empty database, a fixture as a rule
        slow = "SELECT my_sleep(5)"            # a statement of some seconds that yields one integer
        unreachable = "mine://nobody.is.there"

Tests are ``async``: pytest-asyncio in its mode ``auto`` runs them.  A target of the same database
writes what is read (`projection_tables.PROBE`).
"""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, Final

import msgspec
import pytest

from ultraengine.model.errors import EngineError
from ultraengine.model.limits import Limits
from ultraengine.model.projection import Column, ColumnType, Row
from ultraengine.model.reads import RANGE, Filter, Operator, Order, Read
from ultraengine.projection.fold import Batch
from ultraengine.projection.target import ProjectionSet, Target, physical
from ultraengine.projection.targets import open_target
from ultraengine.query.cursor import Cursors
from ultraengine.query.plan import Asked, plan
from ultraengine.query.reader import (
    Found,
    ReadEnded,
    Reader,
    ReaderUnavailable,
    Talk,
    ask,
    look,
)
from ultraengine.query.readers.factory import open_reader
from ultraengine.query.routes import SqlRoutes
from ultraengine.query.sql import Statement
from ultraengine.query.values import show
from ultraengine.testing.projection_sets import NOW, moved, same
from ultraengine.testing.projection_tables import ALIKE, EXTREME_FACTS, FACT, PROBE, fact

PATIENCE_S: Final = 20.0
CURSORS: Final = Cursors(b"contract of readers")
COLUMNS: Final = FACT.columns[1:]
_PLAIN: Final = frozenset({ColumnType.BOOLEAN, ColumnType.BYTES})
_COMPARE: Final[dict[Operator, Callable[[Any, Any], bool]]] = {
    Operator.EQ: lambda one, other: bool(one == other),
    Operator.LT: lambda one, other: bool(one < other),
    Operator.LTE: lambda one, other: bool(one <= other),
    Operator.GT: lambda one, other: bool(one > other),
    Operator.GTE: lambda one, other: bool(one >= other),
}
FACTS: Final = Read(
    name="facts",
    path="facts",
    table="fact",
    shown=FACT.names[1:],
    orders=(
        Order("n", ("n",)),
        Order("text", ("text", "n")),
        Order("backwards", ("text", "day", "n"), descending=True),
    ),
    filters=tuple(
        Filter(column.name, (Operator.EQ,) if column.type in _PLAIN else (*RANGE, Operator.IN))
        for column in COLUMNS
        if column.type is not ColumnType.JSON
    ),
)
PREFIXED: Final = Read(
    name="prefixed",
    path="prefixed",
    table="fact",
    shown=("n", "text"),
    orders=(Order("n", ("n",)),),
    filters=(Filter("text", (Operator.PREFIX,)),),
)
ROUTES: Final = SqlRoutes([("probe", PROBE, [FACTS, PREFIXED])])
TEXTS: Final = tuple(fact(100 + n, text=text, day=n % 2) for n, text in enumerate(ALIKE))


def asked(path: str = "facts", tenant: str = "t", **query: str) -> Asked:
    """A planned query; in names of filters ``__`` stands for the dot."""
    match = ROUTES.find("probe", [path])
    assert match is not None  # noqa: S101  (a test's own path)
    pairs = [(name.replace("__", "."), text) for name, text in query.items()]
    return plan(match, tenant, pairs, [], cursors=CURSORS, limits=Limits())


def spelled(value: Any, column: Column) -> str:
    """A value as a request writes it."""
    found = show(value, column.type)
    return str(found).lower() if column.type is ColumnType.BOOLEAN else str(found)


class ReaderContract:
    """What every reader keeps: give ``url``, ``slow`` and ``unreachable``."""

    url: str
    slow: str
    unreachable: str

    @pytest.fixture
    async def target(self) -> AsyncIterator[Target]:
        """Writes what is read."""
        target = open_target(self.url, "contract")
        await target.open()
        yield target
        await target.close()

    @pytest.fixture
    async def reader(self, target: Target) -> AsyncIterator[Reader]:  # noqa: ARG002  (it makes the tables)
        """An open one."""
        reader = open_reader(self.url, 2)
        await reader.open()
        yield reader
        await reader.close()

    async def filled(self, target: Target, rows: Sequence[Row]) -> ProjectionSet:
        """A set that serves these facts."""
        of = await target.create(PROBE, 1, NOW)
        batch = Batch(PROBE.tables)
        for row in rows:
            batch.append("fact", row)
        await target.write(of, PROBE, batch, moved(0, 5))
        await target.serve(of, PROBE, NOW)
        return of

    async def rows(self, reader: Reader, query: Asked) -> Sequence[Row]:
        """Rows of a query, shown columns only, at most a page."""
        found = await reader.run(query.tenant, ask(query, reader.dialect), PATIENCE_S)
        assert isinstance(found, Found)  # noqa: S101  (nothing was waited for)
        width = len(query.route.read.shown)  # type: ignore[union-attr]
        return [row[:width] for row in found.rows[0][: query.limit]]

    # --- values --------------------------------------------------------------------------

    async def test_every_value_comes_back_as_it_was_given(
        self, target: Target, reader: Reader
    ) -> None:
        """Of every type, to the ends of their ranges."""
        await self.filled(target, EXTREME_FACTS)
        wanted = sorted((row[1:] for row in EXTREME_FACTS), key=lambda row: int(row[0]))
        same([tuple(row) for row in await self.rows(reader, asked())], wanted)

    @pytest.mark.parametrize("column", FACTS.filters, ids=lambda one: one.column)
    async def test_a_filter_finds_what_compares_so(
        self, target: Target, reader: Reader, column: Filter
    ) -> None:
        """Exactly, whatever the size of a number and the letters of a text."""
        held = [*EXTREME_FACTS, *TEXTS]
        await self.filled(target, held)
        place = FACT.names.index(column.column)
        declared = FACT.column(column.column)
        values = {row[place] for row in held if row[place] is not None}
        for value in sorted(values):
            for operator in column.operators:
                if operator is Operator.IN:
                    continue
                wanted = {
                    row[1]
                    for row in held
                    if row[place] is not None and _COMPARE[operator](row[place], value)
                }
                name = f"{column.column}__{operator.value}"
                query = asked(**{name: spelled(value, declared), "limit": "1000"})
                same({row[0] for row in await self.rows(reader, query)}, wanted)

    async def test_one_of_several_is_any_of_them(self, target: Target, reader: Reader) -> None:
        """By any type that can be listed."""
        await self.filled(target, EXTREME_FACTS)
        found = await self.rows(reader, asked(n__in="1,2,99", amount__in=str(2**63)))
        same([row[0] for row in found], [1])

    @pytest.mark.parametrize("prefix", ["", "a", "A", "\U0001f600", "ß", "s", "zz"])
    async def test_a_prefix_finds_what_begins_with_it(
        self, target: Target, reader: Reader, prefix: str
    ) -> None:
        """By code point: a letter and the same with an accent are two."""
        await self.filled(target, TEXTS)
        found = await self.rows(reader, asked("prefixed", text__prefix=prefix))
        same([row[0] for row in found], [row[1] for row in TEXTS if row[4].startswith(prefix)])

    @pytest.mark.parametrize("order", FACTS.orders, ids=lambda one: one.name)
    async def test_pages_follow_each_other_in_order(
        self, target: Target, reader: Reader, order: Order
    ) -> None:
        """Each row once, by code point, from a cursor as from the start."""
        await self.filled(target, TEXTS)
        places = [FACT.names.index(name) for name in order.columns]
        wanted = sorted(TEXTS, key=lambda row: [row[at] for at in places], reverse=order.descending)
        seen: list[Any] = []
        place: tuple[Any, ...] | None = None
        while True:
            query = asked(order=order.name, limit="5")
            if place is not None:
                cursor = CURSORS.make(["contract"], place)
                same(CURSORS.read(["contract"], cursor), place)
                query = _behind(query, place)
            page = await self.rows(reader, query)
            seen += page
            if len(page) < query.limit:
                break
            place = tuple(page[-1][at - 1] for at in places)
        same([row[0] for row in seen], [row[1] for row in wanted])

    # --- tenants, rights, moments ----------------------------------------------------------

    async def test_a_tenant_sees_its_own_rows(self, target: Target, reader: Reader) -> None:
        """And another the others."""
        await self.filled(target, [fact(1), ("other", *fact(2)[1:])])
        same([row[0] for row in await self.rows(reader, asked())], [1])
        same([row[0] for row in await self.rows(reader, asked(tenant="other"))], [2])
        same(list(await self.rows(reader, asked(tenant="nobody"))), [])

    async def test_nothing_can_be_written(self, target: Target, reader: Reader) -> None:
        """Not even by a statement that somebody slipped in."""
        of = await self.filled(target, [fact(1)])
        quoted = reader.dialect.quote(physical(PROBE.name, "fact", of.suffix))
        for text in (f"DELETE FROM {quoted}", f"DROP TABLE {quoted}"):  # noqa: S608
            with pytest.raises(Exception) as caught:  # noqa: PT011  (each database has its own)
                await reader.run("t", _one(Statement("write", text, (), (), 1)), PATIENCE_S)
            if isinstance(caught.value, AssertionError):
                raise caught.value
        same([row[0] for row in await self.rows(reader, asked())], [1])

    async def test_one_conversation_sees_one_moment(self, target: Target, reader: Reader) -> None:
        """Rows and position, whatever is written meanwhile."""
        of = await self.filled(target, [fact(1)])
        begun, written, query = asyncio.Event(), threading.Event(), asked()
        loop = asyncio.get_running_loop()

        def talk() -> "Talk[Any]":
            before = yield from ask(query, reader.dialect)
            loop.call_soon_threadsafe(begun.set)
            # It lasts as long as the write, however slow the machine is, and no statement does.
            while not written.is_set():
                yield from look(PROBE, reader.dialect)
            after = yield from ask(query, reader.dialect)
            return before, after

        reading = asyncio.create_task(reader.run("t", talk(), PATIENCE_S))
        await begun.wait()
        batch = Batch(PROBE.tables)
        batch.append("fact", fact(2))
        try:
            await target.write(of, PROBE, batch, moved(5, 6))
        finally:
            written.set()
        before, after = await reading
        same(before, after)
        now = await reader.run("t", look(PROBE, reader.dialect), PATIENCE_S)
        same(now.position.header, f"{now.position.ends[0][0]}=5")
        same([row[0] for row in await self.rows(reader, query)], [1, 2])

    # --- troubles --------------------------------------------------------------------------

    async def test_a_statement_that_takes_too_long_is_ended(
        self, target: Target, reader: Reader
    ) -> None:
        """And the next read is as good as ever."""
        await self.filled(target, [fact(1)])
        slow = Statement("slow", self.slow, (), (FACT.columns[1],), 1)
        with pytest.raises(ReadEnded):
            await reader.run("t", _one(slow), 0.05)
        same([row[0] for row in await self.rows(reader, asked())], [1])

    async def test_what_a_conversation_raises_is_told(self, target: Target, reader: Reader) -> None:
        """No set serves yet; then one does, and the same reader reads it."""
        for _ in range(3):
            with pytest.raises(EngineError) as caught:
                await reader.run("t", look(PROBE, reader.dialect), PATIENCE_S)
            same(caught.value.code, "PROJECTION_UNAVAILABLE")
        await self.filled(target, [fact(1)])
        same([row[0] for row in await self.rows(reader, asked())], [1])

    async def test_a_wrong_statement_is_a_fault_of_ours(
        self, target: Target, reader: Reader
    ) -> None:
        """Not of the database: it is not said to be away."""
        await self.filled(target, [fact(1)])
        with pytest.raises(Exception) as caught:  # noqa: PT011  (each database has its own)
            await reader.run("t", _wrong(reader), PATIENCE_S)
        if isinstance(caught.value, ReaderUnavailable | ReadEnded | AssertionError):
            raise caught.value
        same([row[0] for row in await self.rows(reader, asked())], [1])

    async def test_a_database_that_is_not_there_is_unavailable(self) -> None:
        """Opening does not fail; reading says so each time."""
        reader = open_reader(self.unreachable, 2)
        await reader.open()
        for _ in range(2):
            with pytest.raises(ReaderUnavailable):
                await reader.run("t", look(PROBE, reader.dialect), PATIENCE_S)
        await reader.close()
        await reader.close()

    async def test_a_database_without_our_tables_is_unavailable(self) -> None:
        """Nobody has projected into it yet."""
        reader = open_reader(self.url, 2)
        await reader.open()
        with pytest.raises(ReaderUnavailable):
            await reader.run("t", look(PROBE, reader.dialect), PATIENCE_S)
        await reader.close()


def _behind(query: Asked, place: tuple[Any, ...]) -> Asked:
    return msgspec.structs.replace(query, after=place)


def _one(statement: Statement) -> "Talk[Sequence[Row]]":
    rows = yield statement
    return rows


def _wrong(reader: Reader) -> "Talk[Sequence[Row]]":
    yield from look(PROBE, reader.dialect)
    rows = yield Statement("wrong", "SELECT nothing FROM nowhere", (), (), 1)
    return rows
