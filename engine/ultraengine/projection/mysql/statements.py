"""What a MySQL target remembers of its sets, and what the server's errors mean.

Pure.  Five tables of the engine's own; all of their rows are keyed by (projection, build), which
is one set.  Readers may see how far the tables have come: waiting for one's own write needs it.
"""

import enum
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from ultraengine.model.ids import Epoch, Offset
from ultraengine.projection.added_indexes import AddedIndex, added
from ultraengine.projection.engine_tables import (
    LEDGER,
    POSITIONS,
    REQUESTS,
    SETS,
    SLICES,
    engine_tables,
)
from ultraengine.projection.mysql.dialect import Flavor, MysqlDialect
from ultraengine.projection.mysql.values import instant_of, moment
from ultraengine.projection.target import (
    Checkpoint,
    Moved,
    Parked,
    ProjectionSet,
    SetState,
)

SET: Final = SETS.name
POSITION: Final = POSITIONS.name
LEDGER_ROWS: Final = LEDGER.name
REQUEST: Final = REQUESTS.name
SLICE: Final = SLICES.name

MARIADB_MIN: Final = (10, 6)
"""First version in which RENAME TABLE is atomic even when the server is killed in it."""
MYSQL_MIN: Final = (8, 0, 17)
"""First version with a collation by code point that does not pad."""

MODE: Final = (
    "STRICT_ALL_TABLES,ERROR_FOR_DIVISION_BY_ZERO,NO_ZERO_DATE,NO_ZERO_IN_DATE,"
    "NO_ENGINE_SUBSTITUTION"
)


def session(flavor: Flavor, lock_wait_s: int) -> tuple[str, ...]:
    """What a connection of ours is told first."""
    return (
        f"SET NAMES utf8mb4 COLLATE {flavor.value}",
        (
            f"SET SESSION sql_mode = '{MODE}', time_zone = '+00:00',"
            # Rows, and definitions: by default the server waits a day for a reader.
            f" innodb_lock_wait_timeout = {lock_wait_s}, lock_wait_timeout = {lock_wait_s}"
        ),
        # Each statement sees what is committed, and no gaps are locked.
        "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED",
    )


def create_engine_tables(dialect: MysqlDialect) -> tuple[str, ...]:
    """Make the tables of the engine's own where they are missing."""
    return tuple(
        statement.replace("CREATE TABLE", "CREATE TABLE IF NOT EXISTS", 1)
        for table in engine_tables
        for statement in dialect.create_table(table.name, table)
    )


VERSION: Final = "SELECT VERSION(), @@max_allowed_packet"
TAKE_LOCK: Final = "SELECT GET_LOCK(MD5(CONCAT(DATABASE(), '.', ?)), ?)"
GIVE_LOCK: Final = "SELECT RELEASE_LOCK(MD5(CONCAT(DATABASE(), '.', ?)))"
LOCK_HOLDER: Final = "SELECT IS_USED_LOCK(MD5(CONCAT(DATABASE(), '.', ?)))"
"""Id of the connection that holds a named lock, or null."""

_OF: Final = "`projection` = ? AND `build` = ?"
_SET_COLUMNS: Final = (
    "`projection`, `version`, `build`, `state`, `created_at`, `changed_at`, `paused`, `parked`"
)
ALL_SETS: Final = f"SELECT {_SET_COLUMNS} FROM {SET} ORDER BY `projection`, `build`"
ONE_SET: Final = f"SELECT {_SET_COLUMNS} FROM {SET} WHERE {_OF}"
TABLES_OF_SET: Final = f"SELECT `tables` FROM {SET} WHERE {_OF}"
PROJECTIONS: Final = f"SELECT DISTINCT `projection` FROM {SET}"
SERVING_SETS: Final = (
    f"SELECT `build` FROM {SET} WHERE `projection` = ? AND `state` = 'serving' ORDER BY `build`"
)
LOCK_SET: Final = f"SELECT `build` FROM {SET} WHERE {_OF} LOCK IN SHARE MODE"
REFRESH_SET: Final = (
    # Who writes has LOCK_SET: a late row must see all slices that are made, to touch those
    # behind it, also when somebody else (`ultra projection verify`) makes them.
    f"SELECT `build` FROM {SET} WHERE {_OF} FOR UPDATE"
)
CREATE_SET: Final = (
    f"INSERT IGNORE INTO {SET} (`projection`, `build`, `version`, `state`, `created_at`,"
    " `changed_at`, `paused`, `tables`) VALUES (?, ?, ?, 'building', ?, ?, FALSE, ?)"
)
RETIRE: Final = (
    f"UPDATE {SET} SET `state` = 'retired', `changed_at` = ?"
    " WHERE `projection` = ? AND `build` <> ? AND `state` = 'serving'"
)
SERVE: Final = f"UPDATE {SET} SET `state` = 'serving', `changed_at` = ? WHERE {_OF}"
PARK: Final = f"UPDATE {SET} SET `parked` = ? WHERE {_OF}"
PAUSE: Final = f"UPDATE {SET} SET `paused` = ? WHERE {_OF}"
ASK: Final = f"INSERT INTO {REQUEST} (`projection`, `request`, `asked_at`) VALUES (?, ?, ?)"
WAITING: Final = f"SELECT `projection`, `request`, `id` FROM {REQUEST} ORDER BY `id` FOR UPDATE"
TAKE_REQUESTS: Final = f"DELETE FROM {REQUEST} WHERE `id` <= ?"
FORGET: Final = tuple(
    f"DELETE FROM {table} WHERE {_OF}" for table in (POSITION, LEDGER_ROWS, SLICE, SET)
)
_POSITION: Final = "`log_offset`, `epoch`, `booked_at`, `chain`"
ALL_POSITIONS: Final = f"SELECT `shard`, {_POSITION} FROM {POSITION} WHERE {_OF} ORDER BY `shard`"
BEGIN_SHARD: Final = (
    f"INSERT IGNORE INTO {POSITION} (`projection`, `build`, `shard`, {_POSITION})"
    " VALUES (?, ?, ?, ?, ?, ?, ?)"
)
MOVE_SHARD: Final = (
    f"UPDATE {POSITION} SET `log_offset` = ?, `epoch` = ?, `booked_at` = ?, `chain` = ?"
    f" WHERE {_OF} AND `shard` = ? AND `log_offset` = ? AND `chain` = ?"
)
AUDIT: Final = (
    f"INSERT INTO {LEDGER_ROWS} (`projection`, `build`, `shard`, `log_end`, `version`, `epoch`,"
    " `booked_at`, `chain`, `rows`) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
TOUCH: Final = (
    # Not IGNORE: an update waits for a refresh that has just taken the slice.
    f"INSERT INTO {SLICE} (`projection`, `build`, `aggregate`, `slice`) VALUES (?, ?, ?, ?)"
    " ON DUPLICATE KEY UPDATE `slice` = VALUES(`slice`)"
)
TOUCHED: Final = (
    f"SELECT `slice` FROM {SLICE} WHERE {_OF} AND `aggregate` = ?"
    " ORDER BY `slice` LIMIT ? FOR UPDATE"
)
TAKE_SLICE: Final = f"DELETE FROM {SLICE} WHERE {_OF} AND `aggregate` = ? AND `slice` = ?"
SLICES_LEFT: Final = f"SELECT COUNT(*) FROM {SLICE} WHERE {_OF}"
RANGES: Final = (
    "SELECT DISTINCT partition_name FROM information_schema.partitions"
    " WHERE table_schema = DATABASE() AND table_name = ? AND partition_name IS NOT NULL"
)
VIEWS: Final = "SELECT table_name FROM information_schema.views WHERE table_schema = DATABASE()"


def version_of(text: str) -> tuple[Flavor, tuple[int, ...]]:
    """Which server, and its version, from what it says of itself: ``10.11.6-MariaDB-…``."""
    flavor = Flavor.MARIADB if "mariadb" in text.lower() else Flavor.MYSQL
    numbers = text.split("-", 1)[0].split(".")
    return flavor, tuple(int(one) for one in numbers if one.isdigit())


def too_old(flavor: Flavor, version: tuple[int, ...]) -> str | None:
    """Why a server cannot be used."""
    least = MARIADB_MIN if flavor is Flavor.MARIADB else MYSQL_MIN
    if version >= least:
        return None
    return f"the server is version {_dotted(version)}; {_dotted(least)} is the oldest supported"


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))


def set_of(row: Sequence[Any]) -> ProjectionSet:
    """A row of `ALL_SETS`."""
    projection, version, build, state, created_at, changed_at, paused, parked = row
    return ProjectionSet(
        projection, version, build, SetState(state), instant_of(created_at),
        instant_of(changed_at),
        None if parked is None else msgspec.json.decode(parked, type=Parked),
        bool(paused),
    )  # fmt: skip


def added_of(row: Sequence[Any]) -> AddedIndex:
    """A row of what `added_indexes.select` finds."""
    projection, name, table, members, created_at = row
    return added(projection, name, table, members, instant_of(created_at))


def parked_text(parked: Parked | None) -> str | None:
    """What stands in the column."""
    return None if parked is None else msgspec.json.encode(parked).decode()


def checkpoint_of(row: Sequence[Any]) -> Checkpoint:
    """A row of `ALL_POSITIONS` without the shard."""
    log_offset, epoch, booked_at, chain = row
    return Checkpoint(Offset(log_offset), Epoch(epoch), instant_of(booked_at), bytes(chain))


def audit_row(of: ProjectionSet, moved: Moved, rows: int) -> tuple[Any, ...]:
    """Parameters of `AUDIT`."""
    after = moved.after
    return (of.projection, of.build, moved.shard, after.offset, of.version, after.epoch,
            moment(after.time), after.chain, rows)  # fmt: skip


class Verdict(enum.Enum):
    """What to do about an error of the server."""

    REFUSED = "refused"
    """The rows are wrong: park."""
    GONE = "gone"
    """The set has been dropped meanwhile: stop."""
    AWAY = "away"
    """Try again later."""


NO_SUCH_TABLE: Final = 1146
HELD: Final = 1205
"""Somebody holds what was asked for, longer than we may wait."""
_REFUSING: Final = frozenset({
    1048,  # null in a column without nulls
    1062, 1586,  # a duplicate
    1153,  # larger than a packet may be
    1264, 1690,  # a number out of its range
    1265, 1292, 1366, 1411, 1406,  # a value that is none of its type, or too long
    1364,  # no value for a column without nulls
    1451, 1452,  # a foreign key, of a user's own
    1526, 1748,  # no partition takes it
    1644,  # a trigger of a user's own says no
    3819, 4025,  # a CHECK, of MySQL and of MariaDB
})  # fmt: skip


def verdict(code: int) -> Verdict:
    """By the number of the error.  Unknown ones are tried again: that loses nothing."""
    if code == NO_SUCH_TABLE:
        return Verdict.GONE
    return Verdict.REFUSED if code in _REFUSING else Verdict.AWAY
