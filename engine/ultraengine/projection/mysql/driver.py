"""MariaDB or MySQL as a target: exactly once, with tables that are swapped by one statement.

A batch is one transaction: the positions first, which fences and locks, then facts by the bulk
command, current rows merged, changes, one ledger row per shard, touched slices.

No definition is part of a transaction here, so each is arranged to be safe to repeat:

    create   tables, then the set's row: a set that is remembered is whole
    drop     tables, then the memory: what is half gone is dropped again
    serve    views under other names, then one RENAME TABLE for all of them and for the view that
             says which set it is; what the set's row says is made to follow (`_settle`)

Which set serves is what that view says.  A crash after the RENAME leaves a row that is behind, and
the next `open` lets it follow.

A connection that is lost in mid batch may live on at the server, with its locks, and a COMMIT
under way may have been done.  Each connection of a target holds a lock by the target's own name;
the next one ends the connection that still holds it before it does anything else, so that what it
then reads stays true.
"""

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Final

from ultraengine.model.ids import Instant, ShardId
from ultraengine.model.projection import Aggregate, Column, Projection, Table, TableKind
from ultraengine.projection.fold import Batch, CurrentRows
from ultraengine.projection.mysql import partitions, statements
from ultraengine.projection.mysql.address import parse
from ultraengine.projection.mysql.dialect import LAST, NEXT, MysqlDialect
from ultraengine.projection.mysql.partitions import Range
from ultraengine.projection.mysql.session.driver import Lost, ServerError, Session, connect
from ultraengine.projection.mysql.statements import Verdict, verdict
from ultraengine.projection.mysql.values import EPOCH, EPOCH_DAY, chunks, converted
from ultraengine.projection.target import (
    START,
    Checkpoint,
    Checksum,
    Fenced,
    Moved,
    Parked,
    ProjectionSet,
    Request,
    RowRefused,
    TargetUnavailable,
    all_tables,
    physical,
)

LOCK_WAIT_S: Final = 5
"""For rows and definitions that others hold; a reader's long transaction delays a swap, and it is
tried again."""
WRITE_S: Final = 120.0
"""For one batch, and for all that is as short."""
LONG_S: Final = 3_600.0
"""For what reads whole tables."""
END_S: Final = 10
"""For the end of a connection that was lost."""
