"""One reading of the feed and the sets that it feeds: values that the driver moves along.

Sets that stand at the same positions share a reading: their groups are read and decoded once.  A
build from offset 0 has a reading of its own beside the set that serves.
"""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import msgspec

from ultraengine.feed.source import FeedPage
from ultraengine.model.ids import Instant, Offset, ShardId
from ultraengine.model.outcome import CommittedGroup
from ultraengine.projection.decode import WHOLE, Behind
from ultraengine.projection.lag import Lag, lag
from ultraengine.projection.progress import is_caught_up
from ultraengine.projection.projector import Declared, Formed
from ultraengine.projection.target import START, Checkpoint, Parked, ProjectionSet, SetState

SetKey = tuple[str, int]
"""(projection, build): names a set in its target."""
NO_TIME: Final = Instant(0)


def key_of(of: ProjectionSet) -> SetKey:
    """The name of a set in its target."""
    return of.projection, of.build


class Member(msgspec.Struct, frozen=True):
    """A set and how it is filled."""

    of: ProjectionSet
    declared: Declared


class Inbox:
    """What was read of one shard and not taken yet."""

    def __init__(self) -> None:
        self.groups: deque[CommittedGroup] = deque()
        self.bytes = 0
        self.end: Offset | None = None
        """First offset without a durable outcome, as seen last; None = nothing was read yet."""
        self.end_time = NO_TIME
        self.problem: str | None = None
        """Why nothing can be read any more: what the log no longer has."""
        self.behind: Behind | None = None
        """Which other shard has to be taken before the oldest group: a slot moved here from it."""

    def receive(self, page: FeedPage) -> None:
        """Keep a page."""
        self.groups.extend(page.groups)
        self.bytes += sum(map(_size, page.groups))
        self.saw(page.end, page.end_time)

    def saw(self, end: Offset, time: Instant) -> None:
        """Where the feed ended at some moment: a page may have been sent before a later look."""
        if self.end is None or end >= self.end:
            self.end, self.end_time = end, time

    def has_next(self, reached: Callable[[ShardId], Offset]) -> bool:
        """Whether the oldest group may be taken.  `reached` says how far a shard was taken."""
        behind = self.behind
        if behind is not None and reached(behind.shard) >= behind.offset:
            self.behind = behind = None
        return bool(self.groups) and behind is None

    def take(self) -> CommittedGroup:
        """The oldest group."""
        group = self.groups.popleft()
        self.bytes -= _size(group)
        return group

    def put_back(self, group: CommittedGroup) -> None:
        """It was not used after all."""
        self.groups.appendleft(group)
        self.bytes += _size(group)


def _size(group: CommittedGroup) -> int:
    return len(group.commands) + len(group.outcomes)


class Reading:
    """Sets at the same positions."""

    def __init__(
        self,
        members: Sequence[Member],
        positions: Mapping[ShardId, Checkpoint],
        shards: Sequence[ShardId],
        *,
        one_by_one: bool = False,
    ) -> None:
        self.members = tuple(members)
        self.shards = tuple(shards)
        self.positions = dict(positions)
        """As they are durable in the target."""
        self.taken = dict(positions)
        """With the batch that is being written."""
        self.inboxes = {shard: Inbox() for shard in shards}
        self.one_by_one = one_by_one
        """A batch was refused: groups are written one at a time until the one is found."""
        self.in_flight: dict[ShardId, Instant] = {}
        """Stamped time of the first group of the batch being written, by shard."""
        self._turn = 0

    def follow_on(self, before: "Reading") -> None:
        """Know what another reading of these sets knew of what is not in their tables yet, so that
        the lag of a database that is away is not forgotten with each attempt to reach it.

        A build is told nothing: it serves when it has reached where the log ends now.
        """
        if self.is_building:
            return
        for shard, inbox in self.inboxes.items():
            known = before.inboxes.get(shard)
            if known is None or known.end is None:
                continue
            inbox.saw(known.end, known.end_time)
            oldest = before.oldest(shard)
            if oldest is not None:
                self.in_flight[shard] = oldest

    def oldest(self, shard: ShardId) -> Instant | None:
        """Stamped time of the oldest group that was read and is not written."""
        groups = self.inboxes[shard].groups
        return self.in_flight.get(shard, groups[0].time if groups else None)

    @property
    def keys(self) -> frozenset[SetKey]:
        """Names of its sets."""
        return frozenset(key_of(member.of) for member in self.members)

    @property
    def is_building(self) -> bool:
        """Whether one of its sets does not serve yet."""
        return any(member.of.state is SetState.BUILDING for member in self.members)

    def has_reached(self, ends: Mapping[ShardId, Offset]) -> bool:
        """Whether the tables hold all below some offsets."""
        return all(self.positions.get(shard, START).offset >= end for shard, end in ends.items())

    def is_waiting(self) -> bool:
        """Whether a group waits that may be taken."""
        return any(inbox.has_next(self._reached) for inbox in self.inboxes.values())

    def _reached(self, shard: ShardId) -> Offset:
        return self.taken.get(shard, START).offset

    def next_group(self, reached: Callable[[ShardId], Offset]) -> CommittedGroup | None:
        """The next group to project, shards in turn; None when nothing waits that may be taken."""
        count = len(self.shards)
        for step in range(count):
            place = (self._turn + step) % count
            inbox = self.inboxes[self.shards[place]]
            if inbox.has_next(reached):
                self._turn = (place + 1) % count
                return inbox.take()
        return None

    def formed(self, formed: Formed, first_times: Mapping[ShardId, Instant]) -> None:
        """A batch is about to be written."""
        self.taken.update({moved.shard: moved.after for moved in formed.moved})
        self.in_flight = dict(first_times)

    def written(self, formed: Formed) -> None:
        """It is durable."""
        self.positions.update({moved.shard: moved.after for moved in formed.moved})
        self.in_flight = {}

    def lost(self, now: Instant) -> Parked | None:
        """Where the log no longer has what comes next; None = it has."""
        for shard, inbox in self.inboxes.items():
            if inbox.problem is not None and not inbox.groups:
                offset = self.taken.get(shard, START).offset
                return Parked(shard, offset, WHOLE, inbox.problem, now)
        return None

    @property
    def is_caught_up(self) -> bool:
        """Whether the tables hold all that the feed had when it was seen last."""
        return is_caught_up(
            self.positions, {shard: inbox.end for shard, inbox in self.inboxes.items()}
        )

    @property
    def total(self) -> int:
        """Commands in the feed, as far as is known."""
        return sum(inbox.end or 0 for inbox in self.inboxes.values())

    def lags(self, now: Instant) -> dict[ShardId, Lag]:
        """How far behind, by shard; shards of which nothing was read yet are absent."""
        found: dict[ShardId, Lag] = {}
        for shard, inbox in self.inboxes.items():
            if inbox.end is not None:
                oldest = self.oldest(shard)
                position = self.positions.get(shard, START)
                found[shard] = lag(position, inbox.end, inbox.end_time, oldest, now)
        return found


def group_by_position(
    members: Sequence[Member],
    positions: Mapping[SetKey, Mapping[ShardId, Checkpoint]],
    apart: Mapping[SetKey, object],
) -> list[tuple[Member, ...]]:
    """Members that may share a reading, in order; those in `apart` are alone."""
    groups: dict[object, list[Member]] = {}
    for member in members:
        key = key_of(member.of)
        at = tuple(sorted((shard, one.offset) for shard, one in positions[key].items()))
        groups.setdefault(key if key in apart else at, []).append(member)
    return [tuple(group) for group in groups.values()]
