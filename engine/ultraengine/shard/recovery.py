"""From a snapshot's position to the end of the log.

Recorded outcomes are evolved; only the last groups, whose outcomes never reached the log,
are decided again, and only by the handler versions that are stamped on their frame: what a
client was told must not change with the code (requirement 001 §1.5, §7.2).
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Final

import msgspec

from ultraengine.execution.executor import Executor
from ultraengine.execution.system import SKIP, system_data
from ultraengine.log.frame import FrameHeader
from ultraengine.log.reader import RecordedGroup
from ultraengine.model.command import Command
from ultraengine.model.errors import InvariantBroken
from ultraengine.model.ids import Epoch, Instant, Offset
from ultraengine.model.outcome import EMPTY_ARRAY, NIL, Failure, Outcome, Status

PROGRESS_EVERY: Final = 65_536
"""Commands between two calls of ``progress``."""


class OtherHandlers(InvariantBroken):
    """The last groups were logged by other handler versions and have no recorded outcome.

    Start the previous release once (a clean stop records every outcome), or name those handlers.
    """


class Redecided(msgspec.Struct, frozen=True):
    """A command that was decided again at the start, and its outcome that is to be written."""

    command: Command
    outcome: Outcome
    epoch: Epoch
    time: Instant


class Recovery(msgspec.Struct):
    """What recovery did."""

    replayed: int = 0
    redecided: list[Redecided] = []


def recover(
    executor: Executor,
    groups: Iterable[RecordedGroup],
    *,
    decide_again: str | None = None,
    progress: Callable[[int], None] | None = None,
    checkpoint: Callable[[FrameHeader], None] | None = None,
) -> Recovery:
    """Bring `executor` from its position to the end of the log.

    `groups` is consumed lazily: memory holds one group, however long the log.  `checkpoint` is
    called before each group at whose beginning the state may be kept, with that group's header.
    Raises `OtherHandlers`, `EvolveFailed` or `InvariantBroken`; the executor is void then.
    """
    recovery = Recovery()
    reported = 0
    for group in groups:
        # What was decided again is not in the log yet, and would never be asked for again.
        exact = recovery.replayed and not recovery.redecided
        if checkpoint is not None and exact and group.header.base_offset == executor.applied_end:
            checkpoint(group.header)
        _recover_group(executor, group, recovery, decide_again=decide_again)
        if progress is not None and recovery.replayed - reported >= PROGRESS_EVERY:
            reported = recovery.replayed
            progress(recovery.replayed)
    return recovery


def _recover_group(
    executor: Executor, group: RecordedGroup, recovery: Recovery, *, decide_again: str | None
) -> None:
    header, outcomes = group.header, group.outcomes or []
    time, epoch = Instant(header.time), Epoch(header.epoch)
    commands, begun = group.commands, executor.applied_end
    named = bytes.fromhex(decide_again or "")
    first = max(0, executor.applied_end - header.base_offset)
    if first < len(outcomes):
        there = commands[first : len(outcomes)]
        executor.replay_group(there, outcomes[first:], time=time, epoch=epoch)
    for position in range(max(first, len(outcomes)), len(commands)):
        command, offset = commands[position], Offset(header.base_offset + position)
        if offset in executor.skipped:
            outcome = _overridden(offset, executor.version(command.tenant, command.key))
            executor.replay(command, outcome, time=time, epoch=epoch)
            recovery.redecided.append(Redecided(command, outcome, epoch, time))
            continue
        if header.handlers not in (executor.registry.handlers_digest, named):
            raise OtherHandlers(
                "a command without a recorded outcome is decided by its own handlers",
                offset=offset,
                logged=header.handlers.hex(),
                here=executor.registry.handlers_digest.hex(),
                versions=executor.registry.handlers,
            )
        admitted = executor.registry.restore(command)
        done = executor.execute(admitted, offset=offset, time=time, epoch=epoch)
        recovery.redecided.append(Redecided(command, done.outcome, epoch, time))
    replayed = executor.applied_end - begun
    if replayed:
        recovery.replayed += replayed
        executor.dedupe.advance(time, executor.applied_end)


def _overridden(offset: Offset, version: int) -> Outcome:
    """What is recorded of a command that no one may carry out."""
    failure = Failure("INTERNAL", "an operator's override: the command was not carried out")
    return Outcome(offset, Status.INTERNAL, version, NIL, EMPTY_ARRAY, failure)


def skips(groups: Iterable[RecordedGroup]) -> Iterator[int]:
    """Offsets that a logged override tells recovery not to evolve."""
    for group in groups:
        for command in group.commands:
            if command.type == SKIP:
                yield system_data(command).offset
