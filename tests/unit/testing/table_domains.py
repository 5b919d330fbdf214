"""Domains with tables, one right and each of the others wrong in one way.  Imported by name."""

import time
from typing import Any

from tests.unit.testing.right_domains import Added, Alarms, Right

from ultraengine.model.projection import (
    Check,
    Column,
    ColumnType,
    Fold,
    Table,
    TableKind,
)

TENANT = Column(name="tenant", type=ColumnType.TEXT)
KEY = Column(name="key", type=ColumnType.TEXT)
ADDITION = Table(
    name="addition",
    kind=TableKind.APPEND,
    key=("tenant", "key", "log_offset"),
    columns=(
        TENANT,
        KEY,
        Column(name="log_offset", type=ColumnType.INTEGER),
        Column(name="n", type=ColumnType.AMOUNT),
        Column(name="said", type=ColumnType.JSON),
        Column(name="flag", type=ColumnType.BOOLEAN),
        Column(name="raw", type=ColumnType.BYTES, nullable=True, length=4),
        Column(name="day", type=ColumnType.DATE),
        Column(name="time", type=ColumnType.TIME),
    ),
)
TALLY = Table(
    name="tally",
    kind=TableKind.CURRENT,
    key=("tenant", "key"),
    columns=(
        TENANT,
        KEY,
        Column(name="total", type=ColumnType.TOTAL),
        Column(name="additions", type=ColumnType.INTEGER, fold=Fold.SUM),
        Column(name="last_word", type=ColumnType.TEXT, length=5),
    ),
    checks=(Check("total", "{total} <= 30"),),
)


class TallyTables:
    """Right."""

    name = "tally"
    version = 1
    tables = (ADDITION, TALLY)
    aggregates = ()

    def project(self, event: Added, at: Any, rows: Any) -> None:
        rows.append("addition", self.addition(event, at))
        rows.putter("tally")((at.tenant, at.key, event.total, 1, "so"))
        rows.change("tally", (at.tenant, at.key), {"last_word": self.word(event)})
        rows.changer("tally", ("total",))((at.tenant, at.key), (event.total,))

    def addition(self, event: Added, at: Any) -> tuple[Any, ...]:
        return (
            at.tenant, at.key, at.offset, event.n, '{"a":1}', event.n > 0, b"\0",
            at.time // 86_400_000_000, at.time,
        )  # fmt: skip

    def word(self, event: Added) -> str:
        return "plus" if event.n > 0 else "minus"


class Tallies(Right):
    def __init__(self, tables: Any) -> None:
        super().__init__()
        self.projections = tables


class WrongType(TallyTables):
    def addition(self, event: Added, at: Any) -> tuple[Any, ...]:
        row = super().addition(event, at)
        return (*row[:3], float(event.n), *row[4:])


class NullThere(TallyTables):
    def addition(self, event: Added, at: Any) -> tuple[Any, ...]:
        return (*super().addition(event, at)[:-1], None)


class WrongWidth(TallyTables):
    def addition(self, event: Added, at: Any) -> tuple[Any, ...]:
        return super().addition(event, at)[:-1]


class LooseJson(TallyTables):
    def addition(self, event: Added, at: Any) -> tuple[Any, ...]:
        row = super().addition(event, at)
        return (*row[:4], '{"a": 1}', *row[5:])


class TooLong(TallyTables):
    def word(self, event: Added) -> str:
        return "too long"


class Remembers(TallyTables):
    def __init__(self) -> None:
        self.seen = 0

    def word(self, event: Added) -> str:
        self.seen += 1
        return str(self.seen % 1_000)


class ChangesEvents(TallyTables):
    def word(self, event: Added) -> str:
        event.n += 1
        return "x"


class LooksAtTheClock(TallyTables):
    def word(self, event: Added) -> str:
        return str(time.time_ns() % 10)


class ShowsHashes(TallyTables):
    def word(self, event: Added) -> str:
        return str(hash(str(event.n)) % 100)


class WritesTwice(TallyTables):
    def project(self, event: Added, at: Any, rows: Any) -> None:
        super().project(event, at, rows)
        rows.append("addition", self.addition(event, at))


class ChangesWhatIsNotThere(TallyTables):
    def project(self, event: Added, at: Any, rows: Any) -> None:
        rows.change("tally", (at.tenant, at.key), {"additions": 1})


class BreaksItsCheck(TallyTables):
    def project(self, event: Added, at: Any, rows: Any) -> None:
        rows.append("addition", self.addition(event, at))
        rows.put("tally", (at.tenant, at.key, 31, 1, "so"))


class WritesNothing(TallyTables):
    def project(self, event: Added, at: Any, rows: Any) -> None:
        rows.put("tally", (at.tenant, at.key, event.total, 1, "so"))


class KeepsTimers:
    """Right: of events that timers cause too."""

    name = "alarms"
    version = 1
    tables = (
        Table(
            name="ring",
            kind=TableKind.APPEND,
            key=("tenant", "key", "log_offset", "event"),
            columns=(
                TENANT,
                KEY,
                Column(name="log_offset", type=ColumnType.INTEGER),
                Column(name="event", type=ColumnType.INTEGER),
                Column(name="principal", type=ColumnType.TEXT),
            ),
        ),
    )
    aggregates = ()

    def project(self, event: Any, at: Any, rows: Any) -> None:
        rows.appender("ring")((at.tenant, at.key, at.offset, at.index, at.principal))


RIGHT = Tallies((TallyTables(),))
NOTHING_DECLARED = Right()
WRONG_TYPE = Tallies((WrongType(),))
NULL_THERE = Tallies((NullThere(),))
WRONG_WIDTH = Tallies((WrongWidth(),))
LOOSE_JSON = Tallies((LooseJson(),))
TOO_LONG = Tallies((TooLong(),))
REMEMBERS = Tallies((Remembers(),))
CHANGES_EVENTS = Tallies((ChangesEvents(),))
LOOKS_AT_THE_CLOCK = Tallies((LooksAtTheClock(),))
SHOWS_HASHES = Tallies((ShowsHashes(),))
WRITES_TWICE = Tallies((WritesTwice(),))
CHANGES_WHAT_IS_NOT_THERE = Tallies((ChangesWhatIsNotThere(),))
BREAKS_ITS_CHECK = Tallies((BreaksItsCheck(),))
WRITES_NOTHING = Tallies((WritesNothing(),))


class RingingAlarms(Alarms):
    projections = (KeepsTimers(),)


TIMERS = RingingAlarms()
SAME_NAMES = Tallies((TallyTables(), TallyTables()))
