"""Rows as lines of JSON, and lines as rows again.

A row of an APPEND table is an object by column name.  A line of a CURRENT table has a member
``_op`` beside its columns: ``put`` with a whole row, ``change`` with the key and some columns; both
are to be folded into what the reader has, by the folds of ``schema.json``.  Amounts and totals are
decimal strings, as in the API; bytes are base64; times are microseconds and dates days since
1970; a column of JSON is a string that holds JSON.
"""

from base64 import b64decode
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

import msgspec

from ultraengine.model.projection import ColumnType, Key, Projection, Row, Table, TableKind
from ultraengine.projection.fold import COMBINE, CurrentRows

OP: Final = "_op"
PUT: Final = "put"
CHANGE: Final = "change"
_NUMBERS: Final = frozenset({ColumnType.AMOUNT, ColumnType.TOTAL})
_ENCODER: Final = msgspec.json.Encoder(decimal_format="string")
_DECODE: Final = msgspec.json.Decoder().decode


def written_tables(projection: Projection) -> list[Table]:
    """All but rollups: what they look up is in the reader's tables, and sums are his to make."""
    return [table for table in projection.tables if table.rollup is None]


def schema_of(projection: Projection) -> bytes:
    """What a reader must know of the tables: names, kinds, keys, columns, folds."""
    content = {
        "projection": projection.name,
        "version": projection.version,
        "tables": [
            {
                "name": table.name,
                "kind": table.kind,
                "key": table.key,
                "columns": table.columns,
                "summary": table.summary,
            }
            for table in written_tables(projection)
        ],
    }
    return msgspec.json.format(_ENCODER.encode(content), indent=2)


def appended_lines(table: Table, rows: Sequence[Row]) -> bytes:
    """Raises ValueError or TypeError for a row that cannot be written."""
    return _lines({}, table.names, rows, _converters(table, range(len(table.columns))))


def current_lines(table: Table, current: CurrentRows) -> bytes:
    """Whole rows, then changes.  Raises ValueError or TypeError."""
    everything = range(len(table.columns))
    lines = _lines({OP: PUT}, table.names, current.put.values(), _converters(table, everything))
    width = range(len(table.key))
    for key, change in current.changed.items():
        places = (*width, *change)
        names = [table.names[place] for place in places]
        row = (*key, *change.values())
        lines += _lines({OP: CHANGE}, names, [row], _converters(table, places))
    return lines


def _converters(table: Table, places: Iterable[int]) -> list[tuple[int, Callable[[Any], Any]]]:
    """(place in the row, function) of the columns whose values JSON would not carry."""
    return [
        (place, str)
        for place, position in enumerate(places)
        if table.columns[position].type in _NUMBERS
    ]


def _lines(
    more: dict[str, str],
    names: Sequence[str],
    rows: Iterable[Sequence[Any]],
    converters: list[tuple[int, Callable[[Any], Any]]],
) -> bytes:
    objects = []
    for row in rows:
        values = list(row)
        for place, convert in converters:
            if values[place] is not None:
                values[place] = convert(values[place])
        objects.append(more | dict(zip(names, values, strict=True)))
    return _ENCODER.encode_lines(objects)


def rows_of(table: Table, lines: Iterable[bytes]) -> list[Row]:
    """What a reader has that follows these rules, by key.

    Raises KeyError for a change of a row that it does not have.
    """
    held: dict[Key, list[Any]] = {}
    folds = [COMBINE[column.fold] for column in table.columns]
    width = len(table.key)
    for line in lines:
        content = _DECODE(line)
        values = {
            position: _value(column.type, content[column.name])
            for position, column in enumerate(table.columns)
            if column.name in content
        }
        key = tuple(values[position] for position in range(width))
        if table.kind is TableKind.APPEND or (content[OP] == PUT and key not in held):
            held[key] = list(values.values())
            continue
        row = held[key]
        for position in list(values)[width:]:
            row[position] = folds[position](row[position], values[position])
    return [tuple(held[key]) for key in sorted(held)]


def _value(type: ColumnType, value: Any) -> Any:
    if value is None:
        return None
    if type in _NUMBERS:
        return int(value)
    return b64decode(value) if type is ColumnType.BYTES else value
