"""Indexes that operators add beyond those that a projection declares (`ultra advise`).

They are remembered in the target (`engine_tables.INDEXES`), so that a set that is built later
gets them too, and are made by whoever makes the set, in the transaction that makes it.  Pure.
"""

from collections.abc import Iterable

import msgspec

from ultraengine.model.ids import Instant
from ultraengine.model.projection import Index, Projection, Table
from ultraengine.projection.dialect import Dialect
from ultraengine.projection.engine_tables import INDEXES
from ultraengine.projection.target import all_tables, physical


class AddedIndex(msgspec.Struct, frozen=True, order=True):
    """One of them; a row of `engine_tables.INDEXES`, in the order of its columns."""

    projection: str
    name: str
    """Without the name of the physical table, which stands before it in the database."""
    table: str
    columns: tuple[str, ...]
    created_at: Instant

    @property
    def row(self) -> tuple[str, str, str, str, Instant]:
        """As it is stored."""
        return self.projection, self.name, self.table, ",".join(self.columns), self.created_at


def added(projection: str, name: str, table: str, members: str, created_at: int) -> AddedIndex:
    """Inverse of `AddedIndex.row`."""
    return AddedIndex(projection, name, table, tuple(members.split(",")), Instant(created_at))


def select(dialect: Dialect) -> str:
    """All that are remembered."""
    return (
        f"SELECT {dialect.names(INDEXES.names)} FROM {dialect.quote(INDEXES.name)}"
        f" ORDER BY {dialect.names(INDEXES.key)}"
    )


def forget(dialect: Dialect) -> str:
    """Forget one; parameters: the key."""
    where = " AND ".join(
        f"{dialect.quote(name)} = {dialect.placeholder(number)}"
        for number, name in enumerate(INDEXES.key, 1)
    )
    return f"DELETE FROM {dialect.quote(INDEXES.name)} WHERE {where}"


def fits(index: AddedIndex, table: Table) -> bool:
    """Whether the table still has its columns: a newer version may not."""
    return set(index.columns) <= set(table.names)


def create_whole(
    dialect: Dialect, projection: Projection, suffix: str, remembered: Iterable[AddedIndex]
) -> list[str]:
    """Statements that make all tables of a set, with what was added to earlier ones."""
    return [
        *dialect.create_set(projection, suffix),
        *create_added(dialect, projection, suffix, remembered),
    ]


def create_added(
    dialect: Dialect, projection: Projection, suffix: str, remembered: Iterable[AddedIndex]
) -> list[str]:
    """Statements that make those of one set, of what is remembered in the whole target.

    One whose table or columns are gone in this version is left out, and stays remembered.
    """
    own = [index for index in remembered if index.projection == projection.name]
    return [
        statement
        for table in all_tables(projection)
        for index in own
        if index.table == table.name and fits(index, table)
        for statement in dialect.create_indexes(
            physical(projection.name, table.name, suffix),
            msgspec.structs.replace(table, indexes=(Index(index.name, index.columns),)),
        )
    ]
