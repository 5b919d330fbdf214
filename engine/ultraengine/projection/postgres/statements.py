"""What a PostgreSQL target remembers of its sets, and what the server's errors mean.

Pure.  Five tables of the engine's own; all of their rows are keyed by (projection, build), which
is one set.  Readers may see how far the tables have come: waiting for one's own write needs it.
"""

import enum
from collections.abc import Mapping
from typing import Any, Final

from ultraengine.model.ids import Epoch, Instant, Offset, ShardId
from ultraengine.projection.target import (
    LEDGER_TABLE,
    Checkpoint,
    Parked,
    ProjectionSet,
    SetState,
)

VERSION_MIN: Final = 15
"""First version in which a view can run with the rights of who asks (``security_invoker``)."""

SET: Final = "ultra_projection_set"
POSITION: Final = "ultra_projection_position"
REQUEST: Final = "ultra_projection_request"
SLICE: Final = "ultra_projection_slice"

ENGINE_TABLES: Final = (
    f"""CREATE TABLE IF NOT EXISTS {SET} (
  projection text NOT NULL, version bigint NOT NULL, build bigint NOT NULL, state text NOT NULL,
  created_at bigint NOT NULL, changed_at bigint NOT NULL, paused boolean NOT NULL DEFAULT FALSE,
  parked_shard bigint, parked_offset bigint, parked_index bigint, parked_reason text,
  parked_at bigint, PRIMARY KEY (projection, build))""",
    f"""CREATE TABLE IF NOT EXISTS {POSITION} (
  projection text NOT NULL, build bigint NOT NULL, shard bigint NOT NULL, log_end bigint NOT NULL,
  epoch bigint NOT NULL, booked_at bigint NOT NULL, chain bytea NOT NULL,
  PRIMARY KEY (projection, build, shard)) WITH (fillfactor = 50)""",
    f"""CREATE TABLE IF NOT EXISTS {LEDGER_TABLE} (
  projection text NOT NULL, build bigint NOT NULL, shard bigint NOT NULL, log_end bigint NOT NULL,
  epoch bigint NOT NULL, booked_at timestamptz NOT NULL, chain bytea NOT NULL,
  rows bigint NOT NULL, PRIMARY KEY (projection, build, shard, log_end))""",
    f"""CREATE TABLE IF NOT EXISTS {REQUEST} (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, projection text NOT NULL,
  request text NOT NULL, asked_at bigint NOT NULL)""",
    f"""CREATE TABLE IF NOT EXISTS {SLICE} (
  projection text NOT NULL, build bigint NOT NULL, aggregate text NOT NULL, slice date NOT NULL,
  PRIMARY KEY (projection, build, aggregate, slice))""",
)
READABLE: Final = (SET, POSITION, LEDGER_TABLE)
"""What a reader may see besides the projections."""

SETS: Final = f"SELECT * FROM {SET} ORDER BY projection, build"
CREATE_SET: Final = (
    f"INSERT INTO {SET} (projection, version, build, state, created_at, changed_at)"
    " VALUES ($1, $2, $3, $4, $5, $5) ON CONFLICT DO NOTHING"
)
LOCK_SET: Final = f"SELECT * FROM {SET} WHERE projection = $1 AND build = $2 FOR UPDATE"
RETIRE: Final = (
    f"UPDATE {SET} SET state = 'retired', changed_at = $3"
    " WHERE projection = $1 AND build <> $2 AND state = 'serving'"
)
SERVE: Final = (
    f"UPDATE {SET} SET state = 'serving', changed_at = $3"
    " WHERE projection = $1 AND build = $2 AND state <> 'serving'"
)
PARK: Final = (
    f"UPDATE {SET} SET parked_shard = $3, parked_offset = $4, parked_index = $5,"
    " parked_reason = $6, parked_at = $7 WHERE projection = $1 AND build = $2"
)
PAUSE: Final = f"UPDATE {SET} SET paused = $3 WHERE projection = $1 AND build = $2"
ASK: Final = f"INSERT INTO {REQUEST} (projection, request, asked_at) VALUES ($1, $2, $3)"
TAKE_REQUESTS: Final = (
    f"WITH taken AS (DELETE FROM {REQUEST} RETURNING id, projection, request)"
    " SELECT projection, request FROM taken ORDER BY id"
)
FORGET: Final = tuple(
    f"DELETE FROM {table} WHERE projection = $1 AND build = $2"
    for table in (POSITION, LEDGER_TABLE, SLICE, SET)
)

POSITIONS: Final = (
    f"SELECT shard, log_end, epoch, booked_at, chain FROM {POSITION}"
    " WHERE projection = $1 AND build = $2 ORDER BY shard"
)
BEGIN_SHARD: Final = (
    f"INSERT INTO {POSITION} (projection, build, shard, log_end, epoch, booked_at, chain)"
    " VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING"
)
MOVE_SHARD: Final = (
    f"UPDATE {POSITION} SET log_end = $4, epoch = $5, booked_at = $6, chain = $7"
    " WHERE projection = $1 AND build = $2 AND shard = $3 AND log_end = $8 AND chain = $9"
)
AUDIT: Final = (
    f"INSERT INTO {LEDGER_TABLE} (projection, build, shard, log_end, epoch, booked_at, chain, rows)"
    " VALUES ($1, $2, $3, $4, $5, to_timestamp(0) + $6 * INTERVAL '1 microsecond', $7, $8)"
)
TOUCH: Final = (
    # DO UPDATE waits for a refresh that has just taken the slice, DO NOTHING would lose it.
    f"INSERT INTO {SLICE} (projection, build, aggregate, slice)"
    " SELECT $1, $2, $3, DATE '1970-01-01' + day FROM unnest($4::int[]) AS day ORDER BY day"
    " ON CONFLICT (projection, build, aggregate, slice) DO UPDATE SET slice = excluded.slice"
)
TAKE_SLICES: Final = (
    f"DELETE FROM {SLICE} WHERE projection = $1 AND build = $2 AND aggregate = $3 AND slice IN"
    f" (SELECT slice FROM {SLICE} WHERE projection = $1 AND build = $2 AND aggregate = $3"
    " ORDER BY slice LIMIT $4) RETURNING slice"
)
SLICES_LEFT: Final = f"SELECT count(*) FROM {SLICE} WHERE projection = $1 AND build = $2"
IS_PARTITIONED: Final = (
    "SELECT relkind = 'p' FROM pg_class"
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


def set_of(row: Mapping[str, Any]) -> ProjectionSet:
    """A row of `SETS`."""
    parked = None
    if row["parked_reason"] is not None:
        parked = Parked(
            ShardId(row["parked_shard"]),
            Offset(row["parked_offset"]),
            row["parked_index"],
            row["parked_reason"],
            Instant(row["parked_at"]),
        )
    return ProjectionSet(
        row["projection"],
        row["version"],
        row["build"],
        SetState(row["state"]),
        Instant(row["created_at"]),
        Instant(row["changed_at"]),
        parked,
        row["paused"],
    )


def checkpoint_of(row: Mapping[str, Any]) -> Checkpoint:
    """A row of `POSITIONS`."""
    return Checkpoint(
        Offset(row["log_end"]), Epoch(row["epoch"]), Instant(row["booked_at"]), row["chain"]
    )


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
