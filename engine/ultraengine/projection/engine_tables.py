"""The engine's own tables in a target, declared like those of a projection.

A target whose database has transactions makes them with its dialect, so that their names and
columns are the same everywhere; `engine_tables` may be stored as a target likes beyond that,
but auditors read `LEDGER` by these columns.
"""

from typing import Final

from ultraengine.model.ids import CHAIN_BYTES
from ultraengine.model.projection import (
    NAME_CHARS_MAX,
    TEXT_CHARS_MAX,
    Column,
    ColumnType,
    Table,
    TableKind,
)
from ultraengine.projection.target import LEDGER_TABLE

_INTEGER, _TEXT, _TIME = ColumnType.INTEGER, ColumnType.TEXT, ColumnType.TIME
_PROJECTION: Final = Column(name="projection", type=_TEXT, length=NAME_CHARS_MAX)
_VERSION: Final = Column(name="version", type=_INTEGER)
_BUILD: Final = Column(name="build", type=_INTEGER)
_SHARD: Final = Column(name="shard", type=_INTEGER)
_CHAIN: Final = Column(name="chain", type=ColumnType.BYTES, length=CHAIN_BYTES)

SETS: Final = Table(
    name="ultra_projection_set",
    kind=TableKind.CURRENT,
    key=("projection", "build"),
    columns=(
        _PROJECTION,
        _BUILD,
        _VERSION,
        Column(name="state", type=_TEXT, length=16),
        Column(name="created_at", type=_TIME),
        Column(name="changed_at", type=_TIME),
        Column(name="paused", type=ColumnType.BOOLEAN),
        Column(name="parked", type=ColumnType.JSON, nullable=True),
        Column(
            name="tables",
            type=_TEXT,
            length=TEXT_CHARS_MAX,
            summary="Names of its tables, with commas between: their views go when a set without"
            " them serves.",
        ),
    ),
    summary="Builds of projections.",
)
POSITIONS: Final = Table(
    name="ultra_projection_position",
    kind=TableKind.CURRENT,
    key=("projection", "build", "shard"),
    columns=(
        _PROJECTION,
        _BUILD,
        _SHARD,
        Column(name="log_offset", type=_INTEGER, summary="First offset that is not in the tables."),
        Column(name="epoch", type=_INTEGER),
        Column(name="booked_at", type=_TIME, summary="Stamped time of the last group."),
        _CHAIN,
    ),
    summary="How far each set has followed each shard's log.",
)
LEDGER: Final = Table(
    name=LEDGER_TABLE,
    kind=TableKind.APPEND,
    key=("projection", "build", "shard", "log_end"),
    columns=(
        _PROJECTION,
        _BUILD,
        _SHARD,
        Column(name="log_end", type=_INTEGER, summary="First offset that the write did not reach."),
        _VERSION,
        Column(name="epoch", type=_INTEGER),
        Column(name="booked_at", type=_TIME, summary="Stamped time of its last group."),
        _CHAIN,
        Column(name="rows", type=_INTEGER, summary="Rows of the whole write."),
    ),
    summary="Which state of the log, by its chain hash, the tables have followed: a row per write.",
)
REQUESTS: Final = Table(
    name="ultra_projection_request",
    kind=TableKind.APPEND,
    key=("id",),
    columns=(
        Column(name="id", type=_INTEGER),
        _PROJECTION,
        Column(name="request", type=_TEXT, length=16),
        Column(name="asked_at", type=_TIME),
    ),
    summary="What persons have asked of the worker and it has not taken yet.",
)
SLICES: Final = Table(
    name="ultra_projection_slice",
    kind=TableKind.CURRENT,
    key=("projection", "build", "aggregate", "slice"),
    columns=(
        _PROJECTION,
        _BUILD,
        Column(name="aggregate", type=_TEXT, length=NAME_CHARS_MAX),
        Column(name="slice", type=ColumnType.DATE),
    ),
    summary="Slices of aggregates that are to be computed anew.",
)
INDEXES: Final = Table(
    name="ultra_projection_index",
    kind=TableKind.CURRENT,
    key=("projection", "name"),
    columns=(
        _PROJECTION,
        Column(name="name", type=_TEXT, length=NAME_CHARS_MAX),
        Column(name="indexed", type=_TEXT, length=NAME_CHARS_MAX, summary="The table."),
        Column(
            name="members",
            type=_TEXT,
            length=TEXT_CHARS_MAX,
            summary="The indexed columns in their order, with commas between.",
        ),
        Column(name="created_at", type=_TIME),
    ),
    summary="Indexes that were added beyond the declared ones; new sets get them too.",
)
engine_tables: Final = (SETS, POSITIONS, LEDGER, REQUESTS, SLICES, INDEXES)
"""All of them."""
