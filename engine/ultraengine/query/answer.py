"""From rows to the answer of a query, and its body."""

import hashlib
from collections.abc import Sequence
from typing import Any

from ultraengine.model.errors import EngineError
from ultraengine.model.projection import Column, Row, Value
from ultraengine.model.reads import Computed, Read
from ultraengine.query.cursor import Cursors
from ultraengine.query.plan import Asked, context
from ultraengine.query.sql import Statement
from ultraengine.query.values import show


def answer(
    asked: Asked,
    ran: Sequence[Statement],
    found: Sequence[Sequence[Row]],
    cursors: Cursors,
) -> Any:
    """What the client gets, as a value of JSON and msgpack; `found`: loaded rows by statement.

    Raises NOT_FOUND, TOO_LARGE, and what the domain's ``finish`` raises.
    """
    read = asked.route.read
    if isinstance(read, Computed):
        return _computed(asked, read, ran, found)
    columns, rows = ran[0].columns, found[0]
    if read.one:
        if not rows:
            raise EngineError(f"no such row in {asked.route.name}", code="NOT_FOUND")
        return shown(read, columns, rows[0])
    page = rows[: asked.limit]
    cursor = None
    if len(rows) > asked.limit:
        cursor = cursors.make(context(asked), _place(asked, columns, page[-1]))
    return {"items": [shown(read, columns, row) for row in page], "next_cursor": cursor}


def shown(read: Read, columns: Sequence[Column], row: Row) -> dict[str, Any]:
    """The shown columns of a row; others were fetched for the cursor and come behind them."""
    return {
        column.name: show(value, column.type)
        for column, value in zip(columns[: len(read.shown)], row, strict=False)
    }


def _place(asked: Asked, columns: Sequence[Column], row: Row) -> tuple[Value, ...]:
    assert asked.order is not None  # noqa: S101  (only lists have cursors)
    by_name = {column.name: value for column, value in zip(columns, row, strict=True)}
    return tuple(by_name[name] for name in asked.order.columns)


def _computed(
    asked: Asked,
    read: Computed,
    ran: Sequence[Statement],
    found: Sequence[Sequence[Row]],
) -> Any:
    rowed: dict[str, list[dict[str, Any]]] = {}
    for statement, rows in zip(ran, found, strict=True):
        if len(rows) > statement.rows_max:
            raise EngineError(
                f"the answer has more than {statement.rows_max} rows; ask for less",
                code="TOO_LARGE",
            )
        if not rows and statement.required:
            raise EngineError(
                f"nothing there: {asked.route.name} has no {statement.name}", code="NOT_FOUND"
            )
        names = [column.name for column in statement.columns]
        rowed[statement.name] = [dict(zip(names, row, strict=True)) for row in rows]
    return read.finish(rowed, asked.values)


def entity_tag(body: bytes) -> str:
    """The strong ETag of a body: the same bytes, the same tag, wherever the tables stand."""
    return f'"{hashlib.blake2b(body, digest_size=12).hexdigest()}"'
