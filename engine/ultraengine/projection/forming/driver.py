"""Groups that wait become the next batch, while the last one is on its way to the database.

To project is pure work for the processor; to send is to wait for a socket and then to be quick.
On one thread the database would wait for each group's projection before it gets its next bytes,
so large groups are projected on another thread: the sender gets the interpreter whenever it asks.
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import Final

from ultraengine.model.ids import Instant, ShardId
from ultraengine.model.limits import ProjectionLimits
from ultraengine.model.outcome import CommittedGroup
from ultraengine.ports import Clock
from ultraengine.projection.projector import Former, Poison
from ultraengine.projection.reading.driver import Reader
from ultraengine.projection.readings import Reading, group_bytes

THREAD_BYTES: Final = 16 * 1024
"""Payload of a group from which on another thread is worth its two hand-overs."""

Readers = dict[ShardId, tuple[Reader, "asyncio.Task[None]"]]


async def form(
    reading: Reading,
    fresh: Callable[[Reading], Former],
    readers: Readers,
    limits: ProjectionLimits,
    clock: Clock,
) -> tuple[Former, Mapping[ShardId, Instant], Poison | None]:
    """Project what waits, up to the limits.  Ends before an event that is poison.

    `fresh` makes an empty batch at the reading's position.  Nobody else may use it or its decoder
    until this has ended.  Returns the batch, the stamped time of each shard's first group, and
    the poison.
    """
    former, taken = fresh(reading), list[CommittedGroup]()
    first_times: dict[ShardId, Instant] = {}
    groups_max = 1 if reading.one_by_one else None
    while (
        len(taken) != groups_max
        and former.rows < limits.batch_rows_max
        and former.bytes < limits.batch_bytes_max
    ):
        group = reading.next_group()
        if group is None:
            break
        poison = await _take(former, group, clock.now())
        if poison is not None:
            reading.inboxes[group.shard].put_back(group)
            former = fresh(reading)
            for group in taken:
                former.take(group, clock.now())
            return former, first_times, poison
        taken.append(group)
        first_times.setdefault(group.shard, group.time)
        readers[group.shard][0].took()
    return former, first_times, None


async def _take(former: Former, group: CommittedGroup, now: Instant) -> Poison | None:
    """One group at a time: health, metrics and the batch under way are looked after between."""
    if group_bytes(group) >= THREAD_BYTES:
        return await asyncio.to_thread(former.take, group, now)
    await asyncio.sleep(0)
    return former.take(group, now)
