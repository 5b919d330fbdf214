"""SQLite's SQL: strict tables, exact amounts (`exact.py`), bounds as CHECKs.

Times are microseconds and days are days since 1970, as integers: ``datetime(booked_at / 1000000,
'unixepoch')`` and ``date(day * 86400, 'unixepoch')`` show them.  Texts compare by code point, which
is the order of their UTF-8 bytes.
"""

import re
from typing import Final

import msgspec

from ultraengine.model.errors import InvariantBroken
from ultraengine.model.exact import expanded, has_macros, split
from ultraengine.model.projection import (
    Aggregate,
    Check,
    Column,
    ColumnType,
    Fold,
    Table,
)
from ultraengine.projection.dialect import AMOUNT_DIGITS, TOTAL_DIGITS, Dialect
from ultraengine.projection.sqlite.conditions import exact_condition
from ultraengine.projection.sqlite.exact import WORD_END, SqliteWords, sum_of

EXACT: Final = frozenset({ColumnType.AMOUNT, ColumnType.TOTAL})
_DIGITS: Final = {ColumnType.AMOUNT: AMOUNT_DIGITS, ColumnType.TOTAL: TOTAL_DIGITS}
_HALF: Final = WORD_END // 2 - 1
"""Two words up to this in size add up to a word."""
_WORD_DIGITS: Final = 19
_SELECT: Final = re.compile(r"SELECT (?P<list>.*?) FROM ", re.DOTALL)
_FUNCTION: Final = re.compile(r"(?P<function>SUM|MIN|MAX)\((?P<of>[\w.{}]+)\)")
_BARE: Final = re.compile(r"[\w.{}]+")


class SqliteDialect(SqliteWords, Dialect):
    """SQL of `SqliteTarget`."""

    name = "sqlite"
    sparse_indexes = True
    column_types = {  # noqa: RUF012  (the base declares it for instances)
        ColumnType.INTEGER: "INTEGER",
        ColumnType.AMOUNT: "ANY",
        ColumnType.TOTAL: "ANY",
        ColumnType.TEXT: "TEXT",
        ColumnType.TIME: "INTEGER",
        ColumnType.DATE: "INTEGER",
        ColumnType.BOOLEAN: "INTEGER",
        ColumnType.JSON: "TEXT",
        ColumnType.BYTES: "BLOB",
    }

    def placeholder(self, number: int) -> str:
        """Numbered: a fold names its new value more than once."""
        return f"?{number}"

    def column(self, column: Column, table: Table) -> str:
        """With the bounds of its type; STRICT sees to the rest."""
        defined = super().column(column, table)
        name = self.quote(column.name)
        if column.type in EXACT:
            # What is no word is digits that fit none, so that one number has one form.
            return (
                f"{defined} CHECK (typeof({name}) IN ('integer', 'null') OR"
                f" (typeof({name}) = 'text' AND ltrim({name}, '-') NOT GLOB '*[^0-9]*' AND"
                f" length(ltrim({name}, '-')) BETWEEN {_WORD_DIGITS} AND {_DIGITS[column.type]}))"
            )
        if column.type in {ColumnType.TEXT, ColumnType.BYTES}:
            return f"{defined} CHECK (length({name}) <= {column.length})"
        if column.type is ColumnType.BOOLEAN:
            return f"{defined} CHECK ({name} IN (0, 1))"
        return defined

    def table_suffix(self, table: Table) -> str:  # noqa: ARG002  (all tables are alike)
        """Values have their column's type, or are refused."""
        return " STRICT"

    def create_table(self, name: str, table: Table) -> list[str]:
        """With checks that compute amounts exactly."""
        amounts = {column.name for column in table.columns if column.type in EXACT}
        checks = tuple(
            Check(check.name, exact_condition(check.condition, amounts)) for check in table.checks
        )
        return super().create_table(name, msgspec.structs.replace(table, checks=checks))

    def folded(self, column: Column, held: str, new: str) -> str:
        """Natively where both are small enough words, else by the functions of `exact.py`."""
        if column.type not in EXACT or column.fold is Fold.LAST:
            return super().folded(column, held, new)
        near = f"{held} BETWEEN -{_HALF} AND {_HALF} AND {new} BETWEEN -{_HALF} AND {_HALF}"
        if column.fold is Fold.SUM:
            return f"CASE WHEN {near} THEN {held} + {new} ELSE ultra_plus({held}, {new}) END"
        sign, function = ("<", "min") if column.fold is Fold.MIN else (">", "max")
        chosen = f"CASE WHEN ultra_compare({new}, {held}) {sign} 0 THEN {new} ELSE {held} END"
        return f"CASE WHEN {near} THEN {function}({held}, {new}) ELSE {chosen} END"

    def aggregate(self, of: Aggregate, projection: str, suffix: str, slices: int) -> list[str]:
        """With exact sums.

        Raises `InvariantBroken` for an amount that is no column, no SUM, MIN or MAX of one, and
        made by no macro.
        """
        select = exact_select(of)
        return super().aggregate(
            msgspec.structs.replace(of, select=select), projection, suffix, slices
        )


def exact_select(of: Aggregate) -> str:
    """The declared SELECT with exact SUM, MIN and MAX of amounts, and its macros written out."""
    found = _SELECT.match(of.select)
    outputs = [] if found is None else split(found["list"])
    if found is None or len(outputs) != len(of.table.columns):
        raise InvariantBroken("an aggregate selects one output per column", table=of.table.name)
    exact = [
        _exact_output(output, of) if column.type in EXACT else output
        for output, column in zip(outputs, of.table.columns, strict=True)
    ]
    return expanded(f"SELECT {', '.join(exact)} FROM {of.select[found.end() :]}", SqliteWords())


def _exact_output(output: str, of: Aggregate) -> str:
    found = _FUNCTION.fullmatch(output)
    if found is not None:
        if found["function"] == "SUM":
            return sum_of(found["of"])
        return f"ultra_{found['function'].lower()}({found['of']})"
    if _BARE.fullmatch(output) is None and not has_macros(output):
        raise InvariantBroken(
            "an amount of an aggregate is a column, SUM, MIN or MAX of one, or of macros",
            table=of.table.name,
            output=output,
        )
    return output
