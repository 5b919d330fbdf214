"""The contract of projections, as tests to inherit (`docs/writing-a-domain.md`, Tables).

    class TestShopTables(ProjectionContract):
        domain = "shop.domain:DOMAIN"
        commands = COMMANDS                      # as for `DomainSuite`

        def verify(self, rehearsal, tables):     # what the rows mean
            assert tables.rows("sale") == ...

Random scripts are played; the rows of what was recorded are held to what targets take for
granted.
"""

from collections.abc import Iterable
from typing import Any, ClassVar, Final

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from ultraengine.model.ids import Epoch, Instant, Offset, ShardId
from ultraengine.model.projection import Projection
from ultraengine.projection.fold import Batch
from ultraengine.projection.sqlite.store.driver import Store
from ultraengine.projection.target import (
    START,
    Checkpoint,
    Moved,
    ProjectionSet,
    RowRefused,
    all_tables,
)
from ultraengine.testing.projected import (
    happened,
    projections_of,
    rows_digest,
    type_mistake,
)
from ultraengine.testing.projection_tables import MemoryTables
from ultraengine.testing.rehearsal import Rehearsal
from ultraengine.testing.sandbox import in_sandbox
from ultraengine.testing.scripts import SETTINGS, Script, Scripted
from ultraengine.testing.subprocesses import HASH_SEEDS, run_under_seeds

SCRIPTS_COMPARED: Final = 20
"""Scripts that are played in other processes too, and written to a database."""
_ENCODE: Final = msgspec.msgpack.Encoder().encode


class ProjectionContract(Scripted):
    """Tests for the tables of one domain: give ``domain`` and ``commands``."""

    empty: ClassVar[Iterable[str]] = ()
    """Names of tables that random scripts cannot be expected to write."""

    def verify(self, rehearsal: Rehearsal, tables: MemoryTables) -> None:
        """Hold the rows of a script to what the domain says itself; override it."""

    def projections(self) -> list[Projection]:
        """What the domain declares."""
        return projections_of(self.loaded())

    def played(self, script: Script) -> Rehearsal:
        """A rehearsal that has played the script."""
        rehearsal = Rehearsal(self.loaded())
        for line in script:
            rehearsal.play(line)
        return rehearsal

    def test_its_declarations_agree_with_themselves(self) -> None:
        """Names, keys, folds, partitions; and there are some."""
        if not self.projections():
            raise AssertionError(f"{self.domain} has no attribute `projections` with any in it")

    @SETTINGS
    @given(data=st.data())
    def test_a_row_has_the_types_of_its_table(self, data: st.DataObject) -> None:
        """One value per column, of its type, within its length, null only where it may be."""
        rehearsal = self.played(data.draw(self.scripts()))
        for projection in self.projections():
            rows = TypedRows(projection)
            for event, at in happened(rehearsal):
                projection.project(event, at, rows)
            if rows.mistakes:
                raise AssertionError("; ".join(rows.mistakes))

    @SETTINGS
    @given(data=st.data())
    def test_projecting_is_pure(self, data: st.DataObject) -> None:
        """The same rows again, in a sandbox, with the event and its place untouched."""
        rehearsal = self.played(data.draw(self.scripts()))
        for projection in self.projections():
            project = in_sandbox(projection.project)
            first, again = Batch(projection.tables), Batch(projection.tables)
            for event, at in happened(rehearsal):
                before = _ENCODE(event), dict(vars(at))
                projection.project(event, at, first)
                project(event, at, again)
                if (_ENCODE(event), vars(at)) != before:
                    raise AssertionError(f"projecting changed {event!r} or its place")
            if rows_digest(first) != rows_digest(again):
                raise AssertionError("projecting the same events again gives other rows")

    @SETTINGS
    @given(data=st.data())
    def test_cutting_the_events_into_batches_changes_nothing(self, data: st.DataObject) -> None:
        """All at once, one by one, anyhow: the same tables; and every changed row is there."""
        rehearsal = self.played(data.draw(self.scripts()))
        for projection in self.projections():
            whole = tables_of(rehearsal, projection, lambda: False)
            single = tables_of(rehearsal, projection, lambda: True)
            drawn = tables_of(rehearsal, projection, lambda: data.draw(st.booleans()))
            if not whole.held == single.held == drawn.held:
                raise AssertionError(
                    f"in one batch {whole.held}\\none by one {single.held}\\ncut {drawn.held}"
                )

    @SETTINGS
    @given(data=st.data())
    def test_the_rows_mean_what_the_domain_says(self, data: st.DataObject) -> None:
        """`verify`, for every script."""
        rehearsal = self.played(data.draw(self.scripts()))
        for projection in self.projections():
            self.verify(rehearsal, tables_of(rehearsal, projection, lambda: False))

    def test_a_database_that_guards_the_checks_refuses_nothing(self) -> None:
        """Rows and aggregates, with every key, length and CHECK in force."""
        for script in self.collected()[:SCRIPTS_COMPARED]:
            rehearsal = self.played(script)
            for projection in self.projections():
                in_database(rehearsal, projection)

    def test_two_processes_agree(self) -> None:
        """On all rows and their order, under two hash seeds."""
        scripts = self.collected()[:SCRIPTS_COMPARED]
        outputs = run_under_seeds(
            "ultraengine.testing.probe", ("tables", self.domain), _ENCODE(scripts)
        )
        if outputs[0] != outputs[1]:
            raise AssertionError(
                f"rows under hash seeds {' and '.join(HASH_SEEDS)} differ: does something iterate"
                " over a set, or look at the clock?"
            )

    def test_the_commands_of_this_suite_reach_every_table(self) -> None:
        """Else all the others would pass without looking."""
        missing = {table.name for one in self.projections() for table in one.tables}
        missing -= set(self.empty)
        for script in self.collected():
            rehearsal = self.played(script)
            for projection in self.projections():
                held = tables_of(rehearsal, projection, lambda: False).held
                missing -= {name for name, rows in held.items() if rows}
        if missing:
            raise AssertionError(f"no script writes a row of {', '.join(sorted(missing))}")


class TypedRows(Batch):
    """Notes every value that its column would not take."""

    def __init__(self, projection: Projection) -> None:
        super().__init__(projection.tables)
        self._tables = {table.name: table.taken for table in projection.tables}
        self.mistakes: list[str] = []

    def _look(self, table: str, names: Iterable[str], values: Iterable[Any]) -> None:
        declared = self._tables[table]
        names, values = list(names), list(values)
        if len(names) != len(values):
            self.mistakes.append(f"{table}: {len(values)} values for {', '.join(names)}")
            return
        found = (
            type_mistake(declared, declared.column(name), value)
            for name, value in zip(names, values, strict=True)
        )
        self.mistakes += filter(None, found)

    def append(self, table: str, row: Any) -> None:
        """Look, then fold."""
        self._look(table, self._tables[table].names, row)
        super().append(table, row)

    def appender(self, table: str) -> Any:
        """Likewise."""
        return lambda row: self.append(table, row)

    def put(self, table: str, row: Any) -> None:
        """Likewise."""
        self._look(table, self._tables[table].names, row)
        super().put(table, row)

    def putter(self, table: str) -> Any:
        """Likewise."""
        return lambda row: self.put(table, row)

    def changer(self, table: str, columns: tuple[str, ...]) -> Any:
        """Likewise."""
        fold = super().changer(table, columns)

        def change(key: Any, values: Any) -> None:
            self._look(table, self._tables[table].key, key)
            self._look(table, columns, values)
            fold(key, values)

        return change

    def change(self, table: str, key: Any, values: Any) -> None:
        """Likewise."""
        self.changer(table, tuple(values))(key, tuple(values.values()))


def tables_of(rehearsal: Rehearsal, projection: Projection, cut: Any) -> MemoryTables:
    """Tables in memory of what a rehearsal has recorded; `cut` says whether a batch ends here.

    Raises AssertionError where a target would park.
    """
    tables, batch = MemoryTables(projection.tables), Batch(projection.tables)
    try:
        for event, at in happened(rehearsal):
            projection.project(event, at, batch)
            if cut():
                tables.write(batch)
                batch = Batch(projection.tables)
        tables.write(batch)
    except (KeyError, RowRefused) as error:
        raise AssertionError(
            f"a fact is there twice, or a row to be changed is not there: {error}"
        ) from error
    return tables


def in_database(rehearsal: Rehearsal, projection: Projection) -> None:
    """Write all batches of one command each.  Raises `RowRefused`."""
    store = Store(":memory:")
    store.prepare()
    of = store.create(projection, 1, Instant(0))
    before, batch, at = START, Batch(projection.tables), None
    for event, place in happened(rehearsal):
        if at is not None and place.offset != at:
            before = _write(store, of, projection, batch, before)
            batch = Batch(projection.tables)
        at = place.offset
        projection.project(event, place, batch)
    _write(store, of, projection, batch, before)
    store.refresh(of, projection, slices_max=1_000)
    store.checksums(of, all_tables(projection))
    store.db.close()


def _write(
    store: Store, of: ProjectionSet, projection: Projection, batch: Batch, before: Checkpoint
) -> Checkpoint:
    after = Checkpoint(Offset(before.offset + 1), Epoch(1))
    store.write(of, projection, batch, [Moved(ShardId(0), before, after)])
    return after


def rows_of_scripts(reference: str, scripts: bytes) -> bytes:
    """The other side of `test_two_processes_agree`: digests of all rows, one a line."""

    class Here(ProjectionContract):
        domain = reference

    suite, digests = Here(), []
    for script in msgspec.msgpack.decode(scripts, type=list[Script]):
        rehearsal = suite.played(script)
        for projection in suite.projections():
            batch = Batch(projection.tables)
            for event, at in happened(rehearsal):
                projection.project(event, at, batch)
            digests.append(rows_digest(batch))
    return "\n".join(digests).encode()
