"""What a PostgreSQL target remembers of its sets, and what the server's errors mean.

Pure.  The tables are those of `engine_tables`; (projection, build) names a set.
Readers may see how far the tables have come: waiting for one's own write needs it.
"""

import enum
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec

from ultraengine.model.ids import Epoch, Instant, Offset
from ultraengine.projection import engine_tables
from ultraengine.projection.added_indexes import AddedIndex, added
from ultraengine.projection.engine_tables import INDEXES, POSITIONS, REQUESTS, SETS, SLICES
from ultraengine.projection.target import Checkpoint, Parked, ProjectionSet, SetState

VERSION_MIN: Final = 15
"""First version in which a view can run with the rights of who asks (``security_invoker``)."""

SET, POSITION, LEDGER = SETS.name, POSITIONS.name, engine_tables.LEDGER.name
REQUEST, SLICE = REQUESTS.name, SLICES.name
READABLE: Final = (SET, POSITION, LEDGER, SLICE)
"""What a reader may see besides the projections."""
_ID: Final = "projection = $1 AND build = $2"

ENGINE_LOCK: Final = "SELECT pg_advisory_xact_lock(hashtext('ultraengine'))"
HAS_TABLE: Final = "SELECT to_regclass($1) IS NOT NULL"
ALL_SETS: Final = f"SELECT * FROM {SET} ORDER BY projection, build"
CREATE_SET: Final = (
    f"INSERT INTO {SET}"
    " (projection, build, version, state, created_at, changed_at, paused, tables)"
    " VALUES ($1, $2, $3, 'building', $4, $4, FALSE, $5) ON CONFLICT DO NOTHING"
)
ALL_ADDED: Final = f"SELECT * FROM {INDEXES.name} ORDER BY projection, name"
LOCK_SET: Final = f"SELECT * FROM {SET} WHERE {_ID} FOR UPDATE"
WRITE_SET: Final = (
    # A refresh elsewhere (`ultra projection verify`) has LOCK_SET: it may be making slices that
    # a late row touches, and that `PostgresDialect.touch_later` would not see yet.
    f"SELECT FROM {SET} WHERE {_ID} FOR SHARE"
)
RETIRE: Final = (
    f"UPDATE {SET} SET state = 'retired', changed_at = $3"
    " WHERE projection = $1 AND build <> $2 AND state = 'serving' RETURNING tables"
)
SERVE: Final = f"UPDATE {SET} SET state = 'serving', changed_at = $3 WHERE {_ID}"
PARK: Final = f"UPDATE {SET} SET parked = $3 WHERE {_ID}"
PAUSE: Final = f"UPDATE {SET} SET paused = $3 WHERE {_ID}"
ASK: Final = (
    f"INSERT INTO {REQUEST} (id, projection, request, asked_at)"
    f" VALUES (nextval('{REQUEST}_id'), $1, $2, $3)"
)
REQUEST_IDS: Final = f"CREATE SEQUENCE IF NOT EXISTS {REQUEST}_id"
TAKE_REQUESTS: Final = (
    f"WITH taken AS (DELETE FROM {REQUEST} RETURNING id, projection, request)"
    " SELECT projection, request FROM taken ORDER BY id"
)
FORGET: Final = tuple(
    f"DELETE FROM {table} WHERE {_ID}" for table in (POSITION, LEDGER, SLICE, SET)
)

ALL_POSITIONS: Final = f"SELECT * FROM {POSITION} WHERE {_ID} ORDER BY shard"
BEGIN_SHARD: Final = (
    f"INSERT INTO {POSITION} (projection, build, shard, log_offset, epoch, booked_at, chain)"
    f" SELECT projection, build, $3, $4, $5, $6, $7 FROM {SET} WHERE {_ID} ON CONFLICT DO NOTHING"
)
MOVE_SHARD: Final = (
    f"UPDATE {POSITION} SET log_offset = $4, epoch = $5, booked_at = $6, chain = $7"
    f" WHERE {_ID} AND shard = $3 AND log_offset = $8 AND chain = $9"
)
AUDIT: Final = (
    f"INSERT INTO {LEDGER}"
    " (projection, build, shard, log_end, version, epoch, booked_at, chain, rows)"
    " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)"
)
TOUCH: Final = (
    # DO UPDATE waits for a refresh that has just taken the slice, DO NOTHING would lose it.
    f"INSERT INTO {SLICE} (projection, build, aggregate, slice)"
    " SELECT $1::varchar, $2, $3::varchar, DATE '1970-01-01' + day FROM unnest($4::int[]) AS day"
    " ORDER BY day"
    " ON CONFLICT (projection, build, aggregate, slice) DO UPDATE SET slice = excluded.slice"
)
TAKE_SLICES: Final = (
    f"DELETE FROM {SLICE} WHERE {_ID} AND aggregate = $3 AND slice IN"
    f" (SELECT slice FROM {SLICE} WHERE {_ID} AND aggregate = $3 ORDER BY slice LIMIT $4)"
    " RETURNING slice"
)
SLICES_LEFT: Final = f"SELECT count(*) FROM {SLICE} WHERE {_ID}"
IS_PARTITIONED: Final = (
    "SELECT relkind = 'p' FROM pg_class"
    " WHERE relname = $1 AND relnamespace = current_schema()::regnamespace"
)
ROWS_SEEN: Final = (
    # -1 = never analyzed.
    "SELECT reltuples FROM pg_class"
    " WHERE relname = $1 AND relnamespace = current_schema()::regnamespace"
)
HAS_TIMESCALE: Final = "SELECT EXISTS (SELECT FROM pg_extension WHERE extname = 'timescaledb')"
PARTITIONS: Final = (
    "SELECT child.relname, pg_get_expr(child.relpartbound, child.oid) AS bounds"
    " FROM pg_inherits JOIN pg_class child ON child.oid = inhrelid"
    " JOIN pg_class parent ON parent.oid = inhparent"
    " WHERE parent.relname = $1 AND parent.relnamespace = current_schema()::regnamespace"
)
END_SESSIONS: Final = (
    # Five seconds are what the server is waited for; false = it still runs.
    "SELECT coalesce(bool_and(pg_terminate_backend(pid, 5000)), TRUE) FROM pg_stat_activity"
    " WHERE application_name = $1 AND pid <> pg_backend_pid()"
)


_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


def moment(at: Instant) -> datetime:
    """An instant as a parameter.  Raises OverflowError beyond the year 9999."""
    return _EPOCH + timedelta(microseconds=at)


def instant(at: datetime) -> Instant:
    """Inverse of `moment`."""
    return Instant((at - _EPOCH) // _MICROSECOND)


def set_of(row: Mapping[str, Any]) -> ProjectionSet:
    """A row of `ALL_SETS`."""
    parked = row["parked"]
    return ProjectionSet(
        row["projection"],
        row["version"],
        row["build"],
        SetState(row["state"]),
        instant(row["created_at"]),
        instant(row["changed_at"]),
        None if parked is None else msgspec.json.decode(parked, type=Parked),
        row["paused"],
    )


def parked_text(parked: Parked | None) -> str | None:
    """As it is stored."""
    return None if parked is None else msgspec.json.encode(parked).decode()


def checkpoint_of(row: Mapping[str, Any]) -> Checkpoint:
    """A row of `ALL_POSITIONS`."""
    return Checkpoint(
        Offset(row["log_offset"]), Epoch(row["epoch"]), instant(row["booked_at"]), row["chain"]
    )


def added_of(row: Mapping[str, Any]) -> AddedIndex:
    """A row of `ALL_ADDED`."""
    at = instant(row["created_at"])
    return added(row["projection"], row["name"], row["indexed"], row["members"], at)


class Verdict(enum.Enum):
    """What to do about an error of the server."""

    REFUSED = "refused"
    """The rows are wrong: park."""
    GONE = "gone"
    """The set has been dropped meanwhile: stop."""
    AWAY = "away"
    """Try again later."""


_REFUSING: Final = {
    "0A",  # a feature that it does not have
    "22",  # a value out of its range
    "23",  # a CHECK, a duplicate, a null
    "44",
    "54",  # beyond its limits, as an index row that is too long
}


def verdict(sqlstate: str) -> Verdict:
    """By the class of the error.  Unknown ones are tried again: that loses nothing."""
    if sqlstate == "42P01":
        return Verdict.GONE
    return Verdict.REFUSED if sqlstate[:2] in _REFUSING else Verdict.AWAY
