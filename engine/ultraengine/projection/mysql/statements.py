"""What a MySQL target remembers of its sets, and what the server's errors mean.

Pure.  Five tables of the engine's own; all of their rows are keyed by (projection, build), which
is one set.  Readers may see how far the tables have come: waiting for one's own write needs it.
"""

import enum
from collections.abc import Sequence
from typing import Any, Final

from ultraengine.model.ids import Epoch, Instant, Offset, ShardId
from ultraengine.projection.mysql.dialect import Flavor
from ultraengine.projection.target import (
    LEDGER_TABLE,
    Checkpoint,
    Parked,
    ProjectionSet,
    SetState,
)

SET: Final = "ultra_projection_set"
POSITION: Final = "ultra_projection_position"
REQUEST: Final = "ultra_projection_request"
SLICE: Final = "ultra_projection_slice"

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


def engine_tables(flavor: Flavor) -> tuple[str, ...]:
    """The tables of the engine's own."""
    end = (
        f" ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARACTER SET utf8mb4 COLLATE {flavor.value}"
    )
    of = "projection VARCHAR(24) NOT NULL, build BIGINT NOT NULL"
    at = f"{of}, shard BIGINT NOT NULL, log_end BIGINT NOT NULL, epoch BIGINT NOT NULL"
    return tuple(
        f"CREATE TABLE IF NOT EXISTS {name} ({columns}){end}"
        for name, columns in (
            (SET, f"{of}, version BIGINT NOT NULL, state VARCHAR(16) NOT NULL,"
             " created_at BIGINT NOT NULL, changed_at BIGINT NOT NULL,"
             " paused BOOLEAN NOT NULL DEFAULT FALSE, parked_shard BIGINT, parked_offset BIGINT,"
             " parked_index BIGINT, parked_reason LONGTEXT, parked_at BIGINT,"
             " PRIMARY KEY (projection, build)"),
            (POSITION, f"{at}, booked_at BIGINT NOT NULL, chain VARBINARY(64) NOT NULL,"
             " PRIMARY KEY (projection, build, shard)"),
            (LEDGER_TABLE, f"{at}, booked_at DATETIME(6) NOT NULL, chain VARBINARY(64) NOT NULL,"
             " `rows` BIGINT NOT NULL, PRIMARY KEY (projection, build, shard, log_end)"),
            (REQUEST, "id BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY,"
             " projection VARCHAR(24) NOT NULL, request VARCHAR(24) NOT NULL,"
             " asked_at BIGINT NOT NULL"),
            (SLICE, f"{of}, aggregate VARCHAR(24) NOT NULL, slice DATE NOT NULL,"
             " PRIMARY KEY (projection, build, aggregate, slice)"),
        )
    )  # fmt: skip


VERSION: Final = "SELECT VERSION(), @@max_allowed_packet"
TAKE_LOCK: Final = "SELECT GET_LOCK(MD5(CONCAT(DATABASE(), '.', ?)), ?)"
GIVE_LOCK: Final = "SELECT RELEASE_LOCK(MD5(CONCAT(DATABASE(), '.', ?)))"
LOCK_HOLDER: Final = "SELECT IS_USED_LOCK(MD5(CONCAT(DATABASE(), '.', ?)))"
"""Id of the connection that holds a named lock, or null."""

_SET_COLUMNS: Final = (
    "projection, version, build, state, created_at, changed_at, paused,"
    " parked_shard, parked_offset, parked_index, parked_reason, parked_at"
)
SETS: Final = f"SELECT {_SET_COLUMNS} FROM {SET} ORDER BY projection, build"
ONE_SET: Final = f"SELECT {_SET_COLUMNS} FROM {SET} WHERE projection = ? AND build = ?"
LOCK_SET: Final = (
    f"SELECT build FROM {SET} WHERE projection = ? AND build = ? LOCK IN SHARE MODE"
)
CREATE_SET: Final = (
    f"INSERT IGNORE INTO {SET} (projection, version, build, state, created_at, changed_at)"
    " VALUES (?, ?, ?, 'building', ?, ?)"
)
RETIRE: Final = (
    f"UPDATE {SET} SET state = 'retired', changed_at = ?"
    " WHERE projection = ? AND build <> ? AND state = 'serving'"
)
SERVE: Final = (
    f"UPDATE {SET} SET state = 'serving', changed_at = ?"
    " WHERE projection = ? AND build = ? AND state <> 'serving'"
)
PARK: Final = (
    f"UPDATE {SET} SET parked_shard = ?, parked_offset = ?, parked_index = ?, parked_reason = ?,"
    " parked_at = ? WHERE projection = ? AND build = ?"
)
PAUSE: Final = f"UPDATE {SET} SET paused = ? WHERE projection = ? AND build = ?"
ASK: Final = f"INSERT INTO {REQUEST} (projection, request, asked_at) VALUES (?, ?, ?)"
REQUESTS: Final = f"SELECT projection, request, id FROM {REQUEST} ORDER BY id FOR UPDATE"
TAKE_REQUESTS: Final = f"DELETE FROM {REQUEST} WHERE id <= ?"
FORGET: Final = tuple(
    f"DELETE FROM {table} WHERE projection = ? AND build = ?"
    for table in (POSITION, LEDGER_TABLE, SLICE, SET)
)
POSITIONS: Final = (
    f"SELECT shard, log_end, epoch, booked_at, chain FROM {POSITION}"
    " WHERE projection = ? AND build = ? ORDER BY shard"
)
BEGIN_SHARD: Final = (
    f"INSERT IGNORE INTO {POSITION} (projection, build, shard, log_end, epoch, booked_at, chain)"
    " VALUES (?, ?, ?, ?, ?, ?, ?)"
)
MOVE_SHARD: Final = (
    f"UPDATE {POSITION} SET log_end = ?, epoch = ?, booked_at = ?, chain = ?"
    " WHERE projection = ? AND build = ? AND shard = ? AND log_end = ? AND chain = ?"
)
AUDIT: Final = (
    f"INSERT INTO {LEDGER_TABLE}"
    " (projection, build, shard, log_end, epoch, booked_at, chain, `rows`)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
)
TOUCH: Final = (
    # Not IGNORE alone: an update waits for a refresh that has just taken the slice.
    f"INSERT INTO {SLICE} (projection, build, aggregate, slice) VALUES (?, ?, ?, ?)"
    " ON DUPLICATE KEY UPDATE slice = VALUES(slice)"
)
TOUCHED: Final = (
    f"SELECT slice FROM {SLICE} WHERE projection = ? AND build = ? AND aggregate = ?"
    " ORDER BY slice LIMIT ? FOR UPDATE"
)
TAKE_SLICE: Final = (
    f"DELETE FROM {SLICE} WHERE projection = ? AND build = ? AND aggregate = ? AND slice = ?"
)
SLICES_LEFT: Final = f"SELECT COUNT(*) FROM {SLICE} WHERE projection = ? AND build = ?"
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
    """A row of `SETS`."""
    projection, version, build, state, created_at, changed_at, paused = row[:7]
    shard, offset, index, reason, parked_at = row[7:]
    parked = None
    if reason is not None:
        parked = Parked(ShardId(shard), Offset(offset), index, reason, Instant(parked_at))
    return ProjectionSet(
        projection, version, build, SetState(state), Instant(created_at), Instant(changed_at),
        parked, bool(paused),
    )  # fmt: skip


def checkpoint_of(row: Sequence[Any]) -> Checkpoint:
    """A row of `POSITIONS` without the shard."""
    log_end, epoch, booked_at, chain = row
    return Checkpoint(Offset(log_end), Epoch(epoch), Instant(booked_at), bytes(chain))


class Verdict(enum.Enum):
    """What to do about an error of the server."""

    REFUSED = "refused"
    """The rows are wrong: park."""
    GONE = "gone"
    """The set has been dropped meanwhile: stop."""
    AWAY = "away"
    """Try again later."""


NO_SUCH_TABLE: Final = 1146
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
