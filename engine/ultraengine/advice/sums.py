"""A specialised table tried on a copy: what fills it, what asks it, what a write costs with it.

    copy -> `build`: a temporary table of sums -> the same question of both -> `fold` of some rows

The question is what the read sums, by what it is narrowed and grouped by.  It has no bounds of
time, which differ from call to call: the whole history is asked for, before and after.  Pure.
"""

from collections.abc import Sequence
from typing import Final

import msgspec

from ultraengine.advice.trial import Question
from ultraengine.model.exact import expanded
from ultraengine.model.projection import Column, ColumnType, Fold, Table, TableKind
from ultraengine.projection.dialect import Dialect

SPECIAL: Final = "ultra_special"
"""Name of the table under trial, beside a copy."""


class Special(msgspec.Struct, frozen=True):
    """A table of sums by group and day, of the rows of another one."""

    source: Table
    groups: tuple[str, ...]
    """Columns of the source, the tenant first."""
    equal: tuple[str, ...]
    """Those of them that a question gives values for."""
    columns: tuple[str, ...]
    """What is summed."""
    time: str
    """The source's day, or the time that has it."""

    @property
    def table(self) -> Table:
        """As it is tried: every sum merged."""
        summed = [Column(name=one, type=ColumnType.TOTAL, fold=Fold.SUM) for one in self.columns]
        return Table(
            name=SPECIAL,
            kind=TableKind.CURRENT,
            key=(*self.groups, DAY),
            columns=(
                *(self.source.column(one) for one in self.groups),
                Column(name=DAY, type=ColumnType.DATE),
                *summed,
                Column(name=COUNT, type=ColumnType.INTEGER, fold=Fold.SUM),
            ),
        )


DAY: Final = "day"
COUNT: Final = "entries"


class SpecialWords:
    """Its statements in the words of one database."""

    def __init__(self, sql: Dialect, special: Special, held: str, day_of: str) -> None:
        """`held`: the copy, quoted; `day_of` makes a day of a ``{time}``."""
        self._sql = sql
        self.special = special
        self._held = held
        time = sql.quote(special.time)
        is_day = special.source.column(special.time).type is ColumnType.DATE
        self._day = time if is_day else day_of.format(time=time)

    def _summed(self, source: str) -> str:
        groups = self._sql.names(self.special.groups)
        sums = [
            f"{expanded(f'TOTAL({self._sql.quote(one)})', self._sql)} AS {self._sql.quote(one)}"
            for one in self.special.columns
        ]
        listed = ", ".join([groups, f"{self._day} AS {self._sql.quote(DAY)}", *sums])
        return (
            f"SELECT {listed}, COUNT(*) AS {self._sql.quote(COUNT)} FROM {source}"
            f" GROUP BY {groups}, {self._day}"
        )

    def build(self) -> Sequence[str]:
        """Make it of all rows of the copy."""
        key = self._sql.names(self.special.table.key)
        return (
            f"CREATE TEMPORARY TABLE {SPECIAL} AS {self._summed(self._held)}",
            f"CREATE UNIQUE INDEX {SPECIAL}_key ON {SPECIAL} ({key})",
        )

    def fold(self, rows: int) -> str:
        """Merge some rows once more, as a worker would with a batch of them."""
        some = f"(SELECT * FROM {self._held} LIMIT {rows}) AS s"
        # Between SELECT and ON CONFLICT SQLite needs a condition.
        source = self._summed(f"{some} WHERE 1 = 1")
        return self._sql.merge(SPECIAL, self.special.table, source)

    def questions(self, values: Sequence[object]) -> tuple[Question, Question]:
        """What the read sums, of the copy and of the table; `values` of `Special.equal`."""
        grouped = [one for one in self.special.groups if one not in self.special.equal]
        sums = [
            expanded(f"TOTAL({self._sql.quote(one)})", self._sql) for one in self.special.columns
        ]
        listed = ", ".join([*map(self._sql.quote, grouped), *sums])
        where = " AND ".join(
            f"{self._sql.quote(one)} = {self._sql.placeholder(place)}"
            for place, one in enumerate(self.special.equal, 1)
        )
        by = f" GROUP BY {self._sql.names(grouped)}" if grouped else ""

        def of(name: str) -> Question:
            return Question(f"SELECT {listed} FROM {name} WHERE {where}{by}", tuple(values))

        return of(self._held), of(SPECIAL)
