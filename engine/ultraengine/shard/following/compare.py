"""One committed group, decided here too and compared with its leader's outcomes.

Only what this build's own handlers logged is decided; anything else is taken over as recorded, as
in a replay, and so is what a person has overridden.
"""

import msgspec

from ultraengine.execution.executor import Executor
from ultraengine.log.reader import RecordedGroup
from ultraengine.model.ids import Epoch, Instant, Offset
from ultraengine.model.outcome import Outcome, Status


class Difference(msgspec.Struct, frozen=True):
    """The first command that came out differently here.  The executor is void from there on."""

    offset: int
    command_type: str
    recorded: Outcome
    decided: Outcome


def follow_group(executor: Executor, group: RecordedGroup) -> Difference | None:
    """Execute a group with all of its outcomes; what it already executed is passed over."""
    header = group.header
    time, epoch = Instant(header.time), Epoch(header.epoch)
    same = header.handlers == executor.registry.handlers_digest
    for command, recorded in zip(group.commands, group.outcomes or (), strict=True):
        offset = Offset(recorded.offset)
        if offset < executor.applied_end:
            continue
        if not same or recorded.status is Status.INTERNAL:
            executor.replay(command, recorded, time=time, epoch=epoch)
            continue
        admitted = executor.registry.restore(command)
        decided = executor.execute(admitted, offset=offset, time=time, epoch=epoch).outcome
        if decided != recorded:
            return Difference(int(offset), command.type, recorded, decided)
    executor.dedupe.advance(time, executor.applied_end)
    return None
