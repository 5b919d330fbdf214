"""Whether a command that is new may wait for a group."""

from typing import Final

from ultraengine.model.command import Command
from ultraengine.model.errors import EngineError, Overloaded
from ultraengine.model.id_time import id_time
from ultraengine.model.limits import Limits

OVERLOAD_RETRY_AFTER_S: Final = 0.1


def refusal_of(
    command: Command, limits: Limits, *, waiting: int, waiting_bytes: int, floor_time: int
) -> EngineError | None:
    """Why it may not, beside so many others: no room, or an id older than what is remembered."""
    if waiting >= limits.mailbox_commands_max or waiting_bytes >= limits.mailbox_bytes_max:
        return Overloaded(
            f"the shard's queue holds {waiting} commands ({waiting_bytes} bytes)",
            retry_after_s=OVERLOAD_RETRY_AFTER_S,
        )
    if floor_time > 0:
        made = command.issued_at if command.issued_at is not None else id_time(command.id)
        if made is not None and made < floor_time:
            return EngineError(
                "the id is older than what the engine remembers", code="TOO_OLD", pointer="/id"
            )
    return None
