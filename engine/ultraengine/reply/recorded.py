"""A logged command with its outcome, as it is read back for a retry or a question."""

import msgspec

from ultraengine.model.command import Command
from ultraengine.model.ids import Epoch, Instant, ShardId
from ultraengine.model.outcome import Outcome

Name = tuple[str, str, str]
"""(tenant, key, id) of a command: what idempotency keys are unique by."""


class Recorded(msgspec.Struct, frozen=True, gc=False):
    """A logged command with its outcome and where it stands, read back for a retry."""

    command: Command
    outcome: Outcome
    epoch: Epoch
    time: Instant
    shard: ShardId | None = None
    """The shard that did it, where a slot has brought it along; None: this one."""


def name_of(command: Command) -> Name:
    """What idempotency keys are unique by."""
    return command.tenant, command.key, command.id
