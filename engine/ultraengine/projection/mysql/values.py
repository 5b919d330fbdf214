"""Rows as the server's binary protocol takes them: what a projection gives, as Python's own types.

Purpose: whole columns at a time, since rows come by thousands.  Nothing becomes text of a
statement: values travel as parameters.

What the server would change without an error is refused here: a number of another kind, a text
that is too long by spaces alone (those it cuts even in strict mode).  Pure.
"""

from collections.abc import Callable, Iterator, Sequence
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any, Final

from ultraengine.model.ids import Instant
from ultraengine.model.projection import (
    AMOUNT_END,
    TOTAL_END,
    Aggregate,
    Column,
    ColumnType,
    Row,
    Table,
)
from ultraengine.projection.fold import CurrentRows
from ultraengine.projection.target import RowRefused

EPOCH: Final = datetime(1970, 1, 1)  # noqa: DTZ001  (the session's zone is UTC)
EPOCH_DAY: Final = date(1970, 1, 1)
INT64_END: Final = 2**63
ROWS_MAX: Final = 5_000
"""Rows of one command: more gain nothing, and the loop stands while they are packed."""
CHAR_BYTES_MAX: Final = 4
FIXED_BYTES_MAX: Final = 64
"""Of a value that is neither text nor bytes, with all that is around it."""
_MICROSECOND: Final = timedelta(microseconds=1)
_SIZED: Final = frozenset({ColumnType.TEXT, ColumnType.JSON, ColumnType.BYTES})

Values = Sequence[Any]


def moment(value: int) -> datetime:
    """An instant as the server takes it.  Raises OverflowError outside of the years 1 to 9999."""
    return EPOCH + timedelta(microseconds=value)


def instant_of(value: datetime) -> Instant:
    """An instant as it was given."""
    return Instant((value - EPOCH) // _MICROSECOND)


def _refuse(column: Column, why: str) -> RowRefused:
    return RowRefused(f"column {column.name}: {why}")


def _only(column: Column, values: Values, kind: type) -> Values:
    """The values that are not null.  Raises `RowRefused` for values of another type."""
    kinds = set(map(type, values))
    if kinds <= {kind}:
        return values
    others = kinds - ({kind, type(None)} if column.nullable else {kind})
    if others:
        named = ", ".join(sorted(one.__name__ for one in others))
        raise _refuse(column, f"{named} where {kind.__name__} belongs")
    return [value for value in values if value is not None]


def _bounded(column: Column, values: Values, first: int, end: int) -> tuple[int, int]:
    present = _only(column, values, int)
    if not present:
        return 0, 0
    low, high = min(present), max(present)
    if low < first or high >= end:
        raise _refuse(column, f"{low if low < first else high} is out of its range")
    return low, high


def _integers(column: Column, values: Values) -> Values:
    _bounded(column, values, -INT64_END, INT64_END)
    return values


def _decimals(column: Column, values: Values) -> Values:
    end = TOTAL_END if column.type is ColumnType.TOTAL else AMOUNT_END
    low, high = _bounded(column, values, 1 - end, end)
    if low >= -INT64_END and high < INT64_END:
        return values
    return [None if value is None else Decimal(value) for value in values]


def _texts(column: Column, values: Values) -> Values:
    present = _only(column, values, str)
    if column.type is ColumnType.TEXT and present and max(map(len, present)) > column.length:
        raise _refuse(column, f"a text is longer than {column.length} characters")
    return values


def _times(column: Column, values: Values) -> Values:
    _only(column, values, int)
    try:
        return [None if value is None else moment(value) for value in values]
    except OverflowError:
        raise _refuse(column, "a time is outside of the years 1 to 9999") from None


def _dates(column: Column, values: Values) -> Values:
    _only(column, values, int)
    try:
        return [None if value is None else EPOCH_DAY + timedelta(days=value) for value in values]
    except OverflowError:
        raise _refuse(column, "a date is outside of the years 1 to 9999") from None


def _truths(column: Column, values: Values) -> Values:
    _only(column, values, bool)
    return values


def _bytes(column: Column, values: Values) -> Values:
    present = _only(column, values, bytes)
    if present and max(map(len, present)) > column.length:
        raise _refuse(column, f"bytes are more than {column.length}")
    return values


_CONVERT: Final[dict[ColumnType, Callable[[Column, Values], Values]]] = {
    ColumnType.INTEGER: _integers,
    ColumnType.AMOUNT: _decimals,
    ColumnType.TOTAL: _decimals,
    ColumnType.TEXT: _texts,
    ColumnType.TIME: _times,
    ColumnType.DATE: _dates,
    ColumnType.BOOLEAN: _truths,
    ColumnType.JSON: _texts,
    ColumnType.BYTES: _bytes,
}


def transposed(rows: Sequence[Sequence[Any]], width: int) -> list[Values]:
    """Columns of rows.  Raises `RowRefused` for a row of another width."""
    if any(len(row) != width for row in rows):
        raise RowRefused(f"a row has other than {width} values")
    return list(zip(*rows, strict=True))


def converted(columns: Sequence[Column], values: Sequence[Values]) -> list[Values]:
    """Values of columns, as parameters.  Raises `RowRefused`."""
    return [
        _CONVERT[column.type](column, given) for column, given in zip(columns, values, strict=True)
    ]


def bytes_max(columns: Sequence[Column], values: Sequence[Values], char_bytes: int) -> int:
    """The most that a command with these values can have, if a character has so many bytes."""
    size = FIXED_BYTES_MAX
    for column, given in zip(columns, values, strict=True):
        size += FIXED_BYTES_MAX * len(given)
        if column.type in _SIZED:
            factor = 1 if column.type is ColumnType.BYTES else char_bytes
            size += factor * sum(map(len, filter(None, given)))
    return size


def is_too_large(columns: Sequence[Column], values: Sequence[Values], packet_bytes: int) -> bool:
    """Whether a command with these values would be larger than a packet."""
    if bytes_max(columns, values, CHAR_BYTES_MAX) <= packet_bytes:
        return False
    texts = [
        value
        for column, given in zip(columns, values, strict=True)
        if column.type in _SIZED and column.type is not ColumnType.BYTES
        for value in filter(None, given)
    ]
    longer = sum(len(text.encode(errors="surrogatepass")) - len(text) for text in texts)
    return bytes_max(columns, values, 1) + longer > packet_bytes


def chunks(
    table: Table, columns: Sequence[Column], rows: Sequence[Row], packet_bytes: int
) -> Iterator[tuple[str, list[Row]]]:
    """Rows in commands: (the list of parameters of one row, the parameters of all of them).

    A column that is null in every row of a command would have no type there, so the null stands
    in the list.  Raises `RowRefused`, also for a row that no packet takes.
    """
    waiting = [rows[at : at + ROWS_MAX] for at in range(0, len(rows), ROWS_MAX)]
    waiting.reverse()
    while waiting:
        some = waiting.pop()
        given = transposed(some, len(columns))
        values = converted(columns, given)
        if is_too_large(columns, given, packet_bytes):
            if len(some) == 1:
                raise RowRefused(f"a row of {table.name} is larger than {packet_bytes} bytes")
            half = len(some) // 2
            waiting += [some[half:], some[:half]]
            continue
        used = [
            not column.nullable or any(one is not None for one in value)
            for column, value in zip(columns, values, strict=True)
        ]
        places = ", ".join("?" if one else "NULL" for one in used)
        present = [value for one, value in zip(used, values, strict=True) if one]
        yield f"({places})", list(zip(*present, strict=True))


def changes(rows: CurrentRows) -> dict[tuple[tuple[str, ...], tuple[str, ...]], list[Row]]:
    """Changes of rows by what they set and what they make null; values first, then the key."""
    names = rows.table.names
    found: dict[tuple[tuple[str, ...], tuple[str, ...]], list[Row]] = {}
    for key, changed in rows.changed.items():
        places = sorted(changed)
        columns = tuple(names[place] for place in places if changed[place] is not None)
        nulls = tuple(names[place] for place in places if changed[place] is None)
        values = [changed[place] for place in places if changed[place] is not None]
        found.setdefault((columns, nulls), []).append((*values, *key))
    return found


def touched_slices(aggregate: Aggregate, source: CurrentRows) -> list[date]:
    """Slices of which a batch wrote a row.  Raises `RowRefused` for what is no date."""
    column = source.table.column(aggregate.slice_column)
    return sorted(_dates(column, list(source.slices(aggregate.slice_column))))
