"""Why a process ends, and what an operator is told by its exit code."""

import enum
from typing import Final

from ultraengine.config import ConfigErrors
from ultraengine.execution.pipeline import EvolveFailed
from ultraengine.log.damage import LogDamaged, LogInUse, LogRefused
from ultraengine.ports import DiskFull
from ultraengine.replication.effects import Deposed, Diverged
from ultraengine.replication.installing.place import Installed
from ultraengine.shard.recovery import OtherHandlers
from ultraengine.snapshot.errors import SnapshotRefused


class ExitCode(enum.IntEnum):
    """Why a process ended; an operator tells the causes apart by these."""

    OK = 0
    FAILED = 1
    BAD_CONFIG = 2
    LOG_FAILED = 70
    """A write or sync of the log failed: nothing was acknowledged after it; start again."""
    LOG_DAMAGED = 71
    """Damage below what was acknowledged: repair from a replica or an archive."""
    IN_USE = 72
    """Another process owns the directory."""
    OTHER_HANDLERS = 73
    """Unrecorded commands were logged by other handler versions."""
    DISK_FULL = 74
    """No room for the segment that every start needs."""
    REFUSED = 75
    """The directory is of another shard or engine or was lost, or a key is missing or wrong."""
    HALTED = 76
    """A recorded event does not evolve: see the offset in the message."""
    FENCED = 77
    """Another projection worker writes the same tables."""
    DEPOSED = 78
    """Another replica leads or may: start again, as its follower."""
    DIVERGED = 79
    """A replica's log contradicts what is known to be committed: keep it, and look."""
    FILLED = 80
    """A replica was filled from a snapshot: start again, as a follower with it."""


LOG_FAILED: Final = "the log failed: "
DEPOSED: Final = "it leads no more: "
DIVERGED: Final = "the replica has diverged: "
FILLED: Final = "the replica was filled: "
_ENDS: Final = {
    LOG_FAILED: ExitCode.LOG_FAILED,
    DEPOSED: ExitCode.DEPOSED,
    DIVERGED: ExitCode.DIVERGED,
    FILLED: ExitCode.FILLED,
}


def reason_of(error: BaseException) -> str:
    """Why a process that serves must end at once, in words."""
    if isinstance(error, Deposed):
        return f"{DEPOSED}{error}"
    if isinstance(error, Diverged):
        return f"{DIVERGED}{error}"
    if isinstance(error, Installed):
        return f"{FILLED}{error}"
    return f"{LOG_FAILED}{error}"


def code_of_reason(why: str) -> ExitCode | None:
    """The exit code of a process that ends for this reason without a stop; None: it stops."""
    return next((code for start, code in _ENDS.items() if why.startswith(start)), None)


def exit_code_of(error: BaseException) -> ExitCode:
    """The exit code that tells an operator what happened."""
    table: tuple[tuple[type[BaseException], ExitCode], ...] = (
        (ConfigErrors, ExitCode.BAD_CONFIG),
        (LogDamaged, ExitCode.LOG_DAMAGED),
        (LogInUse, ExitCode.IN_USE),
        (LogRefused, ExitCode.REFUSED),
        (SnapshotRefused, ExitCode.REFUSED),
        (OtherHandlers, ExitCode.OTHER_HANDLERS),
        (EvolveFailed, ExitCode.HALTED),
        (DiskFull, ExitCode.DISK_FULL),
        (OSError, ExitCode.LOG_FAILED),
    )
    return next((code for kind, code in table if isinstance(error, kind)), ExitCode.FAILED)
