"""Forms one batch of what waits in the inboxes of a reading.

    inboxes -> `Former`, step by step -> a batch, and the poison before which it ends

While this batch is formed the last one is written, on the same thread: two threads would take the
interpreter from each other and were slower (docs/performance.md).  So between two steps whoever
writes gets his turns.  He needs several for each message to a database, and it is the database
that must never wait.
"""

import asyncio
from collections.abc import Mapping

from ultraengine.model.ids import Instant, ShardId
from ultraengine.model.limits import ProjectionLimits
from ultraengine.model.outcome import CommittedGroup
from ultraengine.ports import Clock
from ultraengine.projection.decode import Behind, Decoder
from ultraengine.projection.projector import Former, Poison, ProjectionHooks
from ultraengine.projection.reading.driver import Reader
from ultraengine.projection.readings import Reading


class Forming:
    """One batch of one reading."""

    def __init__(
        self,
        reading: Reading,
        readers: Mapping[ShardId, Reader],
        decoder: Decoder,
        hooks: ProjectionHooks,
        limits: ProjectionLimits,
        clock: Clock,
    ) -> None:
        """`readers` are told of the room that was made."""
        self._reading = reading
        self._readers = readers
        self._decoder = decoder
        self._hooks = hooks
        self._limits = limits
        self._clock = clock
        self._taken: list[CommittedGroup] = []
        self.first_times: dict[ShardId, Instant] = {}
        """Of the first group of each shard in the batch."""
        self.held_up: dict[ShardId, Behind] = {}
        """Shards whose next group has to wait for another shard's, newly found."""

    async def run(self) -> tuple[Former, Poison | None]:
        """Project what waits, up to the limits.  Ends before an event that is poison.

        A group that has to wait for another shard's stays where it is; the others go on.
        """
        former, limits = self._former(), self._limits
        groups_max = 1 if self._reading.one_by_one else None
        while (
            len(self._taken) != groups_max
            and former.rows < limits.batch_rows_max
            and former.bytes < limits.batch_bytes_max
        ):
            group = self._reading.next_group(former.reached)
            if group is None:
                break
            poison = await self._take(former, group)
            if poison is not None:
                self._reading.inboxes[group.shard].put_back(group)
                return await self._again(), poison
            if former.behind is not None:
                inbox = self._reading.inboxes[group.shard]
                inbox.put_back(group)
                inbox.behind = self.held_up[group.shard] = former.behind
                continue
            self._taken.append(group)
            self.first_times.setdefault(group.shard, group.time)
            self._readers[group.shard].took()
        return former, None

    async def _take(self, former: Former, group: CommittedGroup) -> Poison | None:
        """`Former.take`, one step at a time."""
        for _ in former.steps(group, self._clock.now()):
            await asyncio.sleep(0)
        await asyncio.sleep(0)  # Groups may be small and many.
        return former.poison

    async def _again(self) -> Former:
        """What was taken before the poison, which has spoilt its batch."""
        former = self._former()
        for group in self._taken:
            await self._take(former, group)
        return former

    def _former(self) -> Former:
        members = [member.declared for member in self._reading.members]
        return Former(members, self._decoder, self._reading.taken, self._hooks)
