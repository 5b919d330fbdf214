"""From recorded groups to pages: bounded, in order, and nothing decoded.

A group is shown when all its outcomes are recorded; the first one that lacks some ends a page.
"""

from collections.abc import Iterable
from typing import Protocol

from ultraengine.log.reader import RecordedGroup
from ultraengine.model.errors import InvariantBroken
from ultraengine.model.ids import Epoch, FrameSequence, Instant, Offset, ShardId
from ultraengine.model.outcome import CommittedGroup


class Groups(Protocol):
    """What a feed reads: the log of a shard, or what a copy of it may show."""

    def groups(self, from_offset: int, to_offset: int | None = None) -> Iterable[RecordedGroup]:
        """See `LogReader.groups`."""


def take(
    groups: Iterable[RecordedGroup], *, bytes_max: int, groups_max: int
) -> list[RecordedGroup]:
    """The groups of one page: at least one when one is recorded, then as many as fit."""
    taken: list[RecordedGroup] = []
    size = 0
    for group in groups:
        outcomes = group.outcomes_payload
        if outcomes is None:
            break
        size += len(group.commands_payload) + len(outcomes)
        if taken and size > bytes_max:
            break
        taken.append(group)
        if len(taken) == groups_max or size >= bytes_max:
            break
    return taken


def committed(group: RecordedGroup) -> CommittedGroup:
    """A recorded group as it is shipped."""
    header, outcomes = group.header, group.outcomes_payload
    if outcomes is None:
        raise InvariantBroken("what is shipped is recorded", base_offset=header.base_offset)
    return CommittedGroup(
        ShardId(header.shard),
        Epoch(header.epoch),
        FrameSequence(header.sequence),
        Offset(header.base_offset),
        header.count,
        Instant(header.time),
        header.codec,
        group.commands_payload,
        outcomes,
        group.chain,
    )
