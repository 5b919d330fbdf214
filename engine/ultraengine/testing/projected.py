"""Rows of the events that a rehearsal has recorded, without a log, a feed or a database."""

from collections.abc import Iterator
from typing import Any, Final

import msgspec
import xxhash

from ultraengine.execution.system import TICK, system_data
from ultraengine.model.command import SYSTEM_DOMAIN, Command
from ultraengine.model.errors import InvariantBroken
from ultraengine.model.ids import Epoch, Instant, Offset, ShardId
from ultraengine.model.outcome import Outcome, Status
from ultraengine.model.projection import (
    AMOUNT_END,
    TOTAL_END,
    Column,
    ColumnType,
    Projecting,
    Projection,
    Table,
    check_projection,
)
from ultraengine.projection.fold import Batch
from ultraengine.testing.rehearsal import Rehearsal

WORD_END: Final = 1 << 63


class Place:
    """Implements `model.projection.Source`."""

    def __init__(self, shard: int, epoch: int, command: Command, outcome: Outcome, time: Instant):
        self.shard, self.epoch = ShardId(shard), Epoch(epoch)
        self.offset, self.index, self.time = Offset(outcome.offset), 0, time
        self.tenant, self.key = command.tenant, command.key
        self.type, self.id, self.principal = command.type, command.id, command.principal
        self.correlation_id = command.correlation_id


def projections_of(domain: Any) -> list[Projection]:
    """What a domain declares, checked.  Raises `InvariantBroken`."""
    found = list(domain.projections) if isinstance(domain, Projecting) else []
    for projection in found:
        check_projection(projection)
    if len({projection.name for projection in found}) != len(found):
        raise InvariantBroken("projections have names of their own", domain=domain.name)
    return found


def happened(rehearsal: Rehearsal) -> Iterator[tuple[Any, Place]]:
    """Every recorded event of the first domain with its place; timers' events with their own.

    The place is one object, as it is for a worker.
    """
    registry = rehearsal.registry
    name = registry.domains[0].name
    for command, outcome, time in rehearsal.log:
        place = Place(0, rehearsal.epoch, command, outcome, time)
        if outcome.status != Status.ACCEPTED:
            continue
        if command.type == TICK and system_data(command).domain == name:
            for index, (tenant, key, event) in enumerate(
                registry.expiries[0].decode(outcome.events)
            ):
                place.tenant, place.key, place.index = tenant, key, index
                yield event, place
        elif command.type.partition(".")[0] != SYSTEM_DOMAIN:
            for index, event in enumerate(registry.events[0].decode(outcome.events)):
                place.index = index
                yield event, place


def rows_digest(batch: Batch) -> str:
    """Digest of all rows of a batch in their order."""
    content = [[list(map(_portable, row)) for row in rows] for rows in batch.appended.values()] + [
        [list(map(_portable, row)) for row in current.put.values()]
        + [
            [list(map(_portable, key)), [[at, _portable(value)] for at, value in change.items()]]
            for key, change in current.changed.items()
        ]
        for current in batch.current.values()
    ]
    content += [[list(map(_portable, row)) for row in taken.rows] for taken in batch.taken.values()]
    return xxhash.xxh3_128_hexdigest(msgspec.msgpack.encode(content))


def _portable(value: Any) -> Any:
    """msgpack ends at 64 bits."""
    return f"{value:+d}" if type(value) is int and not -WORD_END <= value < WORD_END else value


def type_mistake(table: Table, column: Column, value: Any) -> str:
    """What is wrong with a value of a column, if anything."""
    wanted, fits = _KINDS[column.type]
    if value is None:
        problem = "" if column.nullable else "is null"
    elif type(value) is not wanted:
        problem = f"is {type(value).__name__}, not {wanted.__name__}"
    else:
        problem = "" if fits(column, value) else f"does not fit: {value!r}"
    return f"{table.name}.{column.name} {problem}" if problem else ""


def _text_fits(column: Column, value: str) -> bool:
    return len(value) <= column.length and "\0" not in value


def _json_fits(_column: Column, value: str) -> bool:
    """Whether it is JSON, written as compactly as can be."""
    return msgspec.json.format(value, indent=-1) == value


_KINDS: Final[dict[ColumnType, tuple[type, Any]]] = {
    ColumnType.INTEGER: (int, lambda _, value: -WORD_END <= value < WORD_END),
    ColumnType.AMOUNT: (int, lambda _, value: abs(value) < AMOUNT_END),
    ColumnType.TOTAL: (int, lambda _, value: abs(value) < TOTAL_END),
    ColumnType.TEXT: (str, _text_fits),
    ColumnType.TIME: (int, lambda _, value: -WORD_END <= value < WORD_END),
    ColumnType.DATE: (int, lambda _, value: -(10**6) < value < 3 * 10**6),
    ColumnType.BOOLEAN: (bool, lambda _, _value: True),
    ColumnType.JSON: (str, _json_fits),
    ColumnType.BYTES: (bytes, lambda column, value: len(value) <= column.length),
}
